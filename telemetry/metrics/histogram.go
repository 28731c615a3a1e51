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
	// sum is in seconds, as the bits of a float64: the nanoseconds of many messages that
	// wait would overflow.
	sum atomic.Uint64
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
	for more := value.Seconds() * float64(n); ; {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+more)) {
			return
		}
	}
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
	to <- prometheus.MustNewConstHistogram(h.desc, count, math.Float64frombits(h.sum.Load()), cumulative)
}
