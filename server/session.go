package server

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	sessionPath = "/session"
	logoutPath  = sessionPath + "/logout"
	// sessionAge is how long a cookie counts.
	sessionAge = 12 * time.Hour
	// maxSessionBody is the longest body with a token, in bytes.
	maxSessionBody = 8 << 10
	// wrongTries is how many wrong tokens an address may send in triesInterval.
	wrongTries    = 10
	triesInterval = time.Minute
	// maxEnded is how many sessions that were ended are remembered.
	maxEnded = 10_000
)

// sessions has browsers send a cookie in place of a token, which no script of a page
// can read and no page of another site sends.
//
// A cookie is signed with a key of this process, and says which token it stands for by
// its place in a list. So a restart ends every session, and a cookie tells nothing.
type sessions struct {
	base    string            // Config.Base; set by newSessions, like the next two
	key     [sha256.Size]byte // it signs
	holders tokens            // all tokens there are, each once
	tries   tries

	mu    sync.Mutex // guards what follows
	ended map[sessionID]time.Time
}

// sessionID tells sessions apart.
type sessionID [16]byte

// grant is what a cookie says, and how long.
type grant struct {
	id      sessionID
	expires time.Time // to a second
	holder  int       // index in sessions.holders
}

const (
	sessionBytes = len(sessionID{}) + 8 + 2
	cookieBytes  = sessionBytes + sha256.Size
)

func newSessions(base string, lists ...tokens) *sessions {
	s := &sessions{base: base, ended: make(map[sessionID]time.Time)}
	_, _ = rand.Read(s.key[:]) // it never fails
	for _, t := range lists {
		s.holders = append(s.holders, t...)
	}
	return s
}

// begin returns a new session of a token.
func (s *sessions) begin(holder int, now time.Time) grant {
	n := grant{expires: now.Add(sessionAge).Truncate(time.Second), holder: holder}
	_, _ = rand.Read(n.id[:])
	return n
}

func (s *sessions) sign(text []byte) []byte {
	h := hmac.New(sha256.New, s.key[:])
	h.Write(text)
	return h.Sum(nil)
}

// write returns the value of a session's cookie.
func (s *sessions) write(n grant) string {
	text := make([]byte, 0, cookieBytes)
	text = append(text, n.id[:]...)
	text = binary.BigEndian.AppendUint64(text, uint64(n.expires.Unix()))
	text = binary.BigEndian.AppendUint16(text, uint16(n.holder))
	return base64.RawURLEncoding.EncodeToString(append(text, s.sign(text)...))
}

// read returns the session of a cookie that this process has made and that still counts.
func (s *sessions) read(value string, now time.Time) (n grant, ok bool) {
	text, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || len(text) != cookieBytes || !hmac.Equal(s.sign(text[:sessionBytes]), text[sessionBytes:]) {
		return grant{}, false
	}
	rest := text[copy(n.id[:], text):]
	n.expires = time.Unix(int64(binary.BigEndian.Uint64(rest)), 0)
	n.holder = int(binary.BigEndian.Uint16(rest[8:]))
	if !now.Before(n.expires) {
		return grant{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, over := s.ended[n.id]
	return n, !over
}

// end ends a session before its time. It forgets those whose time is over, and then
// another one if they are too many.
func (s *sessions) end(n grant, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ended) >= maxEnded {
		for id, expires := range s.ended {
			if !now.Before(expires) {
				delete(s.ended, id)
			}
		}
	}
	for id := range s.ended {
		if len(s.ended) < maxEnded {
			break
		}
		delete(s.ended, id)
	}
	s.ended[n.id] = n.expires
}

// tries counts wrong tokens by address.
type tries struct {
	mu     sync.Mutex // guards what follows
	began  time.Time
	counts *clients
}

// take returns the counter of an address after it counted a try, or false if the address
// has none left. A try with a right token is given back.
func (t *tries) take(address string, now time.Time) (counter *atomic.Int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil || now.Sub(t.began) >= triesInterval {
		t.began, t.counts = now, newClients()
	}
	counter = t.counts.ofAddress(address)
	return counter, within(counter, 1, wrongTries)
}

// cookieName is another one for each port, as browsers send a host's cookies to all its
// ports. With TLS it has the prefix with which no other host can set it, or, if it is not
// for the whole host, the one with which nothing but TLS can.
func (s *sessions) cookieName(r *http.Request) string {
	name := "adp-session"
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		name += "-" + port
	}
	switch {
	case r.TLS == nil:
		return name
	case s.base == "":
		return "__Host-" + name
	default:
		return "__Secure-" + name
	}
}

// cookie returns a cookie for all that is served. No page of another site sends it, no
// script reads it.
func (s *sessions) cookie(r *http.Request, value string, age time.Duration) *http.Cookie {
	c := &http.Cookie{
		Name: s.cookieName(r), Value: value, Path: cmp.Or(s.base, "/"), MaxAge: int(age.Seconds()),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	}
	if age == 0 {
		c.MaxAge = -1 // remove it
	}
	return c
}

// session returns the session whose cookie the request has. It counts for no page of
// another origin. Two cookies are two credentials, and none of them counts.
func (s *access) session(r *http.Request) (grant, bool) {
	if len(s.sessions.holders) == 0 || r.Header["Cookie"] == nil {
		return grant{}, false
	}
	sent := r.CookiesNamed(s.sessions.cookieName(r))
	if len(sent) != 1 || s.gate.private(r) != nil {
		return grant{}, false
	}
	return s.sessions.read(sent[0].Value, time.Now())
}

