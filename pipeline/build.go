package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"async-data-processor/batcher"
	"async-data-processor/broker"
	"async-data-processor/broker/door"
	"async-data-processor/consumer"
	"async-data-processor/durable"
	"async-data-processor/event"
	"async-data-processor/output"
	"async-data-processor/publisher"
	"async-data-processor/server"
	"async-data-processor/telemetry"
	"async-data-processor/telemetry/metrics"
)

// parts says which parts a process has.
type parts struct {
	server, consumer, admin bool
	show                    Show
	// ready is called once, with the address of the server, when what is posted
	// becomes files; nil for nothing.
	ready func(net.Addr)

	// Tests put their own in place of these.
	openBroker opener
	openFolder func(*output.Dir) openFolder
}

type (
	opener     func(Config, event.Sink) (broker.Broker, error)
	openFolder func(ctx context.Context, shard int, onStandby func()) (consumer.Folder, error)
)

// build opens the broker and takes listeners and folders, so that a failure is
// early. It returns nil if ctx ends while the broker is being opened.
func (p parts) build(ctx context.Context, cfg Config, events *event.Hub, log *telemetry.Log, counted *metrics.Metrics) (_ *process, err error) {
	rules, err := cfg.Rules()
	if err != nil {
		return nil, err
	}
	open := p.openBroker
	if open == nil {
		open = openBroker
	}
	b, err := openUnless(ctx, cfg, events.Send, open)
	if err != nil || b == nil {
		return nil, err
	}
	process := &process{cfg: cfg, rules: rules, events: events.Send, broker: b}
	defer func() {
		if err != nil {
			err = errors.Join(err, process.close(), b.Close())
		}
	}()

	p.follow(process)
	if err := newLetters(process); err != nil {
		return nil, err
	}
	if err := errors.Join(openState(ctx, process, p.consumer), takeJobs(process)); err != nil {
		return nil, err
	}
	p.keepSeries(process, counted)
	process.feed = newFeed(process)
	var out *room // of the output, where this process writes files
	var set *consumer.Set
	if p.consumer {
		if set, out, err = p.openOutput(process, counted); err != nil {
			return nil, err
		}
		process.consume(set, out, log)
	}
	if err := process.loadCertificate(); err != nil {
		return nil, err
	}
	ready := process.readiness(out)
	// It shows how much there is to do, so only those see it who may view.
	process.metrics = server.Route{Method: http.MethodGet, Path: "/metrics", Handler: counted.Handler(process.state(p.server, out, log)), For: server.Viewers}
	if err := process.openDoor(ready); err != nil {
		return nil, err
	}
	if p.server {
		if err := p.serve(process, b, out, ready, counted); err != nil {
			return nil, err
		}
	}
	if p.admin {
		c := process.listenConfig(cfg.AdminListen, ready)
		c.MaxConnections = min(cfg.connections(p.consumer), adminConnections)
		process.admin, err = process.listen("admin-listen", cfg.AdminListen, server.NewAdmin(c), event.Started{
			Component: "admin", Open: exposed(cfg.AdminListen) && len(cfg.ViewTokens) == 0,
		})
		if err != nil {
			return nil, err
		}
	}
	p.joinOthers(process, set, out, ready, counted)
	process.takeCommands(set)
	process.tellMemory(p.consumer)
	return process, nil
}

// openOutput opens the folder of the files, and returns the consumer that writes them.
func (p parts) openOutput(process *process, counted *metrics.Metrics) (*consumer.Set, *room, error) {
	cfg := process.cfg
	dir, err := output.Open(cfg.OutputDir, cfg.window(), cfg.roll())
	if err != nil {
		return nil, nil, fmt.Errorf("--output-dir: %w", err)
	}
	process.closers = append(process.closers, dir.Close)
	dir.Rescued = func(shard int, file string, bytes int64) {
		process.events.Send(event.FileRescued{Shard: shard, File: file, Bytes: bytes})
	}
	dir.Synced = counted.Synced
	recordFiles(process, dir)
	process.output = dir
	set := p.newSet(process, dir, counted)
	store, err := storeDir(cfg.BrokerURL)
	if err != nil {
		return nil, nil, err
	}
	out := &room{dir: dir, set: set, reserve: durable.NewWatermark(dir.Path(), cfg.OutputMinFree), store: store != ""}
	dir.Seeks = func() bool { return process.consumes() && out.err() == nil }
	return set, out, nil
}

