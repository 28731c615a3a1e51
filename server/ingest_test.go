package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/event"
	"async-data-processor/message"
)

// session is a ULID that a client made.
const session = "01M8K523VDHDD60X1V378Z78QG"

// ingestClient is a client of adp.ingest.v1, after the handshake.
type ingestClient struct {
	*websocket.Conn
	t         testing.TB
	handshake string
}

func (rg *rig) ingest(query string, header ...string) *ingestClient {
	rg.t.Helper()
	c := rg.mustDial("/message"+query, []string{ingestProtocol}, header...)
	return &ingestClient{c, rg.t, next(rg.t, c)}
}

func (c *ingestClient) send(frames ...string) {
	c.t.Helper()
	for _, f := range frames {
		must(c.t, c.Write(c.t.Context(), websocket.MessageText, []byte(f)))
	}
}

// reply is any answer.
type reply struct {
	Type     string      `json:"type"`
	Ref      string      `json:"ref"`
	ID       string      `json:"id"`
	Accepted int         `json:"accepted"`
	Shards   map[int]int `json:"shards"`
	Want     string      `json:"want"`
	Kind     string      `json:"kind"`
	RetryMS  int         `json:"retry_ms"`
	Dead     int         `json:"dead"`
	Problem  problemText `json:"problem"`
}

func (c *ingestClient) next() reply {
	c.t.Helper()
	var r reply
	text := next(c.t, c.Conn)
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Type == "" {
		c.t.Fatalf("got %s: %v", text, err)
	}
	return r
}

// replies returns the next n answers by their type and ref.
func (c *ingestClient) replies(n int) map[string]reply {
	c.t.Helper()
	all := make(map[string]reply)
	for range n {
		r := c.next()
		if _, twice := all[r.Type+" "+r.Ref]; twice {
			c.t.Errorf("%s %s twice", r.Type, r.Ref)
		}
		all[r.Type+" "+r.Ref] = r
	}
	return all
}

func (c *ingestClient) wantReplies(want ...string) map[string]reply {
	c.t.Helper()
	got := c.replies(len(want))
	slices.Sort(want)
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		c.t.Errorf("got the answers %q, want %q", names, want)
	}
	return got
}

// framed is entry with a ref.
func framed(ref string) string { return `{"ref":"` + ref + `","entries":` + entry + `}` }

func TestIngest(t *testing.T) {
	rg := start(t, Config{Node: func() string { return "n-1" }, Dedupe: time.Hour})
	c := rg.ingest("", "X-Request-Id", "req-1")
	const handshake = `{"type":"handshake","node":"n-1","limits":{"frame":1048576,"entries":10000,"entry":262144,"window":256,"window_bytes":8388608},"dedupe_s":3600,"ping_s":20}`
	if c.handshake != handshake {
		t.Errorf("got the handshake %s, want %s", c.handshake, handshake)
	}
	told[event.Served](rg)
	c.send(entry)
	r := c.next()
	if r.Type != "accepted" || r.Ref != "1" || len(r.ID) != 26 || r.Accepted != 1 || r.Shards[0] != 1 || r.Want != "" {
		t.Errorf("got %+v", r)
	}
	e := told[event.Submitted](rg)
	if e.Elapsed <= 0 || e.Peer == "" {
		t.Errorf("got %+v", e)
	}
	e.Elapsed, e.Peer = 0, ""
	if want := (event.Submitted{
		Request:    event.Request{ID: "req-1", Method: "GET", Path: "/message", Route: "/message", Status: 201, Bytes: len(entry)},
		Submission: r.ID, Accepted: 1,
	}); e != want {
		t.Errorf("got %+v, want %+v", e, want)
	}

	c.send(framed("x"), entry, `{"ref":"y","key":"k","entries":[{"timestamp":"2019-10-12T08:10:54Z"},{"timestamp":"2019-10-12T08:10:55Z"}]}`)
	got := c.wantReplies("accepted x", "accepted 3", "accepted y")
	if y := got["accepted y"]; y.Accepted != 2 || y.Shards[1] != 1 {
		t.Errorf("got %+v", y)
	}
	for range 3 {
		told[event.Submitted](rg)
	}
	must(t, c.Close(websocket.StatusNormalClosure, ""))
	if e := told[event.SocketClosed](rg); e.Frames != 4 || e.Bytes < 4*len(entry) || e.Code != closeNormal || e.Err != nil {
		t.Errorf("got %+v", e)
	}
	rg.wantSubmitted(4)
}

