package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"async-data-processor/httpstream"
	"async-data-processor/problem"
)

// TailPath is where TailHandler is served, and TailProtocol is its subprotocol where it
// is a WebSocket.
const (
	TailPath     = "/live"
	TailProtocol = "adp.live.v1"
)

const (
	// maxTogether is how many bytes of frames are enough to be written.
	maxTogether = 32 << 10
	// byeShare is why a view ends that another client gets the place of.
	byeShare = "share"
	// comeLater is when a client that has more than its share may come back, in
	// milliseconds; see retryMS.
	comeLater = 10_000
)

// view is what the handler uses of a Viewer.
type view interface {
	Next(ctx context.Context) (Frame, error)
	Close()
}

// TailHandler serves a Tail to clients that may see it: as server-sent events, as lines
// of JSON, and by ServeSocket as a WebSocket. Each frame is a JSON object.
//
// A client that does not take what is written within 10 s loses its stream. If a client
// finds all places taken, the one with the most loses its oldest, unless both
// would have as many. So one client may have them all, and does not keep others out.
type TailHandler struct {
	open   func(Query) (view, error)
	client func(*http.Request) string
	places httpstream.Places
}

// NewTailHandler returns the handler of a tail. client returns what tells the clients of
// requests apart.
func NewTailHandler(t *Tail, client func(*http.Request) string) *TailHandler {
	return newTailHandler(func(q Query) (view, error) { return t.View(q) }, client)
}

func newTailHandler(open func(Query) (view, error), client func(*http.Request) string) *TailHandler {
	return &TailHandler{open: open, client: client}
}

// ServeHTTP implements http.Handler for GET. A stream ends when the client goes or the
// context of the request ends, which is when the process stops.
func (h *TailHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Vary", "Accept")
	if strings.HasSuffix(r.Header.Get("Last-Event-ID"), idOfEnd) {
		w.WriteHeader(http.StatusNoContent) // an EventSource would begin again (HTML standard, section 9.2)
		return
	}
	ctx, v, p, err := h.take(r.Context(), r)
	if err != nil {
		tailProblems.Answer(w, err)
		return
	}
	defer h.places.Leave(p)
	out, err := httpstream.New(ctx, w)
	if err != nil {
		tailProblems.Answer(w, err)
		return
	}
	form := negotiate(r.Header["Accept"], tailForms)
	s := &tailStream{out, form != "" && form != tailForms[0]} // what takes neither gets events
	header.Set("X-Accel-Buffering", "no")                     // of a proxy
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Type", "text/event-stream")
	if s.lines {
		header.Set("Content-Type", "application/x-ndjson")
	}
	s.Hurrying(func() { _, _ = show(ctx, v, s) }) // the client is gone, or has all of it
}

// take gives the client of a request a place, and begins to view. The context ends when
// the place has to be left.
func (h *TailHandler) take(ctx context.Context, r *http.Request) (context.Context, view, *httpstream.Place, error) {
	q, err := tailQuery(r)
	if err != nil {
		return nil, nil, nil, err
	}
	client := h.client(r)
	v, err := h.open(q)
	if errors.Is(err, ErrTooManyViewers) && h.places.Yield(client) {
		v, err = h.open(q)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, p := h.places.Enter(ctx, client, v.Close)
	return ctx, v, p, nil
}

// tailForms are the media types of a tail, the preferred one first. The others are names
// of lines of JSON.
var tailForms = []string{"text/event-stream", "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}

// outlet is the way of frames to a client. Frames wait in it until flush.
type outlet interface {
	add(Frame) error
	waiting() int // bytes
	flush() error
	alive() error // says that the stream is alive
}

// noWait is a context that has ended: with it, Next returns what is there.
var noWait = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// show passes frames on until the last one, or until ctx ends, which it tells the
// client. It returns the last one, unless the client does not take it.
func show(ctx context.Context, v view, out outlet) (Bye, error) {
	for {
		f, err := nextFrame(ctx, v)
		for err == nil {
			if err = out.add(f); err != nil {
				return Bye{}, err
			}
			if bye, last := f.Data.(Bye); last {
				return bye, out.flush()
			}
			if f.Kind != KindMessage || out.waiting() >= maxTogether {
				break // behind the first frames, Next may have to ask other processes
			}
			f, err = v.Next(noWait)
		}
		if err := out.flush(); err != nil {
			return Bye{}, err
		}
		switch {
		case ctx.Err() != nil:
			bye := Bye{Why: ByeDrain, RetryMS: retryMS}
			if errors.Is(context.Cause(ctx), httpstream.ErrYielded) {
				bye = Bye{Why: byeShare, RetryMS: comeLater}
			}
			if err := out.add(Frame{Kind: KindBye, Data: bye}); err != nil {
				return bye, err
			}
			return bye, out.flush()
		case err == nil, errors.Is(err, noWait.Err()):
		case errors.Is(err, context.DeadlineExceeded):
			if err := out.alive(); err != nil {
				return Bye{}, err
			}
		default: // io.EOF behind a farewell, or a bug
			return Bye{}, err
		}
	}
}

// nextFrame waits for a frame, but no longer than a client may hear nothing.
func nextFrame(ctx context.Context, v view) (Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, httpstream.KeepAlive)
	defer cancel()
	return v.Next(ctx)
}

// idOfEnd ends the id of an event after which there is no other.
const idOfEnd = "-end"

// tailStream writes frames to one client.
type tailStream struct {
	*httpstream.Stream
	lines bool // of JSON, not server-sent events
}

func (s *tailStream) add(f Frame) error {
	if s.lines {
		return frame(&s.Out, f, f.ID)
	}
	if bye, last := f.Data.(Bye); last {
		if bye.RetryMS > 0 {
			fmt.Fprintf(&s.Out, "retry: %d\n", bye.RetryMS)
		} else {
			f.ID += idOfEnd
		}
	}
	if f.ID != "" {
		fmt.Fprintf(&s.Out, "id: %s\n", f.ID)
	}
	fmt.Fprintf(&s.Out, "event: %s\ndata: ", f.Kind)
	err := frame(&s.Out, f, "")
	s.Out.WriteByte('\n')
	return err
}

func (s *tailStream) flush() error { return s.Flush() }

func (s *tailStream) waiting() int { return s.Out.Len() }

func (s *tailStream) alive() error {
	text := ":\n\n" // a comment
	if s.lines {
		text = "\n"
	}
	s.Out.WriteString(text)
	return s.flush()
}

// frame writes a frame as a line. Its id, unless empty, is a member.
func frame(out *bytes.Buffer, f Frame, id string) error {
	fmt.Fprintf(out, `{"type":%q,`, f.Kind)
	if id != "" {
		fmt.Fprintf(out, `"event_id":%q,`, id)
	}
	begin := out.Len()
	text := json.NewEncoder(out)
	text.SetEscapeHTML(false) // an entry stays as it was sent
	if err := text.Encode(f.Data); err != nil {
		return fmt.Errorf("frame %s: %w", f.Kind, err)
	}
	// The brace is the comma's place now.
	rest := out.Bytes()[begin:]
	copy(rest, rest[1:])
	out.Truncate(out.Len() - 1)
	return nil
}

// tailProblems are those that errors are (RFC 9457).
var tailProblems = problem.Table{
	{Is: ErrQuery, Status: http.StatusBadRequest, Kind: "invalid-query"},
	{Is: ErrTooManyViewers, Status: http.StatusServiceUnavailable, Kind: "too-many-viewers", Retry: comeLater / 1000},
	{Is: ErrTailEnded, Status: http.StatusServiceUnavailable, Kind: "draining", Retry: 2},
}
