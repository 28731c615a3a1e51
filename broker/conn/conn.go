// Package conn keeps the connections of a broker's client, whatever they speak.
//
// A client has two connections, one to publish and one to consume, so that neither
// waits for the other, and one for the bus when that is used. Each is made again when it is lost, for as long as the
// client is open. Every connection is a new Session: nothing of a session survives
// it, so a delivery is settled on the session that brought it, or not at all.
//
//	conn.go     Client: readiness, closing, calls that Close waits for
//	session.go  Session, and Life, the part of it that all engines share
//	link.go     a connection that is made again
//	pause.go    how long to wait before the next attempt, and refusals
//	consume.go  subscribing to a shard again and again
//	dead.go     moving an envelope to the dead letters
//	socket.go   a network connection that anyone may close
package conn

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
)

// The roles of connections.
const (
	Publish = "publish"
	Consume = "consume"
	Bus     = "bus"
)

// Config says what a client is.
type Config[S Session] struct {
	// Name is the broker's address, without the password.
	Name string
	// Shards is the number of shards that the client publishes to.
	Shards int
	Pauses Pauses
	// Events hears of the connections and of dead letters.
	Events event.Sink
	// Dial opens a connection for a role, in bounded time. It gives up when ctx ends.
	Dial func(ctx context.Context, role string) (S, error)
}

// Client keeps the connections of an engine's client.
type Client[S Session] struct {
	// Publishing carries dead letters, too, so it is started in any case.
	Publishing *Link[S]
	// Consuming is started when it is needed. Readiness depends on it once the client
	// consumes, not while it only looks at queues.
	Consuming *Link[S]
	// Bus is started when the bus is used. Readiness does not depend on it.
	Bus *Link[S]

	cfg    Config[S]
	ctx    context.Context // done when Close begins
	cancel context.CancelFunc
	closed chan struct{} // closed when Close is through
	calls  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	closing  bool
	consumes bool          // a shard is consumed, or was
	faults   map[int]error // why a shard is not subscribed, while the connection is up
}

// New returns a client. Its links connect in the background once they are started.
func New[S Session](cfg Config[S]) *Client[S] {
	c := &Client[S]{cfg: cfg, closed: make(chan struct{}), faults: map[int]error{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.Publishing, c.Consuming, c.Bus = newLink(c, Publish), newLink(c, Consume), newLink(c, Bus)
	return c
}

// Context is done when Close begins.
func (c *Client[S]) Context() context.Context { return c.ctx }

// Send tells what happens to the connections.
func (c *Client[S]) Send(e event.Event) { c.cfg.Events.Send(e) }

// Ready returns nil if a publish would be attempted now, else the first reason
// against it. It asks publishing about the session to publish with. Once the client
// consumes, it also answers for that connection and its subscriptions.
func (c *Client[S]) Ready(publishing func(S) error) error {
	c.mu.Lock()
	closing, consumes := c.closing, c.consumes
	var fault error
	for shard := 0; fault == nil && len(c.faults) > 0 && shard < c.cfg.Shards; shard++ {
		fault = c.faults[shard]
	}
	c.mu.Unlock()
	if closing {
		return broker.ErrClosed
	}
	s, err := c.Publishing.Current()
	if err == nil {
		err = publishing(s)
	}
	if err == nil && consumes {
		_, err = c.Consuming.Current()
	}
	return cmp.Or(err, fault)
}

// Consumes returns why nothing can be consumed: the connection for that is not up.
func (c *Client[S]) Consumes() error {
	_, err := c.Consuming.Current()
	return err
}

// Subscribed notes that a shard is consumed, or need not be any more.
func (c *Client[S]) Subscribed(shard int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.faults, shard)
}

// Unsubscribed notes why a shard is not consumed, and tells about it. Nothing is
// published to one beyond the number of shards, so that is no matter of readiness.
func (c *Client[S]) Unsubscribed(shard int, state event.ConnectionState, err error, retry time.Duration) {
	c.unsubscribed(shard, fmt.Errorf("shard %d is not consumed, trying again: %w", shard, err))
	c.Send(event.Connection{State: state, Role: Consume, Shard: shard, Err: err, Retry: retry})
}

func (c *Client[S]) unsubscribed(shard int, fault error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if shard < c.cfg.Shards {
		c.faults[shard] = fault
	}
}

// Enter registers a call that Close waits for, until Leave; false if Close has
// begun.
func (c *Client[S]) Enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.calls.Add(1)
	return true
}

// Leave ends what Enter began.
func (c *Client[S]) Leave() { c.calls.Done() }

// Begin is Enter for a call with a context: the one that it returns is done when
// Close begins, too. The call ends with end.
func (c *Client[S]) Begin(ctx context.Context) (_ context.Context, end func(), _ error) {
	if !c.Enter() {
		return nil, nil, broker.ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(broker.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		c.Leave()
	}, nil
}

// With begins a call, and hands it a session of the link once there is one.
func (c *Client[S]) With(ctx context.Context, l *Link[S], call func(ctx context.Context, s S) error) error {
	ctx, end, err := c.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	l.Start()
	s, err := l.Await(ctx)
	if err != nil {
		return err
	}
	return call(ctx, s)
}

// Close ends the connections. It takes at most some seconds, however silent the
// broker is. Publishes that wait for an answer end as unknown.
func (c *Client[S]) Close() error {
	c.mu.Lock()
	first := !c.closing
	c.closing = true
	c.mu.Unlock()
	if !first {
		<-c.closed
		return nil
	}
	defer close(c.closed)
	c.cancel() // the intake ends, and attempts to connect
	within(c.cfg.Pauses.Close, &c.calls)
	// No attempt to connect is under way for long now. A session leaves after its
	// settles.
	links := []*Link[S]{c.Bus, c.Consuming, c.Publishing}
	for _, l := range links {
		close(l.stopping)
	}
	for _, l := range links {
		l.ended.Wait()
	}
	return nil
}

// within waits for wg, but not longer than d.
func within(d time.Duration, wg *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(d):
	}
}