// TestIngestKeys: a frame with a key is the submission that a POST with the same key is.
func TestIngestKeys(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"ann:one", "bob:two"}})
	post := func(token, key string) string {
		return want201(t, rg.post(entry, "Authorization", "Bearer "+token, "Idempotency-Key", key), 1)
	}
	of := func(token, query string, frames ...string) (ids []string) {
		c := rg.ingest(query, "Authorization", "Bearer "+token)
		c.send(frames...)
		got := c.replies(len(frames))
		for _, name := range slices.Sorted(maps.Keys(got)) {
			ids = append(ids, got[name].ID)
		}
		return ids
	}
	keyed := `{"ref":"8","key":"k","entries":` + entry + `}`
	for name, tc := range map[string]struct{ got, want string }{
		"key":                     {of("one", "", keyed)[0], post("one", "k")},
		"key in a session":        {of("one", "?session="+session, keyed)[0], post("one", "k")},
		"session":                 {of("one", "?session="+session, framed("7"))[0], post("one", session+"/7")},
		"session, array":          {of("one", "?session="+session, entry)[0], post("one", session+"/1")},
		"session, again":          {of("one", "?session="+session, framed("7"))[0], of("one", "?session="+session, "  "+framed("7"))[0]},
		"session of another name": {of("two", "?session="+session, framed("7"))[0], post("two", session+"/7")},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got the id %s, want %s", name, tc.got, tc.want)
		}
	}
	seen := make(map[string]bool)
	for _, ids := range [][]string{
		of("one", "?session="+session, framed("7"), framed("8"), `{"ref":"9","entries":`+strings.Replace(entry, "F", "G", 1)+`}`),
		of("two", "?session="+session, framed("7")), of("one", "", framed("7")), of("one", "", framed("7")),
	} {
		for _, id := range ids {
			if seen[id] {
				t.Errorf("two submissions have the id %s", id)
			}
			seen[id] = true
		}
	}
}

// TestIngestRejected: what is wrong with the entries is answered as by POST, and costs
// no other frame anything.
func TestIngestRejected(t *testing.T) {
	rg := start(t, Config{})
	c := rg.ingest("")
	told[event.Served](rg)
	for text, kind := range map[string]kind{
		`[]`:                       invalidSubmission,
		`[{"value":"x"}]`:          invalidSubmission,
		`[1,{"timestamp":5},null]`: invalidSubmission,
		`[{"timestamp":"2019-10-12T08:10:54Z","a":1,"a":2}]`:                                                   invalidSubmission,
		`[{"timestamp":"2019-10-12T08:10:54Z","a":"` + strings.Repeat("x", 256<<10) + `"}]`:                    tooLarge,
		"[" + strings.Repeat(`{"timestamp":"2019-10-12T08:10:54Z"},`, message.MaxEntries) + "{}]":              tooLarge,
		`[{"timestamp":"2019-10-12T08:10:54Z","a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}]`: invalidSubmission,
	} {
		c.send(`{"ref":"bad","entries":`+text+`}`, framed("good"))
		got := c.wantReplies("rejected bad", "accepted good")["rejected bad"].Problem
		posted := wantProblem(t, rg.post(text), kind)
		got.RequestID, posted.RequestID = "", ""
		if fmt.Sprint(got) != fmt.Sprint(posted) {
			t.Errorf("%.50s: got the problem %+v, want that of POST %+v", text, got, posted)
		}
		for range 3 { // in any order
			switch e := (<-rg.events).(type) {
			case event.Refused:
				if e.Status != kind.status || e.Kind != kind.name || e.Submission == "" || e.Err == nil || e.Bytes < len(text) {
					t.Errorf("got %+v", e)
				}
			case event.Submitted:
			default:
				t.Errorf("got %+v", e)
			}
		}
	}
}

