package metrics

import (
	"cmp"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"async-data-processor/event"
)

// Bounds of histograms, in seconds.
var (
	// requestBounds go to the publish time-out and beyond.
	requestBounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	// diskBounds begin with a fast disk, and end with the time-out of a worker.
	diskBounds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30}
	// runBounds are for whatever jobs do.
	runBounds = []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600, 21600, 86400}
	// waitBounds are for the whole way. After an hour only the backlog counts.
	waitBounds = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 1.5, 2.5, 5, 10, 30, 60, 300, 1800, 3600}
)

// totals count messages.
type totals struct{ accepted, written, dead atomic.Int64 }

// counts is what is counted. A part that the process does not have is nil.
type counts struct {
	totals *totals

	requests  *requests
	submitted prometheus.Counter
	accepted  *perShard
	publish   prometheus.Histogram

	written, duplicates, dead, redelivered *perShard

	batches          map[string]prometheus.Counter // by cause; read-only
	returned         prometheus.Counter
	write, fsync     prometheus.Histogram
	wait             *histogram
	started, stopped map[string]prometheus.Counter // by reason; read-only

	connected, lost map[string]prometheus.Counter // by role; read-only

	attempts map[string]prometheus.Counter // of runs, by outcome; read-only
	took     prometheus.Histogram
}

func newCounts(cfg Config, r *prometheus.Registry) counts {
	c := counts{
		totals:    new(totals),
		requests:  newRequests(r),
		connected: byWord(r, "adp_broker_connects_total", "Connections to the broker that were made.", "role", "publish", "consume", "bus", other),
		lost:      byWord(r, "adp_broker_connections_lost_total", "Connections to the broker that were lost.", "role", "publish", "consume", "bus", other),
	}
	if cfg.Server {
		c.submitted = counter(r, "adp_submissions_total", "Submissions answered with 201.")
		c.accepted = newPerShard(r, cfg.Shards, "adp_messages_accepted_total", "Messages of submissions answered with 201.")
		c.publish = newSeconds(r, "adp_publish_seconds", "How long the broker took to confirm envelopes that were published together.", requestBounds)
	}
	if cfg.Jobs {
		c.attempts = byWord(r, "adp_run_attempts_total", "Attempts of runs that have ended, by outcome: failed is an exit code other than 0.", "outcome",
			"succeeded", "failed", "timed-out", "cancelled", "fault", "fenced", "returned", "lost", other)
		c.took = newSeconds(r, "adp_run_duration_seconds", "How long attempts took from the start of the process to its end.", runBounds)
	}
	if !cfg.Consumer {
		return c
	}
	c.written = newPerShard(r, cfg.Shards, "adp_messages_written_total", "Messages written to files by this process.")
	c.duplicates = newPerShard(r, cfg.Shards, "adp_messages_duplicate_total", "Messages not written because they were in a file already.")
	c.dead = newPerShard(r, cfg.Shards, "adp_dead_letters_total", "Dead letters that this process has made. RabbitMQ makes those beyond the delivery limit itself.")
	c.redelivered = newPerShard(r, cfg.Shards, "adp_envelopes_redelivered_total", "Envelopes received that had been handed out before.")
	c.batches = byWord(r, "adp_batches_total", "Batches written, by why they were handed over.", "cause", "full", "lingered", "flushed", other)
	c.returned = counter(r, "adp_batches_returned_total", "Batches that went back to the broker unwritten.")
	c.write = newSeconds(r, "adp_batch_write_seconds", "How long a batch took to become durable, attempts that failed included.", diskBounds)
	c.fsync = newSeconds(r, "adp_fsync_seconds", "How long an fsync of a file or a folder took.", diskBounds)
	c.wait = newHistogram("adp_accept_to_file_seconds", "How long messages took from their acceptance until they were durable in a file, duplicates of a batch included.", waitBounds)
	r.MustRegister(c.wait)
	c.started = byWord(r, "adp_workers_started_total", "Workers started, by reason.", "reason", "minimum", "backlog", other)
	c.stopped = byWord(r, "adp_workers_stopped_total", "Workers stopped, by reason.", "reason", "idle", "drained", "timed-out", "cancelled", "resized", "panicked", other)
	return c
}

