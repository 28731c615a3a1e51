package main

import (
	"math"
	"sync/atomic"
	"time"
)

// durations counts durations from a microsecond to half a minute, to a few percent.
type durations struct {
	counts [durationBuckets]atomic.Int64
}

const (
	// There are so many buckets to a factor of e, so each is 4 % wide.
	durationSteps   = 25
	durationBuckets = 18 * durationSteps
)

func (d *durations) add(took time.Duration) {
	i := int(math.Log(float64(took)/float64(time.Microsecond)) * durationSteps)
	d.counts[min(max(i, 0), durationBuckets-1)].Add(1)
}

// quantile returns the duration within which that part of all were; 0 if there were none.
func (d *durations) quantile(part float64) time.Duration {
	total := int64(0)
	for i := range d.counts {
		total += d.counts[i].Load()
	}
	rank := int64(math.Ceil(part * float64(total)))
	for i := range d.counts {
		if rank -= d.counts[i].Load(); rank <= 0 && total > 0 {
			return time.Duration(math.Exp(float64(i+1)/durationSteps) * float64(time.Microsecond))
		}
	}
	return 0
}