// TestIngestFails: the answer says whether anything may be published.
func TestIngestFails(t *testing.T) {
	rg := start(t, Config{PublishTimeout: 100 * time.Millisecond})
	c := rg.ingest("")
	told[event.Served](rg)
	for name, tc := range map[string]struct {
		err  error
		kind string
	}{
		"no room":       {fmt.Errorf("%w: 3 MiB are free", message.ErrNoRoom), "unavailable"},
		"not published": {fmt.Errorf("broker is down: %w", message.ErrNotPublished), "unavailable"},
		"unknown":       {errors.New("connection lost"), "unknown"},
		"silent":        {context.DeadlineExceeded, "unknown"},
	} {
		rg.then = func(ctx context.Context, _ message.Submission) error {
			if tc.err == context.DeadlineExceeded {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return tc.err
		}
		c.send(framed("1"))
		if r := c.next(); r.Type != "failed" || r.Ref != "1" || r.Kind != tc.kind || r.RetryMS != 2000 {
			t.Errorf("%s: got %+v", name, r)
		}
		if e := told[event.Refused](rg); e.Status != 503 || e.Submission == "" || e.Err == nil {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	rg.then = nil
	submitted := len(rg.submissions())
	rg.server.Intake.Pause(&Pause{})
	c.send(framed("1"))
	if r := c.next(); r.Type != "failed" || r.Kind != "unavailable" || r.RetryMS < 1000 {
		t.Errorf("paused: got %+v", r)
	}
	rg.wantSubmitted(submitted)
	rg.server.Intake.Pause(nil)
	c.send(framed("1"))
	c.wantReplies("accepted 1")
}

// TestIngestNotProtocol: answers to what came before are sent first.
func TestIngestNotProtocol(t *testing.T) {
	for name, tc := range map[string]struct {
		frame  string
		code   int
		reason string
	}{
		"no JSON":           {`nope`, closeNotProtocol, "frame 2: the frame is neither"},
		"empty":             {``, closeNotProtocol, "neither"},
		"half an array":     {`[{"timestamp":"2019-10-12T08:10:54Z"}`, closeNotProtocol, "frame 2 is not JSON"},
		"half an object":    {`{"ref":"2","entries":[{]}`, closeNotProtocol, "not JSON"},
		"deep":              {strings.Repeat("[", 1<<20), closeNotProtocol, "not JSON"},
		"a string":          {`"[]"`, closeNotProtocol, "neither"},
		"no ref":            {`{"entries":[]}`, closeNotProtocol, "ref must"},
		"misspelt":          {`{"ref":"2","keys":"k","entries":` + entry + `}`, closeNotProtocol, "members"},
		"outstanding ref":   {framed("1"), closeNotProtocol, "still waits"},
		"outstanding refs":  {`{"ref":"1","entries":[]}`, closeNotProtocol, "still waits"},
		"too long":          {`[` + strings.Repeat(" ", 1<<20) + `]`, closeTooLong, "longer than"},
		"byte order mark":   {"\xef\xbb\xbf" + entry, closeNotProtocol, "neither"},
		"newline-delimited": {"{\"ref\":\"2\",\"entries\":[]}\n{\"ref\":\"3\",\"entries\":[]}", closeNotProtocol, "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			rg := start(t, Config{})
			entered, release := rg.hold()
			c := rg.ingest("")
			c.send(entry)
			<-entered
			c.send(tc.frame)
			time.Sleep(20 * time.Millisecond)
			close(release)
			c.wantReplies("accepted 1")
			wantClose(t, c.Conn, tc.code, tc.reason)
			rg.wantSubmitted(1)
		})
	}
	t.Run("binary", func(t *testing.T) {
		rg := start(t, Config{})
		c := rg.ingest("")
		must(t, c.Write(t.Context(), websocket.MessageBinary, []byte(entry)))
		wantClose(t, c.Conn, closeBinary, "text")
		rg.wantSubmitted(0)
	})
}

// TestIngestHandshakeRefused: what a client can mend is told by the close code, the rest
// by the status.
func TestIngestHandshakeRefused(t *testing.T) {
	for query, reason := range map[string]string{
		"?session=x": "session must be a ULID", "?sesion=" + session: "the query may have",
		"?session=" + session + "&session=" + session: "each once", "?want=all": "the query may have",
		"?want=written": "not served here", "?%zz": "cannot be read",
	} {
		rg := start(t, Config{})
		wantClose(t, rg.mustDial("/message"+query, []string{ingestProtocol}), closeNotProtocol, reason)
	}
	rg := start(t, Config{Tokens: []string{"one"}, Origins: []string{"https://app.example"}})
	token := bearerProtocol("one")
	wantClose(t, rg.mustDial("/message", []string{ingestProtocol}), closeToken, "")
	wantClose(t, rg.mustDial("/message", []string{ingestProtocol, bearerProtocol("no")}), closeToken, "")
	wantClose(t, rg.mustDial("/message", []string{"adp.ingest.v2", token}), closeNotProtocol, ingestProtocol)
	wantClose(t, rg.mustDial("/message", []string{ingestProtocol, token}, "Origin", "https://evil.example"), closeForeign, "")
	wantClose(t, rg.mustDial("/message", []string{ingestProtocol, token}, "Host", "evil.example"), closeForeign, "")
	c := rg.mustDial("/message", []string{ingestProtocol, token}, "Origin", "https://app.example")
	if next(t, c) == "" || c.Subprotocol() != ingestProtocol {
		t.Error("a page of CORS_ORIGINS gets no WebSocket")
	}
	a := rg.do("GET", "/message", nil)
	if wantProblem(t, a, methodNotAllowed); a.Header.Get("Allow") != "POST" {
		t.Errorf("without Upgrade: got Allow %q", a.Header.Get("Allow"))
	}
	rg.server.Drain()
	_, res, err := rg.dial("/message", []string{ingestProtocol, token})
	if err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("in a drain: got %v, want 503", err)
	}
}
