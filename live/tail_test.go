package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// TestTailAccounts is the promise of a tail: each message that matches is shown, missed
// or sampled out, whatever the bus and the viewers do.
func TestTailAccounts(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { accounts(t, seed) }) })
	}
}

func accounts(t *testing.T, seed uint64) {
	rig := newTailRig(t)
	rig.seed = seed
	draw := rand.New(rand.NewPCG(seed, 7))
	a, busA := rig.node("node-a")
	b, busB := rig.node("node-bb")
	busA.setLoses(0.1 * float64(seed%3))
	busB.setLoses(0.1 * float64(seed%2))
	looks := []*client{
		newClient(t, a, Query{}),                    // fast
		newClient(t, b, Query{}),                    // slow
		newClient(t, a, Query{}),                    // stalled
		newClient(t, b, Query{}),                    // reconnecting
		newClient(t, a, Query{Rate: 20}),            // sampled
		newClient(t, b, Query{Shards: []int{1, 3}}), // filtered
		newClient(t, b, Query{Rate: 500, Shards: []int{0}}),
	}
	time.Sleep(2 * renewInterval) // all owners have heard of all interests
	for range 40 {
		for range draw.IntN(4) {
			shard := draw.IntN(4)
			owner := a
			if shard >= 2 {
				owner = b
			}
			rig.pass(owner, shard, 1+draw.IntN(40), strings.Repeat(" ", draw.IntN(100)))
		}
		time.Sleep(time.Duration(draw.IntN(300)) * time.Millisecond)
		for i, l := range looks {
			switch i {
			case 1:
				l.read(draw.IntN(30))
			case 2: // it reads nothing
			case 3:
				l.read(draw.IntN(60))
				if draw.IntN(5) == 0 {
					l.viewer.Close()
					if draw.IntN(2) == 0 {
						time.Sleep(time.Duration(draw.IntN(10_000)) * time.Millisecond)
					}
					l.connect()
				}
			default:
				l.read(1000)
			}
		}
	}
	busA.setLoses(0)
	busB.setLoses(0)
	time.Sleep(3 * stillInterval) // the owners have told their last counts
	for i, l := range looks {
		want := 0
		for shard := range 4 {
			if l.viewer.stream.filter.wants(shard) {
				want += rig.passed[shard]
			}
		}
		for l.read(1000) > 0 {
		}
		time.Sleep(sampleInterval) // what was sampled out last is told
		l.read(1000)
		// A lease that ends because all that renews it is lost is told, and its loss has no number.
		known := l.unknown == 0 || seed%6 == 0
		if l.matched() != uint64(want) && known || l.matched() > uint64(want) {
			t.Errorf("viewer %d: %d match, want %d; %d unknown gaps", i, l.matched(), want, l.unknown)
		}
		if all := l.sent + l.missed; l.query.Rate == 0 && all != l.matched() || all > l.matched() {
			t.Errorf("viewer %d: %d shown and %d missed of %d", i, l.sent, l.missed, l.matched())
		}
		if i == 0 && seed%6 == 0 && l.missed > 0 {
			t.Errorf("a fast viewer misses %d without any loss", l.missed)
		}
		l.viewer.Close()
	}
}

// TestStalledViewer: a viewer that takes nothing, and a bus that hangs, cost a writer no
// time, and no memory beyond the bounds.
func TestStalledViewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, bus := rig.node("a")
		l := newClient(t, a, Query{})
		synctest.Wait()
		release := bus.hang()
		rig.pass(a, 0, 1, "")
		time.Sleep(tellInterval) // the tap's goroutine hangs from now on
		began := time.Now()
		late := time.AfterFunc(time.Minute, release) // a writer that waits is to tell how long
		for range 2000 {
			rig.pass(a, 0, 100, strings.Repeat(" ", 100))
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("writers have waited for %v", took)
		}
		if held := a.owner.bytes.Load(); held > maxQueuedBytes {
			t.Errorf("%d bytes wait", held)
		}
		if late.Stop() {
			release()
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := len(l.viewer.queue); n > maxWaitingEvents || l.viewer.bytes > maxWaitingBytes {
			t.Errorf("%d events wait, %d bytes", n, l.viewer.bytes)
		}
		for l.read(100) > 0 {
		}
		if want := uint64(rig.passed[0]); l.matched() != want || l.sent+l.missed != want || l.sent == 0 {
			t.Errorf("%d match, %d were shown, %d missed; want %d", l.matched(), l.sent, l.missed, want)
		}
		l.viewer.Close()
	})
}

