package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/backoff"
	adp "async-data-processor/message"
)

// Session sends batches. It reconnects until it is closed, or refused for good.
type Session struct {
	cfg Config
	url string

	ctx     context.Context
	cancel  context.CancelFunc
	stopped chan struct{} // closed when run has returned

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	window  window
	dedupe  time.Duration
	closing bool
	err     error           // why the session has ended
	ws      *websocket.Conn // nil without a connection
	epoch   int             // of the connection

	refused bool // Refused was told of it; only take and what it calls use it
}

// New begins a session, which connects at once. Its error is one of the configuration.
func New(cfg Config) (*Session, error) {
	target, err := Endpoint(cfg.URL, "message")
	if err != nil {
		return nil, err
	}
	cfg.HTTP = cmp.Or(cfg.HTTP, http.DefaultClient)
	query := url.Values{"session": {adp.NewID()}}
	if cfg.Want {
		query.Set("want", "written")
	}
	target.RawQuery = query.Encode()
	s := &Session{
		cfg: cfg, url: target.String(),
		stopped: make(chan struct{}), changed: make(chan struct{}), window: newWindow(),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.run()
	return s, nil
}

// Ready waits until the server has greeted and the window has room for a frame, and
// returns the limits.
func (s *Session) Ready(ctx context.Context) (limits Limits, err error) {
	err = s.until(ctx, func() bool {
		limits = s.window.limits
		return s.window.room(limits.Frame)
	})
	return limits, err
}

// Send sends a batch once the window has room for it. A nil error says that Answered
// will be told of it, unless the session ends before.
func (s *Session) Send(ctx context.Context, b Batch) (err error) {
	size := len(b.Array) + frameRoom
	sent := s.until(ctx, func() bool {
		most := s.window.limits
		if most.Frame > 0 && (size > most.Frame || b.Count > most.Entries) {
			err = fmt.Errorf("a batch of %d bytes, %d entries, where the server takes %d and %d", len(b.Array), b.Count, most.Frame-frameRoom, most.Entries)
			return true
		}
		if !s.window.room(size) {
			return false
		}
		s.window.add(b)
		return true
	})
	return cmp.Or(err, sent)
}

// Wait waits until every batch has its last answer.
func (s *Session) Wait(ctx context.Context) error {
	return s.until(ctx, func() bool { return len(s.window.open) == 0 })
}

// Close ends the session. It returns the batches without a last answer, in the order
// in which they were sent.
func (s *Session) Close() []Left {
	s.mu.Lock()
	s.closing = true
	ws := s.ws
	s.mu.Unlock()
	if ws != nil {
		late := time.AfterFunc(closeTimeout, s.cancel)
		_ = ws.Close(websocket.StatusNormalClosure, "") // it ends, either way
		late.Stop()
	}
	s.cancel()
	<-s.stopped
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []Left
	for _, f := range s.window.inOrder() {
		left = append(left, Left{Batch: f.Batch, Accepted: f.accepted, Unsent: !f.accepted && !f.unclear && !f.onWire})
	}
	return left
}

// failure is why the session has ended.
func (s *Session) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// closeTimeout is how long Close waits for the server to answer it.
const closeTimeout = time.Second

// until waits for a condition, which it asks with mu locked.
func (s *Session) until(ctx context.Context, met func() bool) error {
	for {
		s.mu.Lock()
		err, changed := s.err, s.changed
		done := err == nil && met()
		s.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tellChange wakes those who wait for a condition. mu is locked.
func (s *Session) tellChange() {
	close(s.changed)
	s.changed = make(chan struct{})
}

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// run keeps a connection.
func (s *Session) run() {
	defer close(s.stopped)
	pauses := backoff.Backoff{Min: firstPause, Max: longestPause, Jitter: 0.5}
	for {
		answered, err := s.connect()
		s.mu.Lock()
		s.ws = nil
		switch {
		case s.closing || s.ctx.Err() != nil:
			s.err = ErrClosed
		case errors.Is(err, ErrRefused):
			s.err = err
		}
		ended := s.err != nil
		if ended {
			s.tellChange()
		}
		s.mu.Unlock()
		if ended {
			return
		}
		if answered {
			pauses.Reset()
		}
		pause := max(pauses.Next(), Asked(err))
		if s.cfg.Lost != nil {
			s.cfg.Lost(err, pause)
		}
		backoff.Sleep(s.ctx, pause)
	}
}

// begin makes a connection the one that frames are written to, from the oldest on.
func (s *Session) begin(ws *websocket.Conn, h Handshake) {
	s.expire(h.Dedupe)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ws, s.dedupe = ws, h.Dedupe
	s.epoch++
	s.window.begin(h.Limits)
	s.tellChange()
}

// expire ends the frames that the server may have forgotten. No writer runs meanwhile.
func (s *Session) expire(dedupe time.Duration) {
	s.mu.Lock()
	frames := s.window.inOrder()
	s.mu.Unlock()
	for _, f := range frames {
		if f.tooOld(dedupe, 0) {
			s.finish(f, Answer{Kind: Expired, ID: f.id})
		}
	}
}

// take acts on what the server says.
func (s *Session) take(m message) error {
	if m.Type == "drain" {
		s.mu.Lock()
		s.window.drains = true
		s.mu.Unlock()
		return nil
	}
	ref, err := strconv.ParseUint(m.Ref, 10, 64)
	if err != nil {
		return nil // of no frame of ours
	}
	s.mu.Lock()
	f, dedupe := s.window.open[ref], s.dedupe
	known := f != nil && (f.onWire || f.accepted)
	if known {
		s.window.leaveWire(f)
	}
	s.mu.Unlock()
	if !known {
		return nil // it has its answer, or was not sent
	}
	switch m.Type {
	case "accepted":
		if m.Accepted != f.Count {
			return fmt.Errorf("%w: the server has accepted %d entries of a batch of %d", ErrRefused, m.Accepted, f.Count)
		}
		s.accept(f, m)
		if s.cfg.Want && m.Want == "unavailable" { // it has to be asked again
			s.failed(f, wantRetry, dedupe)
		}
	case "written":
		s.accept(f, m)
		s.finish(f, Answer{Kind: Written, ID: f.id})
	case "dead":
		s.accept(f, m)
		s.finish(f, Answer{Kind: Dead, ID: f.id, Dead: m.Dead})
	case "rejected":
		p := &m.Problem
		switch code := p.Status; {
		case f.accepted && !transient(code): // by a server with other rules
			s.finish(f, Answer{Kind: Expired, ID: f.id})
		case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge:
			s.finish(f, Answer{Kind: Rejected, Problem: m.Problem})
		case transient(code):
			s.refuse(f, p, wantRetry, dedupe)
		default:
			return fmt.Errorf("%w: the server rejects a batch with status %d: %w", ErrRefused, code, p)
		}
	case "failed":
		s.mu.Lock()
		f.unclear = f.unclear || m.Kind != "unavailable" && m.Kind != "overloaded"
		s.mu.Unlock()
		s.refuse(f, errors.New(cmp.Or(m.Title, m.Kind, "no reason told")), time.Duration(m.RetryMS)*time.Millisecond, dedupe)
	}
	return nil
}

// accept tells that a frame is accepted, unless it was told. Without more to wait for,
// that ends it.
func (s *Session) accept(f *frame, m message) {
	if f.accepted {
		return
	}
	s.mu.Lock()
	f.accepted, f.id = true, m.ID
	s.mu.Unlock()
	if s.refused && s.cfg.Refused != nil {
		s.cfg.Refused(nil, 0)
	}
	s.refused = false
	a := Answer{Kind: Accepted, ID: m.ID, Shards: m.Shards}
	if s.cfg.Want {
		s.tell(f, a)
		return
	}
	s.finish(f, a)
}

// finish tells the last answer of a frame, and then takes what is to be sent instead.
func (s *Session) finish(f *frame, a Answer) {
	instead := s.tell(f, a)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.remove(f)
	for _, b := range instead {
		s.window.add(b)
	}
	s.tellChange()
}

func (s *Session) tell(f *frame, a Answer) (instead []Batch) {
	if s.cfg.Answered == nil {
		return nil
	}
	a.Batch, a.Ref = f.Batch, strconv.FormatUint(f.ref, 10)
	if !f.first.IsZero() {
		a.After = time.Since(f.first)
	}
	return s.cfg.Answered(a)
}

// failed has a frame sent again on this connection, after a pause, unless the server may
// have forgotten it by then.
func (s *Session) failed(f *frame, pause, dedupe time.Duration) {
	pause = retryPause(pause)
	if f.tooOld(dedupe, pause) {
		s.finish(f, Answer{Kind: Expired, ID: f.id})
		return
	}
	s.mu.Lock()
	epoch := s.epoch
	s.mu.Unlock()
	time.AfterFunc(pause, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.epoch == epoch { // else it was written again anyway
			s.window.again(f)
		}
	})
}

// refuse tells why a frame has failed, and has it sent again.
func (s *Session) refuse(f *frame, err error, pause, dedupe time.Duration) {
	pause = min(pause, longestRefused)
	s.refused = true
	if s.cfg.Refused != nil {
		s.cfg.Refused(err, pause)
	}
	s.failed(f, pause, dedupe)
}

// wantRetry is the pause where the server asks for none: after it had no room for the
// question whether a batch is written, or takes nothing for a while.
const wantRetry = time.Second

// What a server may ask for as pause before a frame that has failed is sent again.
const (
	leastRetry = 50 * time.Millisecond
	mostRetry  = time.Minute
	// longestRefused holds for a server that is there. What it asks for is a guess: a
	// pause of the intake may end at any time. With what is added it is 5 s.
	longestRefused = 4 * time.Second
)

// retryPause is what the server asks for, and up to a quarter more, so that many frames
// do not come back at the same moment.
func retryPause(asked time.Duration) time.Duration {
	least := min(max(asked, leastRetry), mostRetry)
	b := backoff.Backoff{Min: least * 5 / 4, Max: least * 5 / 4, Jitter: 0.2}
	return b.Next()
}
