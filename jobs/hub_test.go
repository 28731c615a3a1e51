package jobs

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// TestSession runs a job as a runner does, and looks at all that is told of it.
func TestSession(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e := rg.start("node-1", rg.store)
		p, welcome := e.connect("r1", 2, []string{"b", "a"})
		if welcome.Node != "node-1" || len(welcome.Definitions) != 4 || welcome.Definitions[0].Name != "hello" || len(welcome.Attempts) != 0 {
			t.Errorf("got %+v", welcome)
		}
		run := e.create("hello")
		offer := p.hear(frame.Offer)
		if offer.Run != run.ID || offer.Attempt != 1 || offer.Job != "hello" || string(offer.Args) != `{"a":1}` {
			t.Errorf("got %+v", offer)
		}
		if got := rg.run(run.ID); got.State != store.Leased || got.Runner != "r1" || got.Engine != "node-1" {
			t.Errorf("after the offer the run is %+v", got)
		}
		p.take(offer)
		if got := rg.run(run.ID); got.State != store.Running {
			t.Errorf("after the take the run is %+v", got)
		}
		v := e.Runners()
		if len(v) != 1 || v[0].ID != "r1" || v[0].Slots != 2 || v[0].Busy != 1 || !v[0].Working || !slices.Equal(v[0].Runs, []int64{run.ID}) || v[0].Engine != "node-1" || !slices.Equal(v[0].Labels, []string{"a", "b"}) {
			t.Errorf("the runner is %+v", v)
		}
		for _, part := range []struct {
			offset int64
			data   string
			next   int64
		}{{0, "one\n", 4}, {0, "one\n", 4}, {4, "two\n", 8}} {
			p.say(frame.Frame{Type: frame.Log, Run: run.ID, Attempt: 1, Offset: part.offset, Data: []byte(part.data)})
			if f := p.hear(frame.Log); f.Run != run.ID || f.Attempt != 1 || f.Offset != part.next {
				t.Errorf("got %+v", f)
			}
		}
		p.say(frame.Frame{Type: frame.BeatFrame, Seq: 7, Attempts: []frame.Attempt{{Run: run.ID, Attempt: 1}}})
		if f := p.hear(frame.BeatFrame); f.Seq != 7 || len(f.Attempts) != 1 || f.Attempts[0].Run != run.ID {
			t.Errorf("got %+v", f)
		}
		p.say(frame.Frame{Type: frame.End, Run: run.ID, Attempt: 1, Outcome: frame.Exited, Offset: 8})
		p.hear(frame.End)
		p.say(frame.Frame{Type: frame.End, Run: run.ID, Attempt: 1, Outcome: frame.Exited, Offset: 8}) // the answer may be lost
		p.hear(frame.End)
		if got := rg.run(run.ID); got.State != store.Succeeded {
			t.Errorf("after the end the run is %+v", got)
		}
		log, err := rg.store.Log(context.Background(), run.ID, 1, 0, 100)
		must(t, err)
		if string(log.Data) != "one\ntwo\n" || !log.Whole {
			t.Errorf("the log is %+v", log)
		}
		if v := e.Runners(); v[0].Busy != 0 || v[0].Working {
			t.Errorf("the runner is %+v", v)
		}
		time.Sleep(time.Second)
		p.leave()
		e.stop()
		if c := eventsOf[event.RunnerConnected](rg); len(c) != 1 || c[0].Runner != "r1" || c[0].Slots != 2 {
			t.Errorf("told %+v", c)
		}
		if c := eventsOf[event.RunEnded](rg); len(c) == 0 || c[0].Run != run.ID || c[0].State != "succeeded" || c[0].Outcome != "exited" {
			t.Errorf("told %+v", c)
		}
		if c := eventsOf[event.RunnerGone](rg); len(c) != 1 || c[0].Why == "" {
			t.Errorf("told %+v", c)
		}
		states := make(map[store.State]bool)
		for _, body := range rg.bus.told {
			var c Changed
			must(t, json.Unmarshal(body, &c))
			if c.V != 1 || c.Node != "node-1" {
				t.Errorf("told %s", body)
			}
			for _, r := range c.Runs {
				states[r.State] = true
			}
		}
		if !states[store.Succeeded] {
			t.Errorf("told the states %v", states)
		}
	})
}

// TestOfferSlots: a runner gets no more runs than it has free slots, and those for which
// it has the labels.
func TestOfferSlots(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(2)
		for range 4 {
			e.create("hello")
		}
		gpu := e.create("gpu")
		first, second := p.hear(frame.Offer), p.hear(frame.Offer)
		p.silent(5 * time.Second)
		p.take(first)
		p.take(second)
		p.silent(time.Minute)
		p.end(first, frame.Exited, 0, frame.End)
		third := p.hear(frame.Offer)
		p.silent(5 * time.Second)
		q, _ := e.connect("r2", 64, []string{"gpu", "big"})
		jobs := []string{q.hear(frame.Offer).Job, q.hear(frame.Offer).Job}
		slices.Sort(jobs)
		if !slices.Equal(jobs, []string{"gpu", "hello"}) {
			t.Errorf("the other runner is offered %v", jobs)
		}
		if third.Run == gpu.ID {
			t.Error("a runner is offered a run whose labels it lacks")
		}
		e.stop()
		p.wantClose(closeDrain, "the engine stops")
		q.wantClose(closeDrain, "the engine stops")
	})
}

