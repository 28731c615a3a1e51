package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"async-data-processor/backoff"
)

// ListenConfig says what Listen asks for, and which functions it calls. It calls them
// one at a time.
type ListenConfig struct {
	// URL is the process's, with the scheme http or https, and without the path of the
	// resource.
	URL string
	// HTTP makes the connections; nil is http.DefaultClient. Its Timeout must be 0.
	HTTP *http.Client
	// Token is sent as bearer token (RFC 6750), if it is not empty.
	Token string
	// Query is that of GET /live (docs/api.md).
	Query url.Values
	// Frame gets each frame, in order. Its error ends Listen, which returns it.
	Frame func(Frame) error
	// Lost is told why there is no stream, and when the next attempt is; nil for no one.
	Lost func(err error, pause time.Duration)
}

// Frame is a frame of the tail.
type Frame struct {
	// Type is message, gap, or another of docs/api.md.
	Type string
	// ID is that of the last event with one. A later stream may resume behind it, with it
	// as Last-Event-ID.
	ID string
	// JSON is the whole frame, an object. It is used again when Frame returns.
	JSON []byte
}

const (
	// answerTimeout bounds the way to the head of an answer.
	answerTimeout = 15 * time.Second
	// silence is how long a stream may lack any sign of life. A server sends one every
	// 15 s.
	silence = 50 * time.Second
)

var (
	errSilent   = errors.New("the server is silent")
	errNoStream = errors.New("the stream ended without a farewell")
)

// listener is a Listen that runs.
type listener struct {
	cfg   ListenConfig
	pause backoff.Backoff
	query url.Values
	limit int // messages that are left, if the query has a limit
	last  string
	spent bool // the limit is reached
	ended bool // no more comes, as the server has said
	asked time.Duration
}

// Listen follows the tail of a process, and calls cfg.Frame for each frame. It connects
// again after a lost connection, and resumes behind the last frame. It returns nil when
// the query's limit is reached, and the cause of ctx when that ends. An error that wraps
// ErrRefused says that another attempt is of no use.
func Listen(ctx context.Context, cfg ListenConfig) error {
	cfg.HTTP = cmp.Or(cfg.HTTP, http.DefaultClient)
	l := &listener{
		cfg: cfg, query: make(url.Values),
		pause: backoff.Backoff{Min: firstPause, Max: longestPause, Jitter: 0.5},
	}
	maps.Copy(l.query, cfg.Query)
	l.limit, _ = strconv.Atoi(l.query.Get("limit")) // the server refuses another one
	for {
		err := l.follow(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		final, over := errors.AsType[final](err)
		switch {
		case l.ended, l.spent:
			return nil
		case over:
			return final.error
		}
		pause := max(l.pause.Next(), retryPause(l.asked))
		l.asked = 0
		if cfg.Lost != nil {
			cfg.Lost(err, pause)
		}
		if !backoff.Sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

// final is an error after which there is no other attempt.
type final struct{ error }

// follow reads one stream to its end.
func (l *listener) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(answerTimeout, func() { cancel(errSilent) })
	defer patience.Stop()
	resp, err := l.ask(ctx)
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	defer resp.Body.Close()
	if err := l.check(resp); err != nil || l.ended {
		return err
	}
	events := newEvents(alive{resp.Body, func() { patience.Reset(silence) }})
	for {
		e, err := events.next()
		switch {
		case err == nil:
			if err := l.take(e); err != nil {
				return err
			}
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return errNoStream
		default:
			return err
		}
		if l.ended {
			return nil
		}
	}
}

// alive tells of each successful Read.
type alive struct {
	io.Reader
	sign func()
}

func (a alive) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.sign()
	}
	return n, err
}

// ask sends the request.
func (l *listener) ask(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.cfg.URL+"/live?"+l.query.Encode(), nil)
	if err != nil {
		return nil, final{err}
	}
	req.Header.Set("Accept", "text/event-stream")
	if l.last != "" {
		req.Header.Set("Last-Event-ID", l.last)
	}
	if l.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+l.cfg.Token)
	}
	return l.cfg.HTTP.Do(req)
}

// maxProblem bounds what is read of a refusal, in bytes.
const maxProblem = 64 << 10

// check returns why an answer is no stream.
func (l *listener) check(resp *http.Response) error {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode == http.StatusOK && media == "text/event-stream":
		return nil
	case resp.StatusCode == http.StatusNoContent: // to a resumed stream (HTML standard, section 9.2)
		l.ended = true
		return nil
	}
	var p struct{ Title, Detail string }
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // a part says enough
	_ = json.Unmarshal(text, &p)                                 // another program's answer is told by its status
	err := fmt.Errorf("%s answers %s: %s", l.cfg.URL, resp.Status, cmp.Or(p.Detail, p.Title, "no answer of this program"))
	l.asked = retryAfter(resp.Header)
	if transient(resp.StatusCode) {
		return err
	}
	return final{fmt.Errorf("%w: %w", ErrRefused, err)}
}

// take passes on a frame.
func (l *listener) take(e sse) error {
	if len(e.data) == 0 {
		return nil
	}
	if l.ended = l.spent && e.event == "message"; l.ended {
		return nil
	}
	if err := l.cfg.Frame(Frame{Type: e.event, ID: e.id, JSON: e.data}); err != nil {
		return final{err}
	}
	if e.id != "" {
		l.last = e.id
	}
	switch e.event {
	case "hello":
		l.pause.Reset()
		l.query.Del("last") // seen, or to be resumed
	case "message":
		if l.limit > 0 {
			l.limit--
			l.query.Set("limit", strconv.Itoa(l.limit))
			l.spent = l.limit == 0
		}
	case "bye":
		return l.farewell(e.data)
	}
	return nil
}

// farewell is why the server ends the stream.
func (l *listener) farewell(text []byte) error {
	var bye struct {
		Why     string `json:"why"`
		RetryMS int64  `json:"retry_ms"`
	}
	if err := json.Unmarshal(text, &bye); err != nil {
		return fmt.Errorf("the server's farewell is no JSON: %w", err)
	}
	if l.ended = bye.RetryMS == 0; l.ended { // for ever
		return nil
	}
	l.asked = time.Duration(min(max(bye.RetryMS, 0), maxAsked.Milliseconds())) * time.Millisecond
	return fmt.Errorf("the server ends the stream: %s", cmp.Or(bye.Why, "it does not say why"))
}
