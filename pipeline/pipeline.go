// Package pipeline builds the stages, starts them in order and drains them in
// order. It is the one place that sees them all:
//
//	client ── POST /message ──▶ server ──▶ shard ──▶ broker ═══▶ queues      (Serve)
//
//	queues ═══▶ broker ──▶ batcher ──▶ workerpool ──▶ output ──▶ files       (Consume)
//	              ▲                        │
//	              └──── settle, after ─────┘
//
// It is also the one place that logs: the stages tell what happened through
// hooks and events, log.go turns that into lines.
package pipeline

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/server"
	"async-data-processor/space"
)

// ErrDrainDeadline is returned when the drain took longer than its time-out.
// What was unsettled is still at the broker.
var ErrDrainDeadline = errors.New("the drain took longer than --drain-timeout; what was not finished stays with the broker")

// Serve runs the server until ctx ends, and then drains it. It returns nil
// after a clean drain. cfg must be valid.
func Serve(ctx context.Context, cfg Config, log zerolog.Logger) error {
	return run(ctx, cfg, newTeller(log), openBroker, newServing)
}

// Consume runs the message-consumer until ctx ends, and then drains it. It
// returns nil after a clean drain. cfg must be valid.
func Consume(ctx context.Context, cfg Config, log zerolog.Logger) error {
	return run(ctx, cfg, newTeller(log), openBroker, newConsuming, newAdmin)
}

// half is a half of the pipeline, in front of the broker or behind it.
type half interface {
	// start starts the half in g. It works until intake ends, then finishes
	// what it has in hand, and gives up on that when work ends.
	start(g *errgroup.Group, intake, work context.Context)
	// end comes after everything in g has returned, or was given up. It frees
	// what the half holds and has its last word in the log.
	end()
}

// plant is what the halves of one process share.
type plant struct {
	cfg    Config
	broker broker.Broker
	teller *teller
	// checks are the conditions of being ready; complete when the halves start.
	checks []func() server.Check
	// addr is where submissions are taken; set by newServing.
	addr net.Addr
	// served is closed when every request has its answer; nil without a server.
	served chan struct{}
	// reserve is what the output's disk keeps free; nil without a consumer.
	reserve *space.Watermark
	// owned counts the shards whose folder this process owns.
	owned atomic.Int32
	// writing is what the drain of the files waits for.
	writing sync.WaitGroup
}

// afterServing returns the intake of the queues. In a process with a server it
// lasts until that has stopped, so that what it still accepts is consumed, too.
func (p *plant) afterServing(intake context.Context) context.Context {
	if p.served == nil {
		return intake
	}
	later, cancel := context.WithCancelCause(context.WithoutCancel(intake))
	context.AfterFunc(intake, func() {
		<-p.served
		cancel(context.Cause(intake))
	})
	return later
}

// isReady tells whether what is posted now becomes files.
func (p *plant) isReady() bool {
	if int(p.owned.Load()) < p.cfg.Shards {
		return false
	}
	for _, c := range p.ready() {
		if c.Err != nil {
			return false
		}
	}
	return true
}

// ready answers for the process.
func (p *plant) ready() []server.Check {
	checks := make([]server.Check, len(p.checks))
	for i, check := range p.checks {
		checks[i] = check()
	}
	return checks
}

type (
	opener  func(Config, event.Sink) (broker.Broker, error)
	builder func(*plant) (half, error)
)

// run opens the broker, builds the halves, which take their listeners and
// folders so that a failure is early, and runs them until ctx ends or one of
// them fails. Then all of them drain, and the broker is closed last.
func run(ctx context.Context, cfg Config, t *teller, open opener, builders ...builder) (err error) {
	b, err := openUnless(ctx, cfg, t, open)
	if err != nil || b == nil {
		return err
	}
	p := &plant{cfg: cfg, broker: b, teller: t}
	p.checks = append(p.checks, func() server.Check { return server.Check{Name: "broker", Err: b.Ready()} })
	started := false
	defer func() { // the last word, after those of the halves
		if started && err == nil {
			t.stopped()
		}
	}()
	var halves []half
	for _, build := range builders {
		h, err := build(p)
		if err != nil {
			return errors.Join(err, b.Close())
		}
		defer h.end()
		halves = append(halves, h)
	}
	started = true

	g, intake := errgroup.WithContext(ctx)
	work, stop := deadline(intake, cfg.DrainTimeout)
	defer stop()
	g.Go(func() error {
		<-intake.Done()
		t.draining(intake)
		return nil
	})
	for _, h := range halves {
		h.start(g, intake, work)
	}
	done := make(chan error, 1)
	go func() { done <- errors.Join(g.Wait(), b.Close()) }()
	return await(intake, work, done)
}

// openUnless opens the broker, or returns nil if ctx ends before that: a large
// embedded store takes a while to check, and leaving it then is as safe as a
// crash, from which it recovers.
func openUnless(ctx context.Context, cfg Config, t *teller, open opener) (broker.Broker, error) {
	type opened struct {
		broker broker.Broker
		err    error
	}
	done := make(chan opened, 1)
	go func() {
		b, err := open(cfg, t.brokerEvent)
		done <- opened{b, err}
	}()
	select {
	case o := <-done:
		return o.broker, o.err
	case <-ctx.Done():
		return nil, nil
	}
}

// giveUpDelay is what stages get to return what they hold after the deadline.
const giveUpDelay = 2 * time.Second

// deadline returns the context of the work: it outlives intake by the drain
// time-out and is then cancelled with ErrDrainDeadline.
func deadline(intake context.Context, timeout time.Duration) (work context.Context, stop func()) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(intake))
	unhook := context.AfterFunc(intake, func() {
		t := time.AfterFunc(timeout, func() { cancel(ErrDrainDeadline) })
		context.AfterFunc(work, func() { t.Stop() })
	})
	return work, func() {
		unhook()
		cancel(context.Canceled)
	}
}

// await returns the error of done, or ErrDrainDeadline, and why intake ended, if
// that has not come a moment after work was cancelled: a write may hang in a
// system call for ever.
func await(intake, work context.Context, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-work.Done():
	}
	select {
	case err := <-done:
		return errors.Join(context.Cause(work), err)
	case <-time.After(giveUpDelay):
		if cause := context.Cause(intake); !errors.Is(cause, context.Canceled) {
			return errors.Join(context.Cause(work), cause) // a part had failed
		}
		return context.Cause(work)
	}
}