// newSet returns the consumer of all configured shards.
func (p parts) newSet(process *process, dir *output.Dir, counted *metrics.Metrics) *consumer.Set {
	cfg := process.cfg
	c := consumer.Config{
		Shards: cfg.Shards, Queues: process.broker, Rules: process.rules, Prefetch: cfg.prefetch(),
		Batch:      batcher.Config{Size: cfg.BatchSize, Together: cfg.together(), Linger: cfg.BatchLinger},
		WorkersMin: cfg.WorkersMin, WorkersMax: cfg.WorkersMax, WorkerTimeout: cfg.WorkerTimeout,
		Dir: dir, RollInterval: cfg.roll().Interval, ErrorTimeout: cfg.OutputErrorTimeout, Events: process.events, OnWritten: counted.Written,
		Watch: process.receipts.watches(),
	}
	if p.openFolder != nil {
		c.Open = p.openFolder(dir)
	}
	set := consumer.New(c)
	for n := range cfg.Shards {
		set.Start(n)
	}
	return set
}

// consume gives the process its consumer.
func (p *process) consume(set *consumer.Set, out *room, log *telemetry.Log) {
	p.consumer, p.set = set, set
	_ = out.look() // watch tells of it
	p.started = append(p.started, event.Started{Component: "message-consumer", Broker: RedactURL(p.cfg.BrokerURL), Shards: p.cfg.Shards, Output: p.cfg.OutputDir, Rolls: p.cfg.roll().Rolls()})
	p.meanwhile = append(p.meanwhile,
		func(ctx context.Context) { out.watch(ctx, p.events) },
		func(ctx context.Context) {
			every(ctx, p.cfg.HistoryInterval, func() { log.History(set.History(), false) })
		},
	)
}

// serve gives the process its server, and what goes with it.
func (p parts) serve(process *process, b broker.Broker, out *room, ready func() []server.Check, counted *metrics.Metrics) error {
	c := process.listenConfig(process.cfg.Listen, ready)
	submissions := publisher.Config{Broker: timed{b, counted}, Shards: process.cfg.Shards, Timeout: broker.PublishTimeout}
	if out != nil {
		submissions.Room = out.err
	}
	c.Submitter = accepting{publisher.New(submissions), counted, process.receipts.Accepted, shown{process.receipts.tail, process.cfg.Shards}}
	c.Origins = process.cfg.CORSOrigins
	c.PublishTimeout = broker.PublishTimeout
	c.MaxInFlight, c.MaxInFlightPerClient = process.cfg.MaxInFlight, process.cfg.MaxInFlightPerClient
	c.MaxConnections = process.cfg.connections(p.consumer)
	c.Rules, c.Dedupe = process.rules, process.cfg.DedupeWindow
	c.Node = func() string { return process.node.ID() }
	c.Waiter = waiter{process.receipts.Receipts}
	s := server.New(c)
	process.intake = &s.Intake
	e, err := process.listen("listen", process.cfg.Listen, s, event.Started{
		Component: "server", Broker: RedactURL(process.cfg.BrokerURL), Shards: process.cfg.Shards, Tokens: len(process.cfg.AuthTokens),
		Open: exposed(process.cfg.Listen) && len(process.cfg.AuthTokens) == 0,
	})
	if err != nil {
		return err
	}
	process.server = e
	if p.ready != nil {
		process.meanwhile = append(process.meanwhile, func(ctx context.Context) { process.announce(ctx, ready, e.Addr(), p.ready) })
	}
	if p.show.Demo {
		d := newDemo(process.cfg, e.Addr())
		process.meanwhile = append(process.meanwhile, func(ctx context.Context) { every(ctx, demoInterval, func() { d.post(ctx) }) })
	}
	return nil
}

func (p *process) serverConfig(ready func() []server.Check) server.Config {
	c := server.Config{Ready: ready, IdleTimeout: p.cfg.IdleTimeout, Events: p.events}
	c.Mount = slices.Concat([]server.Route{p.metrics}, p.systemRoutes(), p.commandRoutes(), p.receiptRoutes(), p.tailRoutes(),
		letterRoutes(p), jobRoutes(p), p.locationRoutes(), settingsRoutes(p), dashboardRoutes(p))
	if p.cfg.Pprof {
		c.Mount = append(c.Mount, server.Profiles()...)
	}
	return c
}

