package door

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"async-data-processor/broker"
)

// Path is where a process answers for its dead letters, to POST. While
// broker.DeadLetters runs there, both sides talk: the answer has a line for each dead
// letter, the body of the request one for each verdict.
//
//	← {"letter":{…}}
//	→ remove
//	← {"letter":{…}}
//	→ keep
//	← {}                the end, with "error" if there was one
//
// So a client that dies ends it, and only what the client has said is done.
const Path = "/dead-letters"

const (
	// verdictTimeout is how long a client may take for a verdict.
	verdictTimeout = time.Minute
	// endTimeout is how long a client that wants no more waits for the last verdict
	// to be carried out.
	endTimeout = time.Second
)

var verdicts = []string{broker.Keep: "keep", broker.Replay: "replay", broker.Remove: "remove"}

type line struct {
	Letter *broker.DeadLetter `json:"letter,omitempty"`
	Error  string             `json:"error,omitempty"`
	Kind   string             `json:"kind,omitempty"` // of the error; a key of kinds
}

var kinds = map[string]error{
	"rejected": broker.ErrRejected, "unknown": broker.ErrUnknown, "no-origin": broker.ErrNoOrigin, "closed": broker.ErrClosed,
}

// failure is an error of the other process. kind may be nil.
type failure struct {
	text string
	kind error
}

func (f failure) Error() string { return f.text }
func (f failure) Unwrap() error { return f.kind }

func (l line) err() error {
	if l.Error == "" {
		return nil
	}
	return failure{l.Error, kinds[l.Kind]}
}

func end(err error) (l line) {
	if err == nil {
		return l
	}
	l.Error = err.Error()
	for kind, is := range kinds {
		if errors.Is(err, is) {
			l.Kind = kind
		}
	}
	return l
}

// Handler answers at Path.
func Handler(letters broker.DeadLetters) http.Handler { return handler{letters, verdictTimeout} }

type handler struct {
	letters broker.DeadLetters
	timeout time.Duration // for writing a line, and for reading one
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusHTTPVersionNotSupported)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Connection", "close")
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	stopReading := func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) }
	defer stopReading() // else the server waits for the rest of the body
	defer context.AfterFunc(ctx, stopReading)()

	in, out := bufio.NewReaderSize(r.Body, 16), json.NewEncoder(w)
	say := func(l line) error {
		return errors.Join(rc.SetWriteDeadline(time.Now().Add(h.timeout)), out.Encode(l), rc.Flush())
	}
	ask := func(l broker.DeadLetter) (broker.Verdict, error) {
		err := errors.Join(say(line{Letter: &l}), rc.SetReadDeadline(time.Now().Add(h.timeout)), ctx.Err())
		if err != nil {
			return broker.Keep, err
		}
		word, err := in.ReadSlice('\n')
		if err != nil {
			return broker.Keep, fmt.Errorf("no verdict: %w", err)
		}
		v := slices.Index(verdicts, strings.TrimSuffix(string(word), "\n"))
		if v < 0 {
			return broker.Keep, fmt.Errorf("no verdict: %q", word)
		}
		return broker.Verdict(v), nil
	}
	var broken error
	err := h.letters.DeadLetters(ctx, func(l broker.DeadLetter) (v broker.Verdict) {
		v, broken = ask(l)
		if broken != nil {
			cancel(broken)
		}
		return v
	})
	if broken != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		err = broken // reading has failed, and thereby ended the request's context
	}
	_ = say(end(err)) // a client that has gone needs none
}

// Process is the process that has the store in a folder.
type Process struct{ Dir string }

// DeadLetters implements broker.DeadLetters. The error wraps ErrNoProcess if there
// is no process.
func (p Process) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	err := p.deadLetters(ctx, decide)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return fmt.Errorf("ask the process that has %s: %w", p.Dir, err)
	}
}

func (p Process) deadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	conn, err := dial(ctx, p.Dir)
	if err != nil {
		return err
	}
	defer conn.Close()
	body, say := io.Pipe()
	defer say.Close()
	defer context.AfterFunc(ctx, func() {
		_ = say.Close() // in order, so that what was said is done before the return
		_ = conn.SetDeadline(time.Now().Add(endTimeout))
	})()
	request, err := http.NewRequest(http.MethodPost, "http://localhost"+Path, body)
	if err != nil {
		return err
	}
	go func() { _ = request.Write(conn) }() // an http.Transport could wait for the body without end
	answer, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	for in := json.NewDecoder(answer.Body); ; {
		var l line
		if err := in.Decode(&l); err != nil {
			return fmt.Errorf("it broke off: %w", err)
		}
		if l.Letter == nil {
			return l.err()
		}
		verdict := decide(*l.Letter)
		if ctx.Err() == nil {
			_, _ = io.WriteString(say, verdicts[verdict]+"\n") // if it does not arrive, there is no answer
		}
	}
}
