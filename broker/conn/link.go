package conn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/event"
)

// Link is the connection of one role, made again whenever it is lost.
type Link[S Session] struct {
	client   *Client[S]
	role     string
	stopping chan struct{} // closed by Close
	ended    sync.WaitGroup
	told     string // of the bus, the last event; of the goroutine that runs

	mu      sync.Mutex // guards what follows
	running bool
	session S
	err     error         // why there is no session; nil if there is
	changed chan struct{} // closed, and replaced, when the two above change
}

func newLink[S Session](c *Client[S], role string) *Link[S] {
	return &Link[S]{
		client: c, role: role, stopping: make(chan struct{}), changed: make(chan struct{}),
		err: fmt.Errorf("not connected to broker yet, connecting: %s", c.cfg.Name),
	}
}

// Start begins to connect, once.
func (l *Link[S]) Start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.running && l.client.ctx.Err() == nil {
		l.running = true
		l.ended.Go(l.run)
	}
}

// run connects and reconnects until the client is closed.
func (l *Link[S]) run() {
	c, attempts := l.client, l.client.cfg.Pauses.attempts()
	state, what := event.Unreachable, "cannot connect to broker, trying again"
	for {
		began := time.Now()
		s, err := l.open()
		if err == nil {
			state, what = event.Lost, "broker connection lost, connecting again"
			l.set(s, nil)
			l.send(event.Connected, nil, 0)
			select {
			case <-s.life().gone:
			case <-l.stopping:
				s.life().Fail(broker.ErrClosed)
			}
			err = s.life().cause
			l.set(s, fmt.Errorf("%s: %w", what, err))
			l.shut(s)
			attempts.lasted(began)
		} else {
			l.set(s, fmt.Errorf("%s: %w", what, err))
		}
		pause := attempts.failed(err)
		if c.ctx.Err() == nil {
			l.send(state, err, pause)
		}
		if !backoff.Sleep(c.ctx, pause) {
			l.set(s, broker.ErrClosed)
			return
		}
	}
}

// send tells of a change. What befalls the bus is told once, however often it is tried
// again: the process works without it.
func (l *Link[S]) send(state event.ConnectionState, err error, retry time.Duration) {
	if told := fmt.Sprint(state, err); l.role == Bus {
		if told == l.told {
			return
		}
		l.told = told
	}
	l.client.Send(event.Connection{State: state, Role: l.role, Shard: -1, Err: err, Retry: retry})
}

// open makes a session.
func (l *Link[S]) open() (none S, err error) {
	s, err := l.client.cfg.Dial(l.client.ctx, l.role)
	if err != nil {
		return none, err
	}
	end := context.AfterFunc(l.client.ctx, s.Cut)
	err = s.Prepare()
	end()
	if err != nil {
		s.life().Fail(err)
		l.shut(s)
		return none, err
	}
	return s, nil
}

// shut closes the connection: in order if the broker answers soon, by force if not.
func (l *Link[S]) shut(s S) {
	force := time.AfterFunc(l.client.cfg.Pauses.Close, s.Cut)
	s.Leave()
	force.Stop()
	s.Cut()
	s.life().Loops.Wait()
}

func (l *Link[S]) set(s S, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, broker.ErrClosed) {
		err = broker.ErrClosed // nothing is tried again
	}
	l.session, l.err = s, err
	close(l.changed)
	l.changed = make(chan struct{})
}

// Current returns the session that is up, or why there is none.
func (l *Link[S]) Current() (S, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session, l.err
}

// Await returns a session that is up. It waits for one until ctx is done or the
// client is closed.
func (l *Link[S]) Await(ctx context.Context) (S, error) {
	for {
		l.mu.Lock()
		s, err, changed := l.session, l.err, l.changed
		l.mu.Unlock()
		if err == nil && s.life().Ended() {
			err = fmt.Errorf("broker connection lost, connecting again: %w", s.life().cause)
		}
		if err == nil || errors.Is(err, broker.ErrClosed) {
			return s, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, cmp.Or(errors.Unwrap(err), err) // nothing is tried again for this caller
		}
	}
}