// listenConfig is serverConfig for what listens at addr.
func (p *process) listenConfig(addr string, ready func() []server.Check) server.Config {
	c := p.serverConfig(ready)
	c.Certificate, c.ViewTokens, c.Hosts, c.Loopback = p.certificate, p.cfg.ViewTokens, p.cfg.hosts(addr), !exposed(addr)
	c.Tokens, c.AdminTokens, c.RunnerTokens = p.cfg.AuthTokens, p.cfg.AdminTokens, p.cfg.RunnerTokens
	c.Base, c.Mount = p.cfg.BasePath, append(c.Mount, pageRoutes()...)
	return c
}

// openDoor gives the process its control socket, if it owns a store. A process
// without one works all the same: some file systems take no sockets.
func (p *process) openDoor(ready func() []server.Check) error {
	dir, err := storeDir(p.cfg.BrokerURL)
	if err != nil || dir == "" {
		return err
	}
	l, err := door.Listen(dir)
	if err != nil {
		p.started = append(p.started, event.ControlFailed{Err: err})
		return nil
	}
	c := p.serverConfig(ready)
	c.Loopback = true // more: only programs of this user
	c.Mount = append(c.Mount, server.Route{Method: http.MethodPost, Path: door.Path, Handler: door.Handler(p.broker)})
	p.door = p.bind(server.NewAdmin(c), l)
	return nil
}

// tellMemory warns of folders that no fsync makes durable.
func (p *process) tellMemory(output bool) {
	store, _ := storeDir(p.cfg.BrokerURL)
	folders := []event.FolderInMemory{{Component: "broker", Dir: store}}
	if output {
		folders = append(folders, event.FolderInMemory{Component: "message-consumer", Dir: p.cfg.OutputDir})
	}
	for _, f := range folders {
		if f.Dir != "" && durable.InMemory(f.Dir) {
			p.started = append(p.started, f)
		}
	}
}

// bound is a server with its listener.
type bound struct {
	*server.Server
	listener net.Listener
}

func (b bound) Serve() error   { return b.Server.Serve(b.listener) }
func (b bound) Addr() net.Addr { return b.listener.Addr() }

// listen binds a server to the address of the setting. Once it serves, started
// tells of it.
func (p *process) listen(setting, addr string, s *server.Server, started event.Started) (bound, error) {
	l, err := listenTCP(addr)
	if err != nil {
		return bound{}, fmt.Errorf("--%s %s: %w", setting, addr, err)
	}
	started.Addr = l.Addr().String()
	p.started = append(p.started, started)
	return p.bind(s, l), nil
}

func (p *process) bind(s *server.Server, l net.Listener) bound {
	p.closers = append(p.closers, func() error {
		_ = l.Close() // an error says that the server has closed it
		return nil
	})
	return bound{s, l}
}

// readiness returns what answers for the process, in a fixed order.
func (p *process) readiness(out *room) func() []server.Check {
	return func() []server.Check {
		checks := []server.Check{{Name: "broker", Err: p.broker.Ready()}}
		if p.consumer != nil {
			err := p.consumer.Status().Err(p.cfg.Shards)
			if err == nil {
				err = out.err()
			}
			checks = append(checks, server.Check{Name: "output", Err: err})
		}
		return append(checks, jobChecks(p)...)
	}
}

// readyInterval is how often a process that starts is asked whether it is ready.
const readyInterval = 10 * time.Millisecond

// announce calls ready once, when every shard that is meant for this process runs and
// every check holds.
func (p *process) announce(ctx context.Context, checks func() []server.Check, addr net.Addr, ready func(net.Addr)) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	every(ctx, readyInterval, func() {
		if p.consumer != nil && p.consumer.Status().Owned(p.cfg.Shards) < p.node.Mine() {
			return
		}
		for _, c := range checks() {
			if c.Err != nil && !c.Aside {
				return
			}
		}
		stop()
		ready(addr)
	})
}

// every calls f every interval, until ctx ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	tick := time.Tick(interval)
	for {
		select {
		case <-tick:
			if ctx.Err() != nil {
				return // f may have ended it
			}
			f()
		case <-ctx.Done():
			return
		}
	}
}