// TestNothingTravels: without viewers no entry is told, and after the last one none
// longer than its stream lingers.
func TestNothingTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, busA := rig.node("a")
		b, busB := rig.node("b")
		rig.pass(a, 0, 10, "")
		time.Sleep(time.Minute)
		if a.Watched(StageWritten) || busA.toldTo("tail.") != 0 {
			t.Fatal("something is told without a viewer")
		}
		l := newClient(t, b, Query{})
		synctest.Wait()
		if !a.Watched(StageWritten) || a.Watched(StageDead) || a.Watched(StageAccepted) {
			t.Error("an owner has to watch the stage of its taps, and no other")
		}
		rig.pass(a, 0, 10, "")
		time.Sleep(time.Second)
		if l.read(100); l.sent != 10 {
			t.Errorf("%d of 10 were shown", l.sent)
		}
		l.viewer.Close()
		time.Sleep(lingerTime + renewInterval)
		synctest.Wait()
		if a.Watched(StageWritten) {
			t.Error("the tap is there after its viewers")
		}
		before := busA.toldTo("tail.entries") + busB.toldTo("tail.")
		rig.pass(a, 0, 10, "")
		time.Sleep(time.Minute)
		if after := busA.toldTo("tail.entries") + busB.toldTo("tail."); after != before {
			t.Errorf("%d bodies without a viewer", after-before)
		}
	})
}

// TestLease: a tap ends when nothing is heard of its node any more.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, bus := rig.node("a")
		body := interestOf(1, Query{})
		_ = bus.Bus.Tell(tapInterestTopic, body)
		synctest.Wait()
		time.Sleep(lease - time.Millisecond)
		if all, _ := a.taps(""); all != 1 || !a.Watched(StageWritten) {
			t.Error("the tap ends before its lease")
		}
		time.Sleep(2 * tellInterval)
		synctest.Wait()
		before := bus.toldTo("tail.entries")
		rig.pass(a, 0, 1, "")
		time.Sleep(time.Second)
		if a.Watched(StageWritten) || bus.toldTo("tail.entries") != before {
			t.Error("the tap outlives its lease")
		}
		if all, _ := a.taps(""); all > 0 {
			t.Errorf("%d taps are left", all)
		}
	})
}

// interestOf is an interest of a node that nothing else is heard of.
func interestOf(seq uint64, q Query) []byte {
	f, err := q.compile()
	if err != nil {
		panic(err)
	}
	body, _ := json.Marshal(tapInterest{V: broker.BusVersion, Node: "other", Seq: seq, Hub: message.NewID(), Tap: message.NewID(), Filter: f.Filter})
	return body
}

// TestDrain: a viewer has its last frame at once, with counts that are right.
func TestTailDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, _ := rig.node("a")
		l := newClient(t, a, Query{})
		synctest.Wait()
		rig.pass(a, 0, 300, "")
		time.Sleep(time.Second)
		l.read(3)
		a.Drain()
		if _, err := a.View(Query{}); !errors.Is(err, ErrTailEnded) {
			t.Error(err)
		}
		for l.read(1) > 0 {
		}
		_, err := l.viewer.Next(t.Context())
		last := l.frames[len(l.frames)-1]
		if !errors.Is(err, io.EOF) || last.Data != (Bye{ByeDrain, retryMS}) || l.matched() != 300 || l.sent+l.missed != 300 {
			t.Errorf("%v, %v; %d match, %d were shown, %d missed", err, last, l.matched(), l.sent, l.missed)
		}
		l.viewer.Close()
		l.viewer.Close()
	})
}
