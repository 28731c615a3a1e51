package pipeline

import (
	"net/http"
	"time"

	"async-data-processor/broker/door"
	"async-data-processor/consumer"
	"async-data-processor/control"
	"async-data-processor/event"
	"async-data-processor/server"
	"async-data-processor/telemetry/metrics"
)

// neighbor is this process among the others of its system.
type neighbor struct {
	*control.Node
	lasting
}

// leaveTimeout bounds the last word to the others.
const leaveTimeout = time.Second

// joinOthers makes the process a node.
func (p parts) joinOthers(process *process, set *consumer.Set, out *room, ready func() []server.Check, counted *metrics.Metrics) {
	cfg := process.cfg
	c := control.Config{
		Bus: process.broker, Skips: &process.skips, Name: cfg.NodeName, Shards: cfg.Shards, Backlogs: process.broker.Backlogs, Events: process.events,
		Info: control.Info{Version: cfg.Version, Broker: RedactURL(cfg.BrokerURL), Address: process.address()},
	}
	if p.server {
		c.Info.Roles = append(c.Info.Roles, control.ServerRole)
		c.Intake = process.setIntake
	}
	if p.consumer {
		c.Info.Roles = append(c.Info.Roles, "message-consumer")
		c.Owner = set
		c.Sought = func() []int { return consumer.Sought(set) }
		c.Consumer = func() control.Consumer { return claims(set.Status(), out.err() == nil && process.consumes()) }
	}
	if cfg.Jobs != "" {
		c.Info.Roles = append(c.Info.Roles, jobsRole)
	}
	c.Part = func() control.Part {
		part := control.Part{Checks: checksOf(ready())}
		if p.server {
			accepted, _, _ := counted.Totals()
			part.Accepted = &accepted
		}
		if set != nil {
			part.Shards, part.Totals = shardsOf(set.Status(), set.History())
			if free := out.reserve.Seen(); free >= 0 { // it is looked at only if some has to be free
				part.Disk = &control.Disk{Folder: cfg.OutputDir, Free: free, MinFree: cfg.OutputMinFree}
			}
		}
		return part
	}
	if set != nil {
		c.Workers = func() []control.WorkerPart { return workersOf(set.History()) }
	}
	process.node = &neighbor{Node: control.New(c)}
}

// What GET /api/v1/… shows.
type (
	Overview  = control.Overview
	NodeView  = control.NodeView
	ShardView = control.ShardView
	Pause     = control.Pause
)

// IntakePaused is the state of a server that takes no submissions.
const IntakePaused = control.IntakePaused

// StoreTransport reaches the process that has the store of EmbeddedURL.
func StoreTransport() http.RoundTripper {
	dir, _ := storeDir(EmbeddedURL) // it has one
	return door.Transport(dir)
}

// address is where the process serves HTTP, as others may reach it.
func (p *process) address() string {
	for _, e := range []endpoint{p.server, p.admin} {
		if b, ok := e.(bound); ok {
			if p.certificate != nil {
				return "https://" + b.Addr().String() + p.cfg.BasePath
			}
			return "http://" + b.Addr().String() + p.cfg.BasePath
		}
	}
	return ""
}

// claims is what a consumer has of shards. It works while its output takes entries and
// no shard holds a batch.
func claims(status consumer.Status, works bool) control.Consumer {
	c := control.Consumer{Works: works}
	for _, sh := range status {
		switch {
		case control.Runs(sh.State):
			c.Runs.Add(sh.Shard)
		case sh.State == event.ShardStandby:
			c.Waits.Add(sh.Shard)
		}
		if sh.State == event.ShardRetrying || sh.Holding > 0 {
			c.Works = false
		}
	}
	return c
}

// consumes tells whether the process can take what is queued. It has a connection to the
// broker for the bus, and another one for the queues. Whether it can publish does not matter.
func (p *process) consumes() bool { return p.broker.Consumes() == nil }

func checksOf(ready []server.Check) []control.Check {
	checks := make([]control.Check, 0, len(ready))
	for _, c := range ready {
		checks = append(checks, control.Check{Name: c.Name, OK: c.Err == nil, Why: control.Why(c.Err)})
	}
	return checks
}

// shardsOf is the consumer's part of a snapshot.
func shardsOf(status consumer.Status, history []event.Worker) (shards []control.ShardPart, totals control.Totals) {
	index := make(map[int]*control.ShardPart, len(status))
	shards = make([]control.ShardPart, len(status))
	for i, sh := range status {
		shards[i] = control.ShardPart{
			Shard: sh.Shard, State: sh.State, Since: sh.Since.UTC().Truncate(time.Millisecond), Why: control.Why(sh.Err),
			InHand: sh.Unsettled, Held: sh.Holding, WorkersMin: sh.WorkersMin, WorkersMax: sh.WorkersMax, Pause: pauseOf(sh.Pause),
			OldestAge: oldestAge(&sh), IDs: sh.IDs, IDsAge: seconds(sh.IDsAge),
		}
		// Of most dead letters no worker knows: the shard counts them all.
		shards[i].Dead = sh.Dead
		totals.Dead += sh.Dead
		index[sh.Shard] = &shards[i]
	}
	for _, w := range history {
		done := control.Totals{Written: w.Messages, Duplicates: w.Duplicates}
		totals.Add(done)
		if sh := index[w.Shard]; sh != nil {
			sh.Totals.Add(done)
			if w.State != event.Stopped {
				sh.Workers++
			}
		}
	}
	return shards, totals
}

// workersOf is the history of workers as others see it.
func workersOf(history []event.Worker) []control.WorkerPart {
	workers := make([]control.WorkerPart, len(history))
	for i, w := range history {
		workers[i] = control.WorkerPart{
			Worker: w.ID, Shard: w.Shard, State: string(w.State), Started: w.Started.UTC().Truncate(time.Millisecond), WhyStarted: w.WhyStarted,
			WhyStopped: w.WhyStopped, Messages: w.Messages, Batches: w.Batches, Duplicates: w.Duplicates, Dead: w.Dead, LastFile: w.LastFile,
		}
		if w.State == event.Stopped {
			stopped := w.Stopped.UTC().Truncate(time.Millisecond)
			workers[i].Stopped = &stopped
		}
	}
	return workers
}

// pauseOf is a pause as others see it.
func pauseOf(p *consumer.Pause) *control.Pause {
	if p == nil {
		return nil
	}
	told := &control.Pause{Since: p.Since.Truncate(time.Millisecond), Until: p.Until, Why: control.Why(p.Damaged), By: p.By}
	if p.Damaged == nil {
		told.Why = p.Reason
	}
	return told
}

// oldestAge is how long the oldest message of a shard waits, in seconds; nil if that is
// not known.
func oldestAge(sh *consumer.ShardStatus) *float64 {
	if !sh.OldestKnown || !sh.Owned {
		return nil
	}
	age := 0.0
	if !sh.Oldest.IsZero() {
		age = seconds(max(0, time.Since(sh.Oldest)))
	}
	return &age
}

// seconds is in milliseconds, as all that is told of time.
func seconds(d time.Duration) float64 { return d.Truncate(time.Millisecond).Seconds() }

// systemRoutes are those that answer for the whole system. They are mounted before
// there is a node, which has the address of the server.
func (p *process) systemRoutes() (routes []server.Route) {
	for _, path := range control.Paths {
		routes = append(routes, server.Route{Method: http.MethodGet, Path: path, For: server.Viewers, Handler: http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) { p.node.ServeHTTP(w, r) })})
	}
	return routes
}
