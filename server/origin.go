package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

// submitPath is the one resource that pages of other origins may use, if any.
const submitPath = "/message"

// What a page of another origin may send and read (the Fetch standard, CORS
// protocol). preflightAge is in seconds, and the most that Chrome takes.
const (
	sharedRequest  = "Authorization, Content-Encoding, Content-Type, Idempotency-Key, Prefer, X-Request-Id"
	sharedResponse = "Accept-Encoding, Accept-Post, Location, Preference-Applied, Retry-After, WWW-Authenticate, X-Request-Id"
	preflightAge   = "7200"
)

// gate protects the process from pages in a browser that can reach it. A page may
// have its own name resolve to this address (DNS rebinding): then the browser
// takes the two for one origin, and only Host tells. Otherwise Origin and
// Sec-Fetch-Site tell.
//
// Programs send what they like. They are judged by their token.
type gate struct {
	hosts   []string // names beside localhost and IP addresses
	origins []string // whose pages may post
	foreign http.CrossOriginProtection
}

// CheckHost says why a name cannot be one of Config.Hosts.
func CheckHost(name string) error {
	if len(name) > 253 || !only(name, idSafe) {
		return fmt.Errorf("%q: want the name of a host, without a port", clip(name, 100))
	}
	return nil
}

// CheckOrigin says why a text cannot be one of Config.Origins.
func CheckOrigin(origin string) error {
	u, err := url.Parse(origin)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin || origin != strings.ToLower(origin) || !only(origin, visible):
		return fmt.Errorf("%q: want an origin as a browser sends it, for example https://app.example.com", clip(origin, 100))
	case strings.Contains(u.Host, "*"):
		return fmt.Errorf("%q: want each origin by itself, without *", clip(origin, 100))
	case u.Scheme == "https" && u.Port() == "443", u.Scheme == "http" && u.Port() == "80":
		return fmt.Errorf("%q: browsers leave out port %s", clip(origin, 100), u.Port())
	}
	return nil
}

// admit decides by Host, Origin and method. It answers a preflight itself.
func (g *gate) admit(c *call) (answered bool, err error) {
	r, answer := c.Request(), c.Response().Header()
	if !g.serves(r.Host) {
		return false, &problem{kind: misdirected, detail: fmt.Sprintf(
			"the host %q is not served here: ask for localhost or an IP address, or name it in ALLOWED_HOSTS", clip(r.Host, 100))}
	}
	origin, shared := r.Header["Origin"], false
	if r.URL.Path == submitPath && len(g.origins) > 0 {
		answer.Set("Vary", "Origin")
		if shared = len(origin) == 1 && slices.Contains(g.origins, origin[0]); shared {
			answer.Set("Access-Control-Allow-Origin", origin[0])
			answer.Set("Access-Control-Expose-Headers", sharedResponse)
		}
	}
	if r.Method == http.MethodOptions {
		if wanted := r.Header["Access-Control-Request-Method"]; wanted != nil {
			return true, g.preflight(c, shared, wanted)
		}
	}
	if !shared && g.foreign.Check(r) != nil {
		return false, g.refuse(r)
	}
	return false, nil
}

