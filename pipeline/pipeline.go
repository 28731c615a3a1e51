// Package pipeline builds the parts of a process, starts them in order and drains
// them in order. It is the one place that sees them all:
//
//	client ── POST /message ──▶ server ──▶ publisher ──▶ broker ═══▶ queues      (Serve)
//
//	queues ═══▶ consumer: open ──▶ batcher ──▶ workerpool ──▶ output ──▶ files   (Consume)
//	              ▲                                │
//	              └───────── settle, after ────────┘
//
// Every part tells what happens to one event.Hub; package telemetry logs that, and
// telemetry/metrics counts it.
package pipeline

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"async-data-processor/broker"
	"async-data-processor/consumer"
	"async-data-processor/control"
	"async-data-processor/dashboard"
	"async-data-processor/deadletter"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/output"
	"async-data-processor/server"
	"async-data-processor/telemetry"
	"async-data-processor/telemetry/metrics"
)

var (
	// ErrDrainDeadline is returned when the drain took longer than its time-out.
	// Unsettled messages are still at the broker.
	ErrDrainDeadline = errors.New("the drain took longer than --drain-timeout; what was not finished stays with the broker")
	// ErrOutputFailed is returned when the output has failed for longer than
	// --output-error-timeout, and not for lack of space. Unwritten messages are
	// back at the broker.
	ErrOutputFailed = consumer.ErrOutputFailed
)

// Serve runs the server until ctx ends, and then drains it. It returns nil
// after a clean drain. cfg must be valid.
func Serve(ctx context.Context, cfg Config, log zerolog.Logger) error {
	return parts{server: true}.run(ctx, cfg, log)
}

// Consume runs the message-consumer until ctx ends, and then drains it. It
// returns nil after a clean drain. cfg must be valid.
func Consume(ctx context.Context, cfg Config, log zerolog.Logger) error {
	return parts{consumer: true, admin: true}.run(ctx, cfg, log)
}

// Standalone runs the server and the message-consumer in one process until ctx
// ends, and then drains both. It calls ready, with the server's address, when
// submissions become files. It returns nil after a clean drain. cfg must be valid.
func Standalone(ctx context.Context, cfg Config, log zerolog.Logger, show Show, ready func(net.Addr)) error {
	return parts{consumer: true, server: true, show: show, ready: ready}.run(ctx, cfg, log)
}

// Show is what a standalone process does for the person who tries it.
type Show struct {
	// Demo posts a few generated entries every second.
	Demo bool
	// People has the log tell what was done, not the routine: a person reads it.
	People bool
}

// run builds the parts and runs them until ctx ends and all have drained.
func (p parts) run(ctx context.Context, cfg Config, logger zerolog.Logger) error {
	var events event.Hub
	log := telemetry.Start(&events, logger, p.show.People)
	counted := metrics.New(metrics.Config{Version: cfg.Version, Shards: cfg.Shards, Server: p.server, Consumer: p.consumer, Jobs: cfg.Jobs != ""}, &events)
	process, err := p.build(ctx, cfg, &events, log, counted)
	if err != nil || process == nil {
		log.Close()
		return err
	}
	err = process.run(ctx)
	log.Close()
	if process.consumer != nil {
		log.History(process.consumer.History(), true)
	}
	if err == nil { // else the caller tells the error
		log.Tell(event.Drained{})
	}
	return err
}

// process is the parts of one process. A part that it does not have is nil.
type process struct {
	cfg      Config
	rules    *message.Rules // what cfg says of entries
	events   event.Sink
	metrics  server.Route
	broker   broker.Broker
	skips    broker.Skips // of the bus
	consumer shards
	server   endpoint
	intake   *server.Intake // of server; nil if there is none
	admin    endpoint
	door     endpoint // for the command line
	node     *neighbor
	commands *control.Commands
	receipts *followers
	letters  *deadletter.Letters
	database *state // of jobs; nil if there is none
	runs     *runs
	// unrecorded returns how many files are not in database, and when the oldest was begun; nil
	// if none is recorded.
	unrecorded func() (files int, oldest time.Time)
	series     *dashboard.Series
	feed       *dashboard.Feed
	set        *consumer.Set // that is the consumer
	output     *output.Dir   // of its files
	files      *recording    // nil if no jobs run for them
	// certificate is that of server and admin, if they have one.
	certificate *server.Certificate
	// started says which parts there are.
	started []event.Event
	// meanwhile is what runs beside the parts until the intake ends.
	meanwhile []func(context.Context)
	// closers free what the parts hold, the newest last.
	closers []func() error
}

// shards is the view of a consumer.Set.
type shards interface {
	Run(intake, work context.Context) error
	Failed() context.Context
	History() []event.Worker
	Status() consumer.Status
}

// endpoint is an HTTP server with its listener.
type endpoint interface {
	Serve() error
	Drain()
	Shutdown(ctx context.Context) error
}