// TestOfferUnanswered: an offer without an answer goes to another runner, and nothing that
// the first one says of it counts then: it must not start.
func TestOfferUnanswered(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(1)
		run := e.create("hello")
		offer := p.hear(frame.Offer)
		p.say(frame.Frame{Type: frame.Drain})
		time.Sleep(frame.OfferTimeout + 2*time.Second)
		if got := rg.run(run.ID); got.State != store.Queued || got.Spent != 0 || got.Attempt != 1 {
			t.Fatalf("the run is %+v", got)
		}
		rg.set("due = 0")
		q, _ := e.connect("r2", 1, nil)
		again := q.hear(frame.Offer)
		if again.Run != run.ID || again.Attempt != 2 {
			t.Errorf("got %+v", again)
		}
		p.say(frame.Frame{Type: frame.Take, Run: offer.Run, Attempt: offer.Attempt})
		if f := p.hear(frame.Stale); f.Run != run.ID || f.Attempt != 1 {
			t.Errorf("got %+v", f)
		}
		p.end(offer, frame.Exited, 0, frame.Stale)
		q.take(again)
		if got := rg.run(run.ID); got.State != store.Running || got.Runner != "r2" {
			t.Errorf("the run is %+v", got)
		}
	})
}

// TestOfferToOneThatGoes: what a runner was offered and has not taken is free at once when
// it goes, and its answer on the next connection comes too late.
func TestOfferToOneThatGoes(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(1)
		run := e.create("hello")
		offer := p.hear(frame.Offer)
		p.leave()
		if got := rg.run(run.ID); got.State != store.Queued || got.Spent != 0 || !strings.Contains(got.Why, "r1") {
			t.Errorf("the run is %+v", got)
		}
		p, welcome := e.connect("r1", 1, nil, frame.Attempt{Run: run.ID, Attempt: 1})
		if len(welcome.Attempts) != 0 {
			t.Errorf("got %+v", welcome)
		}
		p.say(frame.Frame{Type: frame.Take, Run: offer.Run, Attempt: 1})
		p.hear(frame.Stale)
	})
}

// TestRefuse: a refused run is not spent, and the runner is not asked again at once.
func TestRefuse(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(1)
		run := e.create("hello")
		offer := p.hear(frame.Offer)
		p.say(frame.Frame{Type: frame.Refuse, Run: offer.Run, Attempt: 1, Why: "no such\x00 program\n\x1b[31m"})
		time.Sleep(time.Second)
		if got := rg.run(run.ID); got.State != store.Queued || got.Spent != 0 || !strings.HasSuffix(got.Why, "runner r1 refuses: no such program [31m") {
			t.Errorf("the run is %+v", got)
		}
		rg.set("due = 0")
		p.silent(shunFor - 5*time.Second)
		if p.hear(frame.Offer).Attempt != 2 {
			t.Error("it is not offered again")
		}
	})
}

// TestBeat: the answer to a beat says what the database has renewed, after it has.
func TestBeat(t *testing.T) {
	inBubble(t, func(rg *rig) {
		s := &hurtStore{Store: rg.store}
		e := rg.start("node", s)
		p, _ := e.connect("r1", 2, nil)
		e.create("hello")
		e.create("hello")
		one, two := p.hear(frame.Offer), p.hear(frame.Offer)
		p.take(one)
		p.take(two)
		p.say(frame.Frame{Type: frame.BeatFrame, Seq: 1})
		if f := p.hear(frame.BeatFrame); f.Seq != 1 || len(f.Attempts) != 0 {
			t.Errorf("an idle runner gets %+v", f)
		}
		beat := frame.Frame{Type: frame.BeatFrame, Seq: 2, Attempts: []frame.Attempt{{Run: one.Run, Attempt: 1}, {Run: two.Run, Attempt: 1}}}
		s.hurt(true)
		p.say(beat)
		p.silent(3 * time.Second)
		s.hurt(false)
		if f := p.hear(frame.BeatFrame); f.Seq != 2 || len(f.Attempts) != 2 {
			t.Errorf("got %+v", f)
		}
		_, err := rg.store.Cancel(context.Background(), two.Run, "test", "enough")
		must(t, err)
		beat.Seq, beat.Attempts[0].Attempt = 3, 2
		p.say(beat)
		if f := p.hear(frame.BeatFrame); f.Seq != 3 || len(f.Attempts) != 1 || f.Attempts[0].Run != two.Run {
			t.Errorf("got %+v", f)
		}
		if f := p.hear(frame.Cancel); f.Run != two.Run || f.Attempt != 1 {
			t.Errorf("got %+v", f)
		}
	})
}