// count counts an event, on the goroutine of its sender.
func (c *counts) count(e event.Event) {
	switch e := e.(type) {
	case event.Submitted:
		c.requests.count(&e.Request, "ok")
		if c.submitted != nil {
			c.submitted.Inc()
		}
	case event.Refused:
		c.requests.count(&e.Request, e.Kind)
	case event.Served:
		c.requests.count(&e.Request, "ok")
	case event.Probed:
		outcome := "ok"
		if e.Err != nil {
			outcome = "unavailable"
		}
		c.requests.count(&e.Request, outcome)
	case event.Connection:
		switch e.State {
		case event.Connected:
			known(c.connected, e.Role).Inc()
		case event.Lost:
			known(c.lost, e.Role).Inc()
		}
	case event.RunEnded, event.RunLost:
		if c.attempts != nil {
			c.attempted(e)
		}
	default:
		if c.wait != nil {
			c.consumed(e)
		}
	}
}

// attempted counts the end of an attempt.
func (c *counts) attempted(e event.Event) {
	switch e := e.(type) {
	case event.RunEnded:
		outcome := e.Outcome
		switch {
		case outcome == "exited" && e.Exit == 0:
			outcome = "succeeded"
		case outcome == "exited":
			outcome = "failed"
		}
		known(c.attempts, outcome).Inc()
		if e.Took > 0 {
			c.took.Observe(e.Took.Seconds())
		}
	case event.RunLost:
		known(c.attempts, "lost").Inc()
	}
}

// consumed counts an event of a consumer.
func (c *counts) consumed(e event.Event) {
	switch e := e.(type) {
	case event.BatchWritten:
		c.written.add(e.Worker.Shard, e.Messages)
		c.totals.written.Add(int64(e.Messages))
		c.duplicates.add(e.Worker.Shard, e.Duplicates)
		c.write.Observe(e.Took.Seconds())
		known(c.batches, e.Cause).Add(float64(e.Batches))
	case event.BatchReturned:
		c.returned.Inc()
	case event.DeadLettered:
		c.dead.add(e.Shard, 1)
		c.totals.dead.Add(1)
	case event.Redelivered:
		c.redelivered.add(e.Shard, 1)
	case event.WorkerStarted:
		word(c.started, startReasons, e.Worker.WhyStarted).Inc()
	case event.WorkerStopped:
		word(c.stopped, stopReasons, e.Worker.WhyStopped).Inc()
	}
}

// Accepted counts the messages of a submission that was accepted.
func (m *Metrics) Accepted(shard, messages int) {
	m.accepted.add(shard, messages)
	m.totals.accepted.Add(int64(messages))
}

// Totals returns how many messages were accepted, written and made dead letters.
func (m *Metrics) Totals() (accepted, written, dead int64) {
	return m.totals.accepted.Load(), m.totals.written.Load(), m.totals.dead.Load()
}

// Published counts envelopes that were published together.
func (m *Metrics) Published(took time.Duration) { m.publish.Observe(took.Seconds()) }

// Written counts messages that were accepted so long before they were durable.
func (m *Metrics) Written(wait time.Duration, messages int) { m.wait.observe(max(wait, 0), messages) }

// Synced counts an fsync.
func (m *Metrics) Synced(took time.Duration) { m.fsync.Observe(took.Seconds()) }

// other stands for a word that is in no list.
const other = "other"

// What the history says of workers, and the label for it.
var (
	startReasons = [][2]string{{"minimum", "minimum"}, {"batches wait", "backlog"}}
	stopReasons  = [][2]string{{"idle", "idle"}, {"drained", "drained"}, {"timed out", "timed-out"}, {"cancelled", "cancelled"}, {"resized", "resized"}, {"panicked", "panicked"}}
)