// authorize checks the request's bearer token, or the one that its cookie stands for. It
// refuses with the challenge of RFC 6750, section 3, in answer, and names the settings that
// list such tokens. It returns the client's scope of keys, which is "" if there are no tokens.
func (s *access) authorize(t tokens, settings string, r *http.Request, answer http.Header) (scope string, err error) {
	if len(t) == 0 {
		return "", nil
	}
	token, sent := bearer(r.Header)
	holder := -1
	if sent && token != "" {
		holder = s.sessions.holders.match(token)
	} else if n, ok := s.session(r); ok && !sent {
		sent, holder = true, n.holder
	}
	challenge := `Bearer realm="async-data-processor"`
	refusal := &problem{kind: unauthorized, detail: "send a bearer token in the Authorization header"}
	switch {
	case holder >= 0:
		if found := t.find(s.sessions.holders[holder].sum); found >= 0 {
			return t[found].scope, nil
		}
		challenge += `, error="insufficient_scope"`
		refusal = &problem{kind: forbidden, detail: "the token is known and may not do this, which needs one of " + settings}
	case sent:
		challenge += `, error="invalid_token"`
		refusal.detail = "the bearer token is not known here"
	}
	answer.Set("WWW-Authenticate", challenge)
	return "", refusal
}

// routeSessions adds the resources of sessions.
func routeSessions(e *echo.Echo) {
	e.GET(sessionPath, showSession)
	e.POST(sessionPath, openSession)
	e.DELETE(sessionPath, endSession)
	e.POST(logoutPath, endSession)
}

// openSession is POST /session: it gives the cookie for a token. It never takes up a
// session that the client names, and never looks for a token in the URL.
func openSession(ctx echo.Context) error {
	c := ctx.(*call)
	s := c.server
	tried, ok := s.sessions.tries.take(c.request.Peer, time.Now())
	if !ok {
		return &problem{kind: tooManyTries, detail: fmt.Sprintf(
			"this address has sent %d wrong tokens within a minute, wait for the next one", wrongTries)}
	}
	token, err := c.sessionToken()
	if err != nil {
		tried.Add(-1)
		return err
	}
	holder := s.sessions.holders.match(token)
	if holder < 0 {
		c.Response().Header().Set("WWW-Authenticate", `Bearer realm="async-data-processor", error="invalid_token"`)
		return &problem{kind: unauthorized, detail: "the token is not known here"}
	}
	tried.Add(-1)
	n := s.sessions.begin(holder, time.Now())
	c.SetCookie(s.sessions.cookie(c.Request(), s.sessions.write(n), sessionAge))
	return c.tellSession(n)
}

// sessionToken returns the token that a request sends as bearer token, or in its body.
func (c *call) sessionToken() (string, error) {
	s, r := c.server, c.Request()
	if token, sent := bearer(r.Header); sent {
		return token, nil
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" && media != "application/x-www-form-urlencoded" {
		return "", &problem{kind: unsupportedMediaType, detail: "send the token in the Authorization header, as JSON {\"token\":\"…\"}, or in a form"}
	}
	taken := share{of: &s.budget, client: s.clients.ofAddress(r.RemoteAddr)}
	defer func() { taken.give(taken.bytes) }()
	b := newBuffer()
	defer b.recycle()
	switch err := s.receive(b, c.Response().Writer, r, maxSessionBody, &taken); {
	case err == errTooLong:
		return "", &problem{kind: tooLarge, detail: fmt.Sprintf("the body is longer than %d KiB", maxSessionBody>>10)}
	case err != nil:
		return "", s.refuseBody(err, identity)
	}
	var body struct {
		Token string `json:"token"`
	}
	if media == "application/json" {
		in := json.NewDecoder(bytes.NewReader(b.data))
		in.DisallowUnknownFields()
		err = in.Decode(&body)
	} else {
		var form url.Values
		form, err = url.ParseQuery(string(b.data))
		body.Token = form.Get("token")
	}
	if err != nil || body.Token == "" {
		return "", &problem{kind: unreadableBody, detail: "the body holds no token"}
	}
	return body.Token, nil
}

// showSession is GET /session: it tells a page what its cookie is good for.
func showSession(ctx echo.Context) error {
	c := ctx.(*call)
	if n, ok := c.server.session(c.Request()); ok {
		return c.tellSession(n)
	}
	return &problem{kind: unauthorized, detail: "there is no session; POST " + sessionPath + " with a token begins one"}
}

// endSession ends the session of the request, if it has one. No other request with its
// cookie counts then.
func endSession(ctx echo.Context) error {
	c := ctx.(*call)
	s := c.server
	if n, ok := s.session(c.Request()); ok {
		s.sessions.end(n, time.Now())
	}
	c.SetCookie(s.sessions.cookie(c.Request(), "", 0))
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.NoContent(http.StatusNoContent)
}

// tellSession answers with what the holder of a session may do.
func (c *call) tellSession(n grant) error {
	s := c.server
	sum := s.sessions.holders[n.holder].sum
	told := struct {
		May       []string  `json:"may"`
		Name      string    `json:"name,omitempty"`
		ExpiresAt time.Time `json:"expires_at"`
	}{May: []string{}, Name: nameOf(s.sessions.holders[n.holder].scope), ExpiresAt: n.expires.UTC()}
	for _, role := range []struct {
		name string
		of   tokens
	}{{"submit", s.tokens}, {"view", s.viewers}, {"admin", s.admins}} {
		if role.of.find(sum) >= 0 {
			told.May = append(told.May, role.name)
		}
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	text, err := json.Marshal(told)
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, "application/json", append(text, '\n'))
}
