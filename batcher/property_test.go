package batcher_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/batcher"
	"async-data-processor/message"
)

// TestProperties runs random loads against random batchers: what comes out is
// what went in, in its order and in batches within bounds, and each delivery
// is settled once, with the heaviest outcome of its batches.
func TestProperties(t *testing.T) {
	t.Logf("repeat with -seed=%d", *seed)
	rounds := 500
	if testing.Short() {
		rounds = 50
	}
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(*seed, uint64(round)))
		synctest.Test(t, func(t *testing.T) { newTrial(rnd).run(t) })
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

// trial is one random load.
type trial struct {
	cfg     batcher.Config
	parcels []*parcel
	gaps    []time.Duration // before each parcel
	// eager workers take every batch at once; others take pauses.
	eager  bool
	pauses []time.Duration
	fates  []message.OutcomeKind // of each batch
	rnd    *rand.Rand

	arrived []time.Time // by message; set before the batcher has it
	batches []*message.Batch
	left    []time.Time // by batch
}

func newTrial(rnd *rand.Rand) *trial {
	// Gaps and pauses are multiples of the linger's parts, so that timers,
	// deliveries and workers often meet in one instant.
	const tick = time.Millisecond
	ticks := func(n int) time.Duration { return time.Duration(rnd.IntN(n+1)) * tick }
	tr := &trial{
		cfg:   batcher.Config{Size: 1 + rnd.IntN(8), Together: rnd.IntN(30), Linger: ticks(4)},
		eager: rnd.IntN(2) == 0,
		rnd:   rnd,
	}
	messages := 0
	for range rnd.IntN(40) {
		n := 1 + rnd.IntN(3*max(tr.cfg.Size, tr.cfg.Together/2))
		tr.parcels = append(tr.parcels, pack(messages, n))
		tr.gaps = append(tr.gaps, ticks(2))
		messages += n
	}
	tr.arrived = make([]time.Time, messages)
	for range messages + 1 {
		tr.pauses = append(tr.pauses, ticks(6))
		fate := message.Ack
		if rnd.IntN(10) == 0 {
			fate = message.Return
		}
		tr.fates = append(tr.fates, fate)
	}
	return tr
}

func (tr *trial) run(t *testing.T) {
	deliveries, batches := make(chan batcher.Opened), make(chan *message.Batch)
	go batcher.Run(tr.cfg, deliveries, batches)
	go func() {
		defer close(deliveries)
		first := 0
		for i, p := range tr.parcels {
			time.Sleep(tr.gaps[i])
			for j := range p.Messages {
				tr.arrived[first+j] = time.Now()
			}
			first += len(p.Messages)
			deliveries <- p.Opened
		}
	}()
	for b := range batches {
		tr.batches = append(tr.batches, b)
		tr.left = append(tr.left, time.Now())
		if !tr.eager {
			time.Sleep(tr.pauses[len(tr.batches)])
		}
	}
	tr.settle(t)
	tr.check(t)
}

// settle resolves the batches all at once, each with its fate.
func (tr *trial) settle(t *testing.T) {
	for _, p := range tr.parcels {
		if got := p.settled(); len(got) != 0 {
			t.Errorf("a delivery is settled with %v before its batches", got)
		}
	}
	var workers sync.WaitGroup
	for _, i := range tr.rnd.Perm(len(tr.batches)) {
		workers.Go(func() { settle(t, tr.batches[i], tr.fates[i]) })
	}
	workers.Wait()
}

func (tr *trial) check(t *testing.T) {
	var want, got []string
	for _, p := range tr.parcels {
		want = append(want, ids(p.Messages)...)
	}
	fate := make([]message.OutcomeKind, 0, len(want)) // by message
	for i, b := range tr.batches {
		n, first := len(b.Messages), len(got)
		got = append(got, ids(b.Messages)...)
		fate = append(fate, slices.Repeat([]message.OutcomeKind{tr.fates[i]}, n)...)
		if n < 1 || n > max(tr.cfg.Size, tr.cfg.Together) || b.Size != tr.cfg.Size {
			t.Fatalf("batch %d of %d messages, size %d: %+v", i, n, b.Size, tr.cfg)
		}
		if n > tr.cfg.Size && n%tr.cfg.Size != 0 {
			t.Fatalf("batch %d of %d messages, an incomplete one of %d went with full ones", i, n, tr.cfg.Size)
		}
		if full := n >= tr.cfg.Size; full != (b.Cause == message.Full) {
			t.Errorf("batch %d of %d messages is %v, size %d", i, n, b.Cause, tr.cfg.Size)
		}
		if b.Cause == message.Flushed && i != len(tr.batches)-1 {
			t.Errorf("batch %d of %d is flushed", i, len(tr.batches))
		}
		waited := tr.left[i].Sub(tr.arrived[first])
		if tr.eager && waited > tr.cfg.Linger {
			t.Errorf("the first message of batch %d waited for %v, linger %v", i, waited, tr.cfg.Linger)
		}
		if b.Cause == message.Lingered && waited < tr.cfg.Linger {
			t.Errorf("batch %d lingered for %v, want %v", i, waited, tr.cfg.Linger)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("out came\n%v, in went\n%v", got, want)
	}
	first := 0
	for i, p := range tr.parcels {
		end := first + len(p.Messages)
		heaviest := slices.Max(fate[first:end])
		if got := p.settled(); len(got) != 1 || got[0].Kind != heaviest {
			t.Errorf("delivery %d is settled with %v, want once with %v", i, got, heaviest)
		}
		first = end
	}
}