// run is the start list. It returns when ctx has ended, or a part has failed, and
// everything has drained; or when the time for that is over.
func (p *process) run(ctx context.Context) error {
	defer p.free()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if p.consumer != nil { // it fails as soon as a shard does, and returns when the others have drained
		defer context.AfterFunc(p.consumer.Failed(), func() { fail(context.Cause(p.consumer.Failed())) })()
	}
	g, intake := errgroup.WithContext(ctx) // a part that fails ends the intake of all
	work, release := deadline(intake, p.cfg.DrainTimeout)
	defer release()
	consuming, stopConsuming := context.WithCancelCause(context.WithoutCancel(intake))
	defer stopConsuming(nil)
	consumed := make(chan struct{})

	for _, e := range p.started {
		p.events.Send(e)
	}
	if p.consumer != nil {
		g.Go(func() error {
			defer close(consumed)
			return p.consumer.Run(consuming, work)
		})
	}
	outliving, leaveAll := context.WithCancel(context.WithoutCancel(intake))
	defer leaveAll()
	if p.node != nil {
		p.node.begin(outliving, g, p.node.Run)
	}
	if p.receipts != nil {
		p.receipts.begin(outliving, g, p.receipts.run)
	}
	if p.files != nil {
		p.files.begin(outliving, g, p.files.Run)
	}
	if p.server != nil {
		g.Go(p.server.Serve)
	}
	if p.admin != nil {
		g.Go(p.admin.Serve)
	}
	if p.door != nil {
		g.Go(p.door.Serve)
	}
	for _, f := range p.meanwhile {
		g.Go(func() error {
			f(intake)
			return nil
		})
	}
	g.Go(func() error {
		<-intake.Done()
		return p.drain(intake, work, func() {
			stopConsuming(context.Cause(intake))
			<-consumed
		})
	})
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	return await(intake, work, done)
}

// lasting is what runs beside the parts until end is called: it has work to do in the drain.
type lasting struct {
	leave context.CancelFunc
	left  chan struct{}
}

func (l *lasting) begin(ctx context.Context, g *errgroup.Group, run func(context.Context)) {
	ctx, l.leave = context.WithCancel(ctx)
	l.left = make(chan struct{})
	g.Go(func() error {
		defer close(l.left)
		run(ctx)
		return nil
	})
}

// end waits until it has ended, but not for long: the process ends whatever became of it.
func (l *lasting) end(atMost time.Duration) {
	l.leave()
	select {
	case <-l.left:
	case <-time.After(atMost):
	}
}

// drain is the list of the orderly stop. Its steps are bounded by work, and the
// broker by a time-out of its own.
func (p *process) drain(intake, work context.Context, endConsuming func()) error {
	p.tellDraining(intake)
	if p.node != nil { // the others wait for its shards from now on
		p.node.Drain()
	}
	if p.receipts != nil && p.receipts.tail != nil { // viewers look at another process
		p.receipts.tail.Drain()
	}
	var errs []error
	if p.admin != nil {
		p.admin.Drain() // not ready, for as long as the drain takes
	}
	if p.server != nil { // no new requests; those under way are answered, confirms included
		errs = append(errs, p.server.Shutdown(work))
	}
	if p.consumer != nil { // what the server has published until now is consumed, too
		endConsuming()
	}
	if p.files != nil { // the last files, too, have their runs
		p.files.end(recordTimeout)
	}
	if p.admin != nil {
		errs = append(errs, p.admin.Shutdown(work))
	}
	if p.door != nil { // before the store, which another process may take then
		errs = append(errs, p.door.Shutdown(work))
	}
	if p.receipts != nil { // the others hear of the last files
		p.receipts.end(leaveTimeout)
	}
	if p.node != nil {
		p.node.end(leaveTimeout)
	}
	errs = append(errs, p.broker.Close()) // settles are sent; an embedded broker ends last
	return errors.Join(errs...)
}

func (p *process) tellDraining(intake context.Context) {
	cause := context.Cause(intake)
	if errors.Is(cause, context.Canceled) {
		cause = nil // a signal
	}
	p.events.Send(event.Draining{Cause: cause})
}

// free is close that does not wait for a disk that hangs.
func (p *process) free() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.close() // what it did is done
	}()
	select {
	case <-done:
	case <-time.After(freeTimeout):
	}
}

// close frees what the parts hold, in the reverse order of building.
func (p *process) close() error {
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i]())
	}
	return errors.Join(errs...)
}

// giveUpDelay is what the parts get to return what they hold after the deadline.
const giveUpDelay = 2 * time.Second

// freeTimeout bounds the release of folders and listeners at the end.
const freeTimeout = time.Second

// deadline returns the context of the work: it outlives intake by the drain
// time-out and is then cancelled with ErrDrainDeadline.
func deadline(intake context.Context, timeout time.Duration) (work context.Context, release func()) {
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

// await returns the error of done. If that has not come a moment after work was
// cancelled, it returns ErrDrainDeadline, and why intake ended: a write may hang
// in a system call for ever.
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
