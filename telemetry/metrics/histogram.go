package metrics

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// histogram counts several observations of one value at once, which the one of
// client_golang cannot: the messages of an envelope have waited for the same time.
type histogram struct {
	desc    *prometheus.Desc
	bounds  []float64       // seconds, ascending
	buckets []atomic.Uint64 // not cumulative; the last one has no bound
	nanos   atomic.Int64    // the sum
}

func newHistogram(name, help string, bounds []float64) *histogram {
	return &histogram{
		desc:    prometheus.NewDesc(name, help, nil, nil),
		bounds:  bounds,
		buckets: make([]atomic.Uint64, len(bounds)+1),
	}
}

// observe counts n observations.
func (h *histogram) observe(value time.Duration, n int) {
	i, _ := slices.BinarySearch(h.bounds, value.Seconds())
	h.buckets[i].Add(uint64(n))
	h.nanos.Add(saturated(value, n))
}

// saturated is value times n. An envelope of another program may be as old as it says.
func saturated(value time.Duration, n int) int64 {
	const most = math.MaxInt64 >> 20 // some hours: many of them fit into the sum
	return int64(min(value, time.Duration(most/max(n, 1)))) * int64(n)
}

// Describe implements prometheus.Collector.
func (h *histogram) Describe(to chan<- *prometheus.Desc) { to <- h.desc }

// Collect implements prometheus.Collector.
func (h *histogram) Collect(to chan<- prometheus.Metric) {
	cumulative, count := make(map[float64]uint64, len(h.bounds)), uint64(0)
	for i := range h.buckets {
		count += h.buckets[i].Load()
		if i < len(h.bounds) {
			cumulative[h.bounds[i]] = count
		}
	}
	to <- prometheus.MustNewConstHistogram(h.desc, count, time.Duration(h.nanos.Load()).Seconds(), cumulative)
}
