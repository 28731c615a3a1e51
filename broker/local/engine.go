// Package local is a broker inside the process: one durable queue per shard, and
// one of dead letters, in one file.
//
//	store.go        what an Engine asks of its Store
//	engine.go       the Engine: opening, failing, closing
//	commit.go       group commit: one change of the store for all that wait
//	publish.go      publishing
//	queue.go        a queue: what is ready, what is handed out
//	consume.go      consuming and settling
//	deadletters.go  the dead letters
//	bus.go          the bus between the clients of an engine
//	broker.go       Broker, which is an engine over a File of its own
//	file.go         File, the Store in a bbolt file; open.go and compact.go are its
//	bolt_create.go  the layout of the file; record.go: of a record
//	pages.go        reading the file without bbolt; survey.go, check.go, salvage.go
//
// An Engine keeps the rules of the queues, and holds in memory what is handed out
// or about to be. All else is in its Store, read in order when it is due. The Store
// of the product is a file; tests have one in memory (brokertest.Memory), so that
// what they test is what users run.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
)

// Config says what an Engine is.
type Config struct {
	Store Store
	// SettleDelay is how long an acknowledgement or a return waits for a publish
	// that takes it along. One that is lost is a delivery more.
	SettleDelay time.Duration
	// Admit is asked before every publish; its error rejects it. nil admits all.
	Admit func() error
	// CloseTimeout bounds how long Close waits for a store that does not answer.
	CloseTimeout time.Duration
}

// Engine is the queues of one process. Its methods may be called concurrently.
type Engine struct {
	cfg    Config
	ctx    context.Context // done when Close begins
	cancel context.CancelFunc
	work   sync.WaitGroup // the goroutines that commit and recover

	members members

	mu      sync.Mutex // guards what follows, and the fields of queues, clients and consumers
	queues  map[int]*queue
	clients map[*Client]bool
	// down is why the store cannot be used; nil while it can be.
	down error
	// broken is why it never can be again.
	broken error
	// blocked is why publishes are refused.
	blocked error
	closed  bool
	// life is replaced when the store is lost; nothing handed out survives it.
	life *life
	// changed is closed and replaced when down, broken or closed change.
	changed chan struct{}

	waiting []*publication
	change  Change          // of settles that wait
	moves   []*move         // of dead letters that wait
	leaving map[uint64]bool // dead letters of which a walk moves one
	since   time.Time       // when the running commit began; zero if none runs
	running bool            // a goroutine commits, or opens the store again
	timer   *time.Timer     // set while settles wait for company
	resting bool            // settles and moves wait, because the store took none

	// Of the goroutine that commits and opens the store again.
	pause  backoff.Backoff
	failed bool // no commit has succeeded since the store was opened
}

// life is the time between two losses of the store.
type life struct{ over chan struct{} }