// preflight answers the question that a browser asks before a page of another
// origin may post.
func (g *gate) preflight(c *call, shared bool, wanted []string) error {
	if !shared {
		return g.refuse(c.Request())
	}
	if len(wanted) != 1 || wanted[0] != http.MethodPost {
		return &problem{kind: crossOrigin, detail: fmt.Sprintf("a page of another origin may use no method but POST; the method it asks for is %s", quoted(wanted))}
	}
	answer := c.Response().Header()
	answer.Set("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	answer.Set("Access-Control-Allow-Methods", http.MethodPost)
	answer.Set("Access-Control-Allow-Headers", sharedRequest)
	answer.Set("Access-Control-Max-Age", preflightAge)
	return c.NoContent(http.StatusNoContent)
}

// refuse says why a page may not do what it wants.
func (g *gate) refuse(r *http.Request) error {
	why := "no page of another origin may post here, as CORS_ORIGINS is not set"
	switch {
	case r.URL.Path != submitPath:
		why = "a page of another origin may use nothing but POST " + submitPath
	case len(g.origins) > 0:
		why = fmt.Sprintf("the page's origin is %s; CORS_ORIGINS lists those that may post, and nothing else, here", quoted(r.Header["Origin"]))
	}
	return &problem{kind: crossOrigin, detail: why}
}

// private refuses pages of other origins also what they may not read but could
// start, such as a profile.
func (g *gate) private(r *http.Request) error {
	changing := *r
	changing.Method = http.MethodPost
	if g.foreign.Check(&changing) != nil {
		return g.refuse(r)
	}
	return nil
}

// navigates tells whether a person has followed a link, in a window of its own: no page
// but the one that is shown there can read the answer.
func navigates(r *http.Request) bool {
	is := func(name, value string) bool { return len(r.Header[name]) == 1 && r.Header[name][0] == value }
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.Header["Upgrade"] == nil &&
		is("Sec-Fetch-Mode", "navigate") && is("Sec-Fetch-Dest", "document")
}

// opens decides whether a page may open a WebSocket. Browsers let every page try, and
// read what comes; Origin tells which page it is.
func (g *gate) opens(r *http.Request) error {
	if origin := r.Header["Origin"]; r.URL.Path == submitPath && len(origin) == 1 && slices.Contains(g.origins, origin[0]) {
		return nil
	}
	return g.private(r)
}

// serves tells whether the Host of a request is this process. An IP address is:
// only a name can be made to resolve to another address. No browser sends an empty
// one; probes that speak HTTP/1.0 do.
func (g *gate) serves(host string) bool {
	if host == "" {
		return true
	}
	name, port := host, ""
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return false
		}
		if ip, err := netip.ParseAddr(host[1:end]); err != nil || !ip.Is6() {
			return false
		}
		port = host[end+1:]
		return port == "" || isPort(port)
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if name, port = host[:i], host[i:]; !isPort(port) {
			return false
		}
	}
	name = strings.TrimSuffix(name, ".") // the root of DNS
	if sameName(name, "localhost") {
		return true
	}
	for _, h := range g.hosts {
		if sameName(name, strings.TrimSuffix(h, ".")) {
			return true
		}
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

// sameName compares names of DNS. With one length, no letter but an ASCII one is
// equal to an ASCII one.
func sameName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// isPort tells whether text is a colon and a number, or nothing (RFC 9110, section 4.2.3).
func isPort(text string) bool {
	return text == ":" || text[0] == ':' && len(text) <= len(":65535") && only(text[1:], func(c byte) bool { return '0' <= c && c <= '9' })
}

// errHidden stands for an error that the client may not see.
var errHidden = errors.New("failed; the log says why, and so does this answer to a token of VIEW_TOKENS")

// access says who may do what: by tokens, by sessions of them, and by where the server
// listens. It is read-only.
type access struct {
	gate                    gate
	tokens, viewers, admins tokens
	runners                 tokens // empty if runners are admins
	sessions                *sessions
	loopback                bool // only programs on this machine reach the server
	submits                 bool // it takes submissions
}

// submitSettings list the tokens of clients that may submit.
const submitSettings = "AUTH_TOKENS or ADMIN_TOKENS"

func newAccess(cfg Config) *access {
	s := &access{
		gate:   gate{hosts: cfg.Hosts, origins: cfg.Origins},
		tokens: hashTokens(cfg.Tokens), viewers: hashTokens(cfg.ViewTokens), admins: hashTokens(cfg.AdminTokens),
		runners: hashTokens(cfg.RunnerTokens), loopback: cfg.Loopback, submits: cfg.Submitter != nil,
	}
	if len(s.tokens) > 0 {
		s.tokens = append(s.tokens, s.admins...)
	}
	s.viewers = append(s.viewers, s.admins...)
	s.sessions = newSessions(cfg.Base, s.tokens, s.viewers, s.runners)
	if len(s.runners) > 0 {
		s.runners = append(s.runners, s.admins...)
	}
	return s
}

// view tells whether the client may see the inside of the process. An error says
// that a token of Config.ViewTokens is needed.
func (s *access) view(c *call) (shown bool, err error) {
	if len(s.viewers) == 0 {
		return s.loopback && len(s.tokens) == 0, nil
	}
	c.client, err = s.authorize(s.viewers, "VIEW_TOKENS or ADMIN_TOKENS", c.Request(), c.Response().Header())
	return err == nil, err
}

// follow tells whether the client may submit, or view. An error says that a token is
// needed. Where nothing is submitted, the lack of tokens lets no client in from elsewhere.
func (s *access) follow(c *call) (allowed bool, err error) {
	if len(s.tokens) == 0 && !s.submits {
		return s.view(c)
	}
	answer := c.Response().Header()
	if c.client, err = s.authorize(s.tokens, submitSettings, c.Request(), answer); err == nil {
		return true, nil
	}
	if shown, _ := s.view(c); shown {
		answer.Del("WWW-Authenticate") // of the first try
		return true, nil
	}
	return false, err
}

// administer tells whether the client may change the process. An error says that a
// token of Config.AdminTokens is needed.
func (s *access) administer(c *call) (allowed bool, err error) {
	if len(s.admins) == 0 {
		return s.loopback && len(s.tokens) == 0 && len(s.viewers) == 0, nil
	}
	c.client, err = s.authorize(s.admins, "ADMIN_TOKENS", c.Request(), c.Response().Header())
	return err == nil, err
}

// work tells whether the client may be given work. An error says that a token of
// Config.RunnerTokens is needed.
func (s *access) work(c *call) (allowed bool, err error) {
	if len(s.runners) == 0 {
		return s.administer(c)
	}
	c.client, err = s.authorize(s.runners, "RUNNER_TOKENS or ADMIN_TOKENS", c.Request(), c.Response().Header())
	return err == nil, err
}

type clientKey struct{}

// Client returns the name of the token with which a request came to a Route; empty if
// there is no token, or it has no name.
func Client(r *http.Request) string { return nameOf(scopeOf(r)) }

// ClientKey tells clients of a Route apart: by the name of the token, the token or, without
// one, the address. Of IPv6 a client has at least a network of /64 (RFC 6177).
func ClientKey(r *http.Request) string { return clientOf(scopeOf(r), r) }

// clientOf is ClientKey of a request with that scope, which is "" without a token.
func clientOf(scope string, r *http.Request) string {
	if scope != "" {
		return scope
	}
	ip, ok := clientIP(r.RemoteAddr)
	if !ok {
		return r.RemoteAddr
	}
	return ip.String()
}

func scopeOf(r *http.Request) string {
	scope, _ := r.Context().Value(clientKey{}).(string)
	return scope
}

// mount returns the handler of a route.
func (s *Server) mount(r Route) echo.HandlerFunc {
	h := s.untilShutdown(r.Handler)
	if r.Socket != nil {
		h = r.orSocket(h)
	}
	var may func(*call) (bool, error)
	switch r.For {
	case Everybody:
		return h
	case Clients:
		may = s.follow
	case Viewers:
		may = s.view
	case Admins:
		may = s.administer
	case Runners:
		may = s.work
	}
	return func(ctx echo.Context) error {
		c := ctx.(*call)
		if err := s.gate.private(c.Request()); err != nil && (r.For != Clients || !navigates(c.Request())) {
			return err
		}
		switch shown, err := may(c); {
		case err != nil:
			return err
		case !shown:
			return echo.ErrNotFound
		}
		if c.client != "" {
			c.SetRequest(c.Request().WithContext(context.WithValue(c.Request().Context(), clientKey{}, c.client)))
		}
		return h(ctx)
	}
}
