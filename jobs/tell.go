package jobs

import (
	"context"
	"slices"
	"sync"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/jobs/store"
)

const (
	// tellPause is the least time between two tellings.
	tellPause = 100 * time.Millisecond
	// maxTold is how many runs are told at once; of the others it is told that there are some.
	maxTold = 200
	// maxToldWhy bounds the reason of a run that is told, in bytes.
	maxToldWhy = 500
)

// teller tells on the bus what has changed. Its methods do not wait.
type teller struct {
	woken chan struct{} // it holds one wake-up

	mu   sync.Mutex // guards what follows
	next Changed
}

// add has runs told, each as it is in the end.
func (t *teller) add(runs []store.Run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range runs {
		v := viewOf(r)
		v.Args, v.Why = nil, broker.Clip(v.Why, maxToldWhy)
		// The last news of a run is at the end, so that the oldest ones are given up.
		t.next.Runs = slices.DeleteFunc(t.next.Runs, func(old RunView) bool { return old.ID == v.ID })
		t.next.Runs = append(t.next.Runs, v)
	}
	if over := len(t.next.Runs) - maxTold; over > 0 {
		t.next.Runs = slices.Delete(t.next.Runs, 0, over)
		t.next.More = true
	}
	wake(t.woken)
}

// change has something told.
func (t *teller) change(edit func(*Changed)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	edit(&t.next)
	wake(t.woken)
}

func (t *teller) more()           { t.change(func(c *Changed) { c.More = true }) }
func (t *teller) runnersChanged() { t.change(func(c *Changed) { c.Runners = true }) }
func (t *teller) jobsChanged()    { t.change(func(c *Changed) { c.Jobs = true }) }

// run tells until ctx ends. What cannot be told is lost: who shows it asks again when
// the bus is there.
func (t *teller) run(ctx context.Context, node func() string, bus broker.Bus) {
	for {
		select {
		case <-t.woken:
		case <-ctx.Done():
			return
		}
		t.mu.Lock()
		c := t.next
		t.next = Changed{}
		t.mu.Unlock()
		c.V, c.Node = broker.BusVersion, node()
		body := broker.Body(c)
		if len(body) > broker.MaxBusBody { // files and keys have long names
			c.Runs, c.More = nil, true
			body = broker.Body(c)
		}
		_ = bus.Tell(changedTopic, body)
		if !backoff.Sleep(ctx, tellPause) {
			return
		}
	}
}