// New returns an engine over the store. It takes nothing before Open.
func New(cfg Config) *Engine {
	e := &Engine{
		cfg: cfg, queues: map[int]*queue{}, clients: map[*Client]bool{},
		down: errOpening, life: &life{make(chan struct{})}, changed: make(chan struct{}),
		leaving: map[uint64]bool{}, pause: backoff.Backoff{Min: minPause, Max: maxPause},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

var errOpening = errors.New("the broker's store is being opened")

// Open opens the store. Its error is that of Store.Recover; the engine is of no use
// then.
func (e *Engine) Open(ctx context.Context) error {
	contents, err := e.cfg.Store.Recover(ctx)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.load(contents)
	return nil
}

// load takes over what the store holds. mu is held.
func (e *Engine) load(contents map[int]Contents) {
	for _, q := range e.queues {
		q.depth = 0
	}
	for n, c := range contents {
		e.queue(n).load(c)
	}
	e.down = nil
	e.broadcast()
	e.tell(event.Connection{State: event.Connected, Shard: -1})
	for _, q := range e.queues {
		q.wake()
	}
}

// Fail takes back all that is handed out, as after the loss of a connection, and
// opens the store again.
func (e *Engine) Fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fail(err)
	e.kick()
}

// fail is Fail, but for opening the store. mu is held.
func (e *Engine) fail(err error) {
	if e.down != nil {
		return
	}
	e.down = err
	close(e.life.over)
	e.life = &life{make(chan struct{})}
	e.change = Change{}
	clear(e.leaving)
	for _, m := range e.moves {
		m.done <- err
	}
	e.moves = nil
	for _, q := range e.queues {
		q.clear()
	}
	for _, p := range e.waiting {
		p.resolve(broker.Rejected(err))
	}
	e.waiting = nil
	e.broadcast()
	e.tell(event.Connection{State: event.Lost, Shard: -1, Err: err})
}

// Pauses between attempts to open the store again.
const (
	minPause = 50 * time.Millisecond
	maxPause = 5 * time.Second
)

// reopen opens the store again. The first attempt after a commit is at once, the
// others wait.
func (e *Engine) reopen() {
	if e.failed && !backoff.Sleep(e.ctx, e.pause.Next()) {
		return
	}
	e.failed = true
	contents, err := e.cfg.Store.Recover(e.ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil && !e.closed:
		e.load(contents)
	case errors.Is(err, ErrDamaged):
		e.breakDown(err)
	default:
		e.down = cmp.Or(err, e.down)
	}
}

// breakDown ends the use of the store for good. mu is held.
func (e *Engine) breakDown(err error) {
	e.broken = err
	e.fail(err)
	e.broadcast()
}

// Block makes the engine refuse publishes because of err, or take them again if
// that is nil.
func (e *Engine) Block(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.blocked
	e.blocked = err
	switch {
	case err != nil && before == nil:
		e.tell(event.Connection{State: event.Blocked, Shard: -1, Err: err})
	case err == nil && before != nil:
		e.tell(event.Connection{State: event.Unblocked, Shard: -1})
	}
}

// Close stores the settles made so far and closes the store. It may be called more
// than once. If the store does not answer, Close returns an error after a while.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	for c := range e.clients {
		c.release()
	}
	e.kick() // for the last time
	e.cancel()
	e.broadcast()
	e.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		e.work.Wait()
		done <- e.cfg.Store.Close()
	}()
	var late <-chan time.Time
	if e.cfg.CloseTimeout > 0 {
		t := time.NewTimer(e.cfg.CloseTimeout)
		defer t.Stop()
		late = t.C
	}
	select {
	case err := <-done:
		return err
	case <-late:
		return errors.New("the disk of the broker's store does not answer; what was published is safe, the last settles may be lost")
	}
}

// usable returns why nothing can be published now. mu is held.
func (e *Engine) usable() error {
	if e.closed {
		return broker.ErrClosed
	}
	return cmp.Or(e.broken, e.down, e.blocked)
}

// ready is usable, and tells of a store that does not answer.
func (e *Engine) ready() error {
	if e.cfg.Admit != nil {
		if err := e.cfg.Admit(); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.usable(); err != nil {
		return err
	}
	if !e.since.IsZero() && time.Since(e.since) > broker.PublishTimeout {
		return fmt.Errorf("the disk of the broker's store has not answered for %v", time.Since(e.since).Round(time.Second))
	}
	return nil
}

// Depth counts the items of a shard, and of these the ones that are handed out.
func (e *Engine) Depth(shard int) (all, handedOut int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.queue(shard)
	return q.depth, len(q.unsettled)
}

// await waits until the store can be used, and returns its life.
func (e *Engine) await(ctx context.Context, c *Client) (*life, error) {
	for {
		e.mu.Lock()
		down, broken, closed, changed, life := e.down, e.broken, c.closed || e.closed, e.changed, e.life
		e.mu.Unlock()
		switch {
		case closed:
			return nil, broker.ErrClosed
		case broken != nil:
			return nil, broken
		case ctx.Err() != nil && down != nil:
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), down)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case down == nil:
			return life, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// broadcast wakes up all who wait for a change of the engine. mu is held.
func (e *Engine) broadcast() {
	close(e.changed)
	e.changed = make(chan struct{})
	for _, q := range e.queues {
		q.wake()
	}
}

// tell tells every client of a change of both its connections. mu is held.
func (e *Engine) tell(c event.Connection) {
	for client := range e.clients {
		for _, role := range []string{conn.Publish, conn.Consume} {
			c.Role = role
			client.events.Send(c)
		}
	}
}
