// Package metrics counts what a process does, and shows it to Prometheus.
//
// It promises:
//
//   - no number depends on a queue: events are counted where they are sent, and
//     states are read when they are asked for;
//   - nothing that a client sends becomes a label. Labels are the shard, words from lists
//     of this program, and the names of at most 256 jobs, which an operator defines;
//   - counting takes atomic operations, no lock and no allocation.
//
// Names begin with "adp_", units are seconds and bytes.
//
//	metrics.go    the registry and GET /metrics
//	count.go      what is counted, by event
//	state.go      what is read for each scrape
//	histogram.go  the histogram that counts messages
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"async-data-processor/event"
)

const (
	// maxScrapes is how many scrapes are answered at a time; others get 503.
	maxScrapes = 4
	// scrapeTimeout is how long a client may take to read its answer.
	scrapeTimeout = 10 * time.Second
)

// Config says which parts a process has.
type Config struct {
	// Version is that of the program.
	Version string
	// Shards is the number of shards, whose counters are shown from the start.
	Shards int
	// Server and Consumer tell which parts the process has, and Jobs that it has an engine.
	Server, Consumer, Jobs bool
}

// Metrics is what a process counts. Its methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry
	counts
}

// New returns the metrics of a process, which count the events of the hub.
func New(cfg Config, hub *event.Hub) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.counts = newCounts(cfg, m.registry)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "adp_build_info", Help: "The version of the program; the value is 1.",
		ConstLabels: prometheus.Labels{"version": cfg.Version},
	})
	build.Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	hub.Call(m.count)
	return m
}

// Handler returns GET /metrics: the Prometheus text format, or OpenMetrics for a
// client that accepts it. It is called once.
func (m *Metrics) Handler(of State) http.Handler {
	m.registry.MustRegister(of)
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, EnableOpenMetrics: true})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		// An error means that the server's own time-out stays, which is longer.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(scrapeTimeout))
		h.ServeHTTP(w, r)
	})
}