// TestStaleEnd: what is told of an attempt after its lease changes nothing, and neither
// does what another runner tells of it.
func TestStaleEnd(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(1)
		run := e.create("again")
		offer := p.hear(frame.Offer)
		p.take(offer)
		rg.set("lease_until = 1")
		if f := p.hear(frame.Stale); f.Run != run.ID || f.Attempt != 1 {
			t.Errorf("got %+v", f)
		}
		if lost := eventsOf[event.RunLost](rg); len(lost) != 1 || lost[0].Run != run.ID {
			t.Errorf("told %+v", lost)
		}
		p.say(frame.Frame{Type: frame.Drain})
		rg.set("due = 0")
		q, _ := e.connect("r2", 1, nil)
		again := q.hear(frame.Offer)
		q.take(again)
		p.say(frame.Frame{Type: frame.Log, Run: run.ID, Attempt: 1, Data: []byte("late")}) // it has that, still
		p.hear(frame.Log)
		p.end(offer, frame.Exited, 0, frame.Stale)
		p.end(again, frame.Exited, 0, frame.Stale) // not its own
		p.say(frame.Frame{Type: frame.Log, Run: run.ID, Attempt: 2, Data: []byte("forged")})
		p.hear(frame.Stale)
		p.end(frame.Frame{Run: 999, Attempt: 1}, frame.Exited, 0, frame.Stale)
		if got := rg.run(run.ID); got.State != store.Running || got.Attempt != 2 || got.Runner != "r2" {
			t.Errorf("the run is %+v", got)
		}
		q.end(again, frame.Exited, 0, frame.End)
		if got := rg.run(run.ID); got.State != store.Succeeded {
			t.Errorf("the run is %+v", got)
		}
	})
}

// TestResume: a run survives a reconnect, a restart of the engine, and one engine for another.
func TestResume(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e := rg.start("node-1", rg.store)
		p, _ := e.connect("r1", 3, nil)
		run := e.create("again")
		offer := p.hear(frame.Offer)
		p.take(offer)
		p.say(frame.Frame{Type: frame.Log, Run: run.ID, Attempt: 1, Data: []byte("12345")})
		p.hear(frame.Log)
		p.leave()
		if got := rg.run(run.ID); got.State != store.Running {
			t.Fatalf("after the connection the run is %+v", got)
		}
		had := []frame.Attempt{{Run: run.ID, Attempt: 1, Log: 10}, {Run: 77, Attempt: 1}}
		p, welcome := e.connect("r1", 3, nil, had...)
		want := []frame.Attempt{{Run: run.ID, Attempt: 1, Log: 5}}
		if !slices.Equal(welcome.Attempts, want) {
			t.Errorf("the same engine keeps %+v, want %+v", welcome.Attempts, want)
		}
		other := e.create("hello")
		p.hear(frame.Offer) // has no answer: it is given back
		e.stop()
		p.hear(frame.Drain)
		p.wantClose(closeDrain, "")
		if got := rg.run(other.ID); got.State != store.Queued {
			t.Errorf("what was offered is %+v", got)
		}
		f := rg.start("node-2", rg.store)
		if _, w := f.connect("r2", 1, nil, had...); len(w.Attempts) != 0 {
			t.Errorf("another runner keeps %+v", w.Attempts)
		}
		_, err := rg.store.Cancel(context.Background(), run.ID, "test", "enough")
		must(t, err)
		p, welcome = f.connect("r1", 3, nil, had...)
		if !slices.Equal(welcome.Attempts, want) {
			t.Errorf("another engine keeps %+v, want %+v", welcome.Attempts, want)
		}
		if c := p.hear(frame.Cancel); c.Run != run.ID {
			t.Errorf("got %+v", c)
		}
		p.end(offer, frame.Cancelled, 0, frame.End)
		if got := rg.run(run.ID); got.State != store.Cancelled {
			t.Errorf("in the end the run is %+v", got)
		}
	})
}

// TestNewerConnectionWins: of two connections of one name the newer one counts.
func TestNewerConnectionWins(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(1)
		q, _ := e.connect("r1", 1, nil)
		p.wantClose(closeReplaced, "newer connection")
		if v := e.Runners(); len(v) != 1 {
			t.Errorf("the runners are %+v", v)
		}
		e.create("hello")
		q.take(q.hear(frame.Offer))
	})
}

// TestTakeWaits: a runner may start only when the database knows that it does.
func TestTakeWaits(t *testing.T) {
	inBubble(t, func(rg *rig) {
		s := &hurtStore{Store: rg.store}
		e := rg.start("node", s)
		p, _ := e.connect("r1", 1, nil)
		run := e.create("hello")
		offer := p.hear(frame.Offer)
		s.hurt(true)
		p.say(frame.Frame{Type: frame.Take, Run: offer.Run, Attempt: offer.Attempt})
		p.silent(10 * time.Second)
		s.hurt(false)
		p.hear(frame.Take)
		if got := rg.run(run.ID); got.State != store.Running {
			t.Errorf("the run is %+v", got)
		}
		cancelled := e.create("hello")
		p.end(offer, frame.Exited, 0, frame.End)
		offer = p.hear(frame.Offer)
		_, err := rg.store.Cancel(context.Background(), cancelled.ID, "test", "enough")
		must(t, err)
		p.take(offer)
		p.hear(frame.Cancel) // that it had not heard
	})
}
