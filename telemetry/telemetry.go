// Package telemetry turns events into log lines. It reads them from a queue of
// its own, so a slow log costs lines, never throughput.
package telemetry

import (
	"maps"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/event"
)

// queueSize is how many events may wait for the log. A start of the largest
// number of shards tells some 5,000 at once.
const queueSize = 16384

// Log writes what a hub tells.
type Log struct {
	logger zerolog.Logger
	events *event.Subscription
	ended  chan struct{} // closed when run has returned

	// Only used by run, and by Tell after Close.
	repeats limiter
	dropped uint64 // events, as last told
	status  int    // of the last answer about readiness

	telling sync.Mutex              // guards told
	told    map[string]event.Worker // records as last told, by worker
}

// Start logs the events of the hub until Close.
func Start(hub *event.Hub, logger zerolog.Logger) *Log {
	l := &Log{logger: logger, ended: make(chan struct{})}
	l.events = hub.Subscribe(queueSize, l.wants)
	go l.run()
	return l
}

// Close logs what waits, and ends.
func (l *Log) Close() {
	l.events.Close()
	<-l.ended
}

// Tell logs an event after Close, when the hub no longer does.
func (l *Log) Tell(e event.Event) { l.tell(e) }

func (l *Log) run() {
	defer close(l.ended)
	for e := range l.events.Events() {
		l.tell(e)
		if d := l.events.Dropped(); d != l.dropped {
			l.logger.Warn().Uint64("dropped", d-l.dropped).Msg("the log is too slow, lines are missing")
			l.dropped = d
		}
	}
}

// wants keeps out of the queue what is told at debug level only, and often.
func (l *Log) wants(e event.Event) bool {
	switch e.(type) {
	case event.Submitted, event.Served, event.BatchWritten, event.EnvelopeUndecodable:
		return l.logger.GetLevel() <= zerolog.DebugLevel
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
	e := worker(l.logger.Info(), w).Str("state", string(w.State)).Time("started", w.Started).
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

// repeating returns a line for something that may go on and on, at most one per
// key and repeatInterval; in between nil, which takes fields and writes nothing.
func (l *Log) repeating(level zerolog.Level, key string) *zerolog.Event {
	if level < l.logger.GetLevel() {
		return nil
	}
	suppressed, ok := l.repeats.allow(key, time.Now())
	if !ok {
		return nil
	}
	e := l.logger.WithLevel(level)
	if suppressed > 0 {
		e = e.Int("suppressed", suppressed)
	}
	return e
}

// repeatInterval is how often one kind of trouble is told.
const repeatInterval = 10 * time.Second

// limiter lets one line per key and repeatInterval through. Keys of trouble that
// has ended are forgotten, as some name a shard.
type limiter map[string]repeat

type repeat struct {
	at         time.Time
	suppressed int
}

func (l *limiter) allow(key string, now time.Time) (suppressed int, ok bool) {
	const many = 1000
	r, seen := (*l)[key]
	if seen && now.Sub(r.at) < repeatInterval {
		r.suppressed++
		(*l)[key] = r
		return 0, false
	}
	if *l == nil {
		*l = make(limiter)
	}
	if len(*l) >= many {
		maps.DeleteFunc(*l, func(_ string, r repeat) bool { return now.Sub(r.at) >= repeatInterval })
	}
	(*l)[key] = repeat{at: now}
	return r.suppressed, true
}
