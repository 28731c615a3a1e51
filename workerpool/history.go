package workerpool

import (
	"fmt"
	"time"

	"async-data-processor/event"
)

// historyLimit is how many stopped workers a pool remembers one by one. The
// sums of the older ones are kept in one record, so that a pool that breathes
// for years has a bounded history whose counts still add up.
const historyLimit = 1000

// history is the records of a shard's workers, oldest first.
type history struct {
	shard   int
	seq     int
	records []*event.Worker
	stopped int
	earlier *event.Worker // the sum of the forgotten, nil if none is
}

// add opens the record of a new worker.
func (h *history) add(why string, now time.Time) *event.Worker {
	h.seq++
	r := &event.Worker{
		ID:         fmt.Sprintf("%d-%d", h.shard, h.seq),
		Shard:      h.shard,
		State:      event.Idle,
		Started:    now,
		WhyStarted: why,
	}
	h.records = append(h.records, r)
	return r
}

// stop closes a record, and folds the oldest closed one into the sum when
// there are too many.
func (h *history) stop(r *event.Worker, why string, now time.Time) {
	r.State, r.Stopped, r.WhyStopped = event.Stopped, now, why
	if h.stopped++; h.stopped <= historyLimit {
		return
	}
	for i, old := range h.records {
		if old.State == event.Stopped {
			h.fold(old)
			h.records = append(h.records[:i], h.records[i+1:]...)
			h.stopped--
			return
		}
	}
}

// Fold returns the records of stopped workers of a shard, which come from several pools,
// the oldest first, as a pool does: the last ones, and a sum of those before.
func Fold(records []event.Worker) []event.Worker {
	more := len(records) - historyLimit
	if more <= 1 { // that one may be the sum
		return records
	}
	h := history{shard: records[0].Shard}
	for i := range records[:more] {
		h.fold(&records[i])
	}
	return append([]event.Worker{*h.earlier}, records[more:]...)
}

func (h *history) fold(old *event.Worker) {
	if h.earlier == nil {
		h.earlier = &event.Worker{
			ID: fmt.Sprintf("%d-0", h.shard), Shard: h.shard, State: event.Stopped,
			Started: old.Started, WhyStarted: "sum of earlier workers",
		}
	}
	h.earlier.Stopped, h.earlier.WhyStopped = old.Stopped, old.WhyStopped
	h.earlier.Messages += old.Messages
	h.earlier.Batches += old.Batches
	h.earlier.Duplicates += old.Duplicates
	h.earlier.Dead += old.Dead
	if old.LastFile != "" {
		h.earlier.LastFile = old.LastFile
	}
}

func (h *history) snapshot() []event.Worker {
	all := make([]event.Worker, 0, len(h.records)+1)
	if h.earlier != nil {
		all = append(all, *h.earlier)
	}
	for _, r := range h.records {
		all = append(all, *r)
	}
	return all
}
