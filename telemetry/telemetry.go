// Package telemetry turns events into log lines. It reads them from a queue of
// its own, so a slow log costs lines, never throughput. A Writer does the same for
// what else a process says.
//
//	telemetry.go  the queue, the histories, what repeats
//	lines.go      the line of each event
//	people.go     what people at a terminal get instead of routine lines
//	writer.go     the way to an output that may be stuck or gone
package telemetry

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/event"
)

// queueSize is how many events may wait for the log. A start of the largest
// number of shards tells some 5,000 at once.
const queueSize = 16384

// fewShards is how many shards and their workers have a line each at a start and at a
// drain. More of them share one; those of each are at debug level then.
const fewShards = 16

// Log writes what a hub tells.
type Log struct {
	logger zerolog.Logger
	// people tells that people at a terminal read the log. They get what was done in a
	// line at times, and the level of routine lines is debug, not info.
	people  bool
	routine zerolog.Level
	done    counters // only kept for people
	events  *event.Subscription
	ended   chan struct{} // closed when run has returned

	// Only used by run, and by Tell after Close.
	repeats   map[string]repeat // what may go on and on, by key
	dropped   uint64            // events, as last told
	status    int               // of the last answer about readiness
	down      map[string]bool   // roles of the connections to the broker that are down
	wasDown   bool              // one was
	connected bool              // told, and no connection has been lost since
	noBus     bool              // the connection of the bus is down
	many      bool              // shards and workers have no line each

	telling sync.Mutex              // guards told
	told    map[string]event.Worker // records as last told, by worker
}

// Start logs the events of the hub until Close; for people at a terminal if so wanted.
func Start(hub *event.Hub, logger zerolog.Logger, people bool) *Log {
	l := &Log{
		logger: logger, people: people, routine: zerolog.InfoLevel,
		ended: make(chan struct{}), repeats: map[string]repeat{}, down: map[string]bool{},
	}
	if people {
		l.routine = zerolog.DebugLevel
	}
	l.events = hub.Subscribe(queueSize, l.wants)
	go l.run()
	return l
}

// each is the level of the routine lines that each shard and worker has.
func (l *Log) each() zerolog.Level {
	if l.many {
		return zerolog.DebugLevel
	}
	return l.routine
}

// Close logs what waits, and ends.
func (l *Log) Close() {
	l.events.Close()
	<-l.ended
}

// Dropped returns how many events were lost because the log was slow, each of them a
// line or less.
func (l *Log) Dropped() uint64 { return l.events.Dropped() }

func (l *Log) run() {
	defer close(l.ended)
	var progress <-chan time.Time
	if l.people {
		progress = time.Tick(progressInterval)
	}
	for {
		select {
		case e, more := <-l.events.Events():
			if !more {
				l.forget(func(repeat) bool { return true })
				return
			}
			l.Tell(e)
		case <-progress:
			l.progress()
		}
		if d := l.events.Dropped(); d != l.dropped {
			l.logger.Warn().Uint64("dropped", d-l.dropped).Msg("the log is too slow, lines are missing")
			l.dropped = d
		}
	}
}

// wants keeps out of the queue what is told at debug level only, and often. It counts
// for people, on the goroutine of the sender: the queue may drop.
func (l *Log) wants(e event.Event) bool {
	if l.people {
		l.done.count(e)
	}
	switch e.(type) {
	case event.Submitted, event.Served, event.SocketClosed, event.BatchWritten, event.EnvelopeUndecodable:
		return l.logger.GetLevel() <= zerolog.DebugLevel
	case event.Redelivered: // what becomes of them is told
		return false
	}
	return true
}

// History logs the records of workers that changed since they were last told, or
// all of them. It may be called concurrently, also after Close.
func (l *Log) History(workers []event.Worker, all bool) {
	l.telling.Lock()
	defer l.telling.Unlock()
	told := make(map[string]event.Worker, len(workers))
	for _, w := range workers {
		told[w.ID] = w
		if all || l.told[w.ID] != w {
			l.record(w)
		}
	}
	l.told = told
}

func (l *Log) record(w event.Worker) {
	e := l.line(l.routine, ofWorker(w)).Str("state", string(w.State)).Time("started", w.Started).
		Str("why_started", w.WhyStarted).Int64("messages", w.Messages).Int64("batches", w.Batches).
		Int64("duplicates", w.Duplicates).Int64("dead", w.Dead)
	if w.LastFile != "" {
		e = e.Str("file", w.LastFile)
	}
	if w.State == event.Stopped {
		e = e.Time("stopped", w.Stopped).Str("why_stopped", w.WhyStopped)
	}
	e.Msg("worker history")
}

// place is what a line is about. Its members come first in the line.
type place struct {
	component string
	shard     int    // -1 for none
	worker    string // empty for none
}

func ofShard(n int) place { return place{component: "message-consumer", shard: n} }
func ofWorker(w event.Worker) place {
	return place{component: "workerpool", shard: w.Shard, worker: w.ID}
}

// line returns a line of a level, nil if that is not wanted.
func (l *Log) line(level zerolog.Level, at place) *zerolog.Event {
	e := l.logger.WithLevel(level).Str("component", at.component)
	if at.shard >= 0 {
		e = e.Int("shard", at.shard)
	}
	if at.worker != "" {
		e = e.Str("worker", at.worker)
	}
	return e
}

// repeating returns a line for something that may go on and on, at most one per
// key and repeatInterval; in between nil, which takes fields and writes nothing.
func (l *Log) repeating(level zerolog.Level, key string, at place) *zerolog.Event {
	if level < l.logger.GetLevel() {
		return nil
	}
	now := time.Now()
	before, known := l.repeats[key]
	switch {
	case known && now.Sub(before.at) < repeatInterval:
		before.suppressed++
		l.repeats[key] = before
		return nil
	case !known && len(l.repeats) >= manyRepeats:
		l.forget(func(r repeat) bool { return now.Sub(r.at) >= repeatInterval })
	}
	l.repeats[key] = repeat{at: now, level: level, of: at}
	e := l.line(level, at)
	if before.suppressed > 0 {
		e = e.Int("suppressed", before.suppressed)
	}
	return e
}

// repeatInterval is how often one kind of trouble is told.
const repeatInterval = 10 * time.Second

// manyRepeats is how many kinds of trouble are kept before those that have ended are
// forgotten. Some name a shard.
const manyRepeats = 1000

// repeat is something that may go on and on.
type repeat struct {
	at         time.Time // of the last line
	level      zerolog.Level
	of         place
	suppressed int // lines since
}

// leftOut is the text of a line about lines that no later line of their kind counts.
const leftOut = "lines of one kind were left out"

// forget forgets the repeats that have ended. It tells how many lines each left out,
// as no later line will.
func (l *Log) forget(ended func(repeat) bool) {
	for _, key := range slices.Sorted(maps.Keys(l.repeats)) {
		r := l.repeats[key]
		if !ended(r) {
			continue
		}
		delete(l.repeats, key)
		if r.suppressed > 0 {
			l.line(r.level, r.of).Str("kind", key).Int("suppressed", r.suppressed).Msg(leftOut)
		}
	}
}