// word returns the counter of the reason that why begins with.
func word(of map[string]prometheus.Counter, reasons [][2]string, why string) prometheus.Counter {
	for _, r := range reasons {
		if strings.HasPrefix(why, r[0]) {
			return of[r[1]]
		}
	}
	return of[other]
}

// known returns the counter of a word, or that of other words.
func known(of map[string]prometheus.Counter, word string) prometheus.Counter {
	if c := of[word]; c != nil {
		return c
	}
	return of[other]
}

func counter(r *prometheus.Registry, name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	r.MustRegister(c)
	return c
}

func newSeconds(r *prometheus.Registry, name, help string, bounds []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds})
	r.MustRegister(h)
	return h
}

// byWord returns a counter for each value of a label.
func byWord(r *prometheus.Registry, name, help, label string, words ...string) map[string]prometheus.Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	r.MustRegister(vec)
	of := make(map[string]prometheus.Counter, len(words))
	for _, w := range words {
		of[w] = vec.WithLabelValues(w)
	}
	return of
}

// perShard is a counter for each shard.
type perShard struct {
	vec *prometheus.CounterVec
	own []prometheus.Counter // without the vector's lock
}

func newPerShard(r *prometheus.Registry, shards int, name, help string) *perShard {
	p := &perShard{
		vec: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"shard"}),
		own: make([]prometheus.Counter, shards),
	}
	r.MustRegister(p.vec)
	for n := range p.own {
		p.own[n] = p.vec.WithLabelValues(strconv.Itoa(n))
	}
	return p
}

// add counts n of a shard. One beyond the number of shards has a queue, and there are
// few of those.
func (p *perShard) add(shard, n int) {
	switch {
	case n == 0 || shard < 0:
	case shard < len(p.own):
		p.own[shard].Add(float64(n))
	default:
		p.vec.WithLabelValues(strconv.Itoa(shard)).Add(float64(n))
	}
}

// requests is the counters of HTTP requests. Their labels are the routes and the
// problems of the server, which are few: maxRequests bounds them all the same.
type requests struct {
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec

	known  atomic.Pointer[map[request]counted] // a map is never changed
	adding sync.Mutex                          // held to replace known
}

type request struct{ route, outcome string }

type counted struct {
	total   prometheus.Counter
	seconds prometheus.Observer
}

// maxRequests is how many pairs of route and outcome have counters of their own.
const maxRequests = 512

func newRequests(r *prometheus.Registry) *requests {
	q := &requests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "adp_http_requests_total", Help: "HTTP requests answered, by resource and outcome: ok, or the kind of the problem.",
		}, []string{"route", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "adp_http_request_seconds", Help: "How long requests took from the end of their header to the answer.", Buckets: requestBounds,
		}, []string{"route"}),
	}
	q.known.Store(&map[request]counted{})
	r.MustRegister(q.total, q.seconds)
	return q
}

// count counts an answered request.
func (q *requests) count(r *event.Request, outcome string) {
	key := request{r.Route, outcome}
	c, ok := (*q.known.Load())[key]
	if !ok {
		c = q.add(key)
	}
	c.total.Inc()
	c.seconds.Observe(r.Elapsed.Seconds())
}

// add makes the counters of a pair that is new.
func (q *requests) add(key request) counted {
	q.adding.Lock()
	defer q.adding.Unlock()
	known := *q.known.Load()
	if c, ok := known[key]; ok {
		return c // by another caller meanwhile
	}
	if len(known) >= maxRequests {
		return q.of(request{})
	}
	more := maps.Clone(known)
	more[key] = q.of(key)
	q.known.Store(&more)
	return more[key]
}

// of returns the counters of a pair, whose words may be missing.
func (q *requests) of(key request) counted {
	route, outcome := cmp.Or(key.route, other), cmp.Or(key.outcome, other)
	return counted{q.total.WithLabelValues(route, outcome), q.seconds.WithLabelValues(route)}
}
