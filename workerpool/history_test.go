package workerpool

import (
	"fmt"
	"testing"
	"time"

	"async-data-processor/event"
)

// TestHistoryFolds: beyond the limit the oldest of the stopped become a sum,
// and the sums over the history stay what they were.
func TestHistoryFolds(t *testing.T) {
	h := history{shard: 2}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }

	veteran := h.add("first", at(0)) // outlives all others
	const others = historyLimit + 500
	for i := 1; i <= others; i++ {
		r := h.add("more", at(i))
		r.Messages, r.Batches, r.Duplicates, r.Dead, r.LastFile = int64(i), 1, 2, 3, fmt.Sprint("file ", i)
		h.stop(r, fmt.Sprint("reason ", i), at(i+1))
		if i == historyLimit && len(h.snapshot()) != historyLimit+1 {
			t.Errorf("%d records at the limit, want all and no sum", len(h.snapshot()))
		}
	}

	all := h.snapshot()
	if len(all) != historyLimit+2 {
		t.Fatalf("%d records, want %d stopped, one alive and a sum", len(all), historyLimit)
	}
	sum := event.Worker{
		ID: "2-0", Shard: 2, State: event.Stopped, Started: at(1), Stopped: at(501),
		WhyStarted: "sum of earlier workers", WhyStopped: "reason 500",
		Messages: 500 * 501 / 2, Batches: 500, Duplicates: 1000, Dead: 1500, LastFile: "file 500",
	}
	if all[0] != sum {
		t.Errorf("the sum is\n%+v, want\n%+v", all[0], sum)
	}
	if all[1].ID != "2-1" || all[1].State != event.Idle {
		t.Errorf("the worker that lives is %+v", all[1])
	}
	var messages, batches int64
	seen := make(map[string]bool)
	for i, w := range all {
		messages, batches = messages+w.Messages, batches+w.Batches
		if seen[w.ID] {
			t.Errorf("id %s twice", w.ID)
		}
		seen[w.ID] = true
		if want := fmt.Sprint("2-", 500+i); i > 1 && w.ID != want {
			t.Errorf("record %d is %s, want %s", i, w.ID, want)
		}
	}
	if want := int64(others * (others + 1) / 2); messages != want || batches != others {
		t.Errorf("%d messages in %d batches, want %d in %d", messages, batches, want, others)
	}

	// A worker without a file leaves the sum's last file alone. It is also the
	// oldest, although it stopped last.
	h.stop(veteran, "retired", at(10_000))
	if sum := h.snapshot()[0]; sum.LastFile != "file 500" || sum.WhyStopped != "retired" {
		t.Errorf("the sum is %+v", sum)
	}
}

// TestSnapshotIsACopy: a reader of the history does not see it change.
func TestSnapshotIsACopy(t *testing.T) {
	var h history
	r := h.add("minimum", time.Now())
	before := h.snapshot()
	r.State = event.Busy
	h.stop(h.add("more", time.Now()), "idle", time.Now())
	if len(before) != 1 || before[0].State != event.Idle {
		t.Errorf("the snapshot has become %+v", before)
	}
}

// TestFold: the records of many pools of a shard become as many as those of one, and the
// sums stay what they were.
func TestFold(t *testing.T) {
	var past []event.Worker
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const pools, workers = 700, 3
	for n := range pools {
		for i := range workers {
			at := start.Add(time.Duration(n) * time.Minute)
			past = append(past, event.Worker{
				ID: fmt.Sprintf("4-%d", n*workers+i+1), Shard: 4, State: event.Stopped, Started: at, Stopped: at.Add(time.Second),
				Messages: 5, Batches: 2, Duplicates: 1, Dead: 1, LastFile: fmt.Sprint("file ", n),
			})
		}
		past = Fold(past)
		if len(past) > historyLimit+1 {
			t.Fatalf("%d records after %d pools", len(past), n+1)
		}
	}
	sums := event.Worker{}
	for _, w := range past {
		sums.Messages += w.Messages
		sums.Batches += w.Batches
		sums.Duplicates += w.Duplicates
		sums.Dead += w.Dead
	}
	if want := int64(pools * workers); sums.Messages != 5*want || sums.Batches != 2*want || sums.Duplicates != want || sums.Dead != want {
		t.Errorf("the sums are %+v", sums)
	}
	if sum, last := past[0], past[len(past)-1]; sum.ID != "4-0" || sum.Shard != 4 || !sum.Started.Equal(start) || sum.State != event.Stopped || last.ID != fmt.Sprint("4-", pools*workers) {
		t.Errorf("the first is %+v, the last %+v", sum, last)
	}
	if Fold(nil) != nil {
		t.Error("there is a sum of nothing")
	}
}
