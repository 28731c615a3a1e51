package deadletter

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// many makes n dead letters of a reason.
func (r *rig) many(n int, reason string) {
	r.t.Helper()
	for i := range n {
		r.die(reason, foreign(i%shards, fmt.Sprint(reason, i), fmt.Sprintf(`{"n":%d}`, i)))
	}
}

// TestTask replays what was seen, at its rate, and tells how far it is.
func TestTask(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		r.many(30, "bad")
		r.many(3, "worse")
		time.Sleep(time.Second)
		code, text, _ := exchange(t, l, "POST", Path+"/tasks", `{"do":"replay","filter":{"reason":"bad"},"preview":true}`)
		p := read[Preview](t, text)
		if code != 200 || p.Letters != 30 || p.Messages != 30 || p.Cut || len(p.Examples) != maxPreviewed || p.AsOf.IsZero() || len(r.left()) != 33 {
			t.Fatalf("preview: %d %s", code, text)
		}
		time.Sleep(time.Second)
		r.die("bad", foreign(0, "later", "{}"))
		body := fmt.Sprintf(`{"do":"replay","filter":{"reason":"bad"},"as_of":%q,"rate":10,"reason":"mended"}`, p.AsOf.Format(time.RFC3339Nano))
		code, text, header := exchange(t, l, "POST", Path+"/tasks", body)
		v := read[Task](t, text)
		if code != http.StatusAccepted || header.Get("Location") != Path+"/tasks/"+v.ID || v.State != Running || *v.Total != 30 || v.By != "ann" || v.Reason != "mended" || v.Node != "a" {
			t.Fatalf("started: %d %s", code, text)
		}
		told := r.events()
		if c, ok := told[0].(event.DeadLettersChange); !ok || c.Task != v.ID || c.Letters != 30 || c.By != "ann" || c.From == "" || c.Reason != "mended" || !strings.Contains(c.Filter, "bad") {
			t.Errorf("told %+v", told)
		}
		began := time.Now()
		time.Sleep(1500 * time.Millisecond)
		if v, _ = l.Task(t.Context(), v.ID); v.State != Running || v.Done < 10 || v.Done > 20 || v.Ended != nil {
			t.Errorf("after 1.5 s: %+v", v)
		}
		v = await(t, l, v.ID)
		if took := v.Ended.Sub(began); v.State != Done || v.Done != 30 || v.Failed != 0 || v.Error != "" || took < 2*time.Second || took > 4*time.Second {
			t.Errorf("%+v after %v", v, took)
		}
		if got := r.left(); len(got) != 4 || got[3] != "later" || r.queued() != 30 {
			t.Errorf("%q are left, %d queued", got, r.queued())
		}
		if e, ok := r.events()[1].(event.DeadLettersTaskEnded); !ok || e.Task != v.ID || e.State != "done" || e.Letters != 30 {
			t.Errorf("told %+v", r.events())
		}
	})
}

// TestTaskTouchesWhatWasThere: what dies after as_of stays, also if a letter comes back at
// once, and by a clock that is behind.
func TestTaskTouchesWhatWasThere(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		r.many(8, "bad")
		time.Sleep(time.Second)
		asOf := time.Now()
		time.Sleep(time.Second)
		r.many(3, "new")
		v := start(t, l, Order{Do: ActionReplay, Rate: 2, AsOf: asOf})
		replayed := make(map[string]int)
		for range 20 { // a consumer to whom they are still bad
			time.Sleep(500 * time.Millisecond)
			for n := range shards {
				for _, d := range r.take(n) {
					replayed[d.ID]++
					if err := d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: "bad"}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		v = await(t, l, v.ID)
		if v.State != Done || v.Done != 8 || *v.Total != 8 {
			t.Errorf("%+v", v)
		}
		if len(replayed) != 8 || len(r.left()) != 11 {
			t.Errorf("replayed %v, %d left", replayed, len(r.left()))
		}
		for id, n := range replayed {
			if n != 1 || strings.HasPrefix(id, "new") {
				t.Errorf("%s was replayed %d times", id, n)
			}
		}
	})
}

// ahead is a broker whose dead letters have a time that is to come: that of another clock,
// or what another program made up.
type ahead struct{ Broker }

func (a ahead) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	return a.Broker.DeadLetters(ctx, func(d broker.DeadLetter) broker.Verdict {
		d.Time = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
		return decide(d)
	})
}

// TestTaskOfTimeToCome: a letter whose time is to come can be named, and is spared else.
func TestTaskOfTimeToCome(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", func(c *Config) { c.Broker = ahead{c.Broker} })
		r.many(3, "bad")
		if v := await(t, l, start(t, l, Order{Do: ActionPurge}).ID); v.State != Done || v.Done != 0 || len(r.left()) != 3 {
			t.Errorf("%+v, %d left", v, len(r.left()))
		}
		named := Filter{IDs: r.left()[:1]}
		if v := await(t, l, start(t, l, Order{Do: ActionPurge, Filter: named}).ID); v.State != Done || v.Done != 1 || len(r.left()) != 2 {
			t.Errorf("%+v, %d left", v, len(r.left()))
		}
	})
}

// deaf is a broker that does not notice the end of a context.
type deaf struct{ Broker }

func (d deaf) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	return d.Broker.DeadLetters(context.WithoutCancel(ctx), decide)
}

// TestTaskEndsAfterTheLast: a pass that ends early has not seen all, whatever the broker says.
func TestTaskEndsAfterTheLast(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", func(c *Config) { c.Broker = deaf{c.Broker} })
		r.many(9, "bad")
		v := start(t, l, Order{Do: ActionReplay, Rate: 4})
		if v = await(t, l, v.ID); v.State != Done || v.Done != 9 || r.queued() != 9 {
			t.Errorf("%+v, %d queued", v, r.queued())
		}
		r.many(9, "bad")
		v = start(t, l, Order{Do: ActionReplay, Rate: 1})
		time.Sleep(1500 * time.Millisecond)
		if v, err := l.Cancel(t.Context(), v.ID, "", ""); err != nil || v.State != Cancelled {
			t.Errorf("%+v, %v", v, err)
		}
		key := all(t, l, Filter{})[0].Key
		if code, text, _ := exchange(t, l, "POST", Path+"/"+key+"/replay", "{}"); code != 200 {
			t.Errorf("%d %s", code, text)
		}
	})
}

// slow is a broker that takes a second for each letter.
type slow struct{ Broker }

func (s slow) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	return s.Broker.DeadLetters(ctx, func(d broker.DeadLetter) broker.Verdict {
		time.Sleep(time.Second)
		return decide(d)
	})
}

// TestSlowTask counts what it has done although each pass ends for the time, and goes
// further where there is nothing to do.
func TestSlowTask(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", func(c *Config) { c.Broker = slow{c.Broker} })
		r.many(9, "other")
		r.many(9, "bad")
		v := start(t, l, Order{Do: ActionPurge, Filter: Filter{Reason: "bad"}})
		if v = await(t, l, v.ID); v.State != Done || v.Done != 9 || v.Total != nil || len(r.left()) != 9 {
			t.Errorf("%+v, %d left", v, len(r.left()))
		}
		r.many(40, "other")
		r.many(1, "bad")
		v = start(t, l, Order{Do: ActionPurge, Filter: Filter{Reason: "bad"}})
		if v = await(t, l, v.ID); v.State != Failed || !strings.Contains(v.Error, "the command dead-letters") || len(r.left()) != 50 {
			t.Errorf("%+v, %d left", v, len(r.left()))
		}
	})
}

// behind is a broker whose consumers have a clock that is behind.
type behind struct{ Broker }

func (b behind) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	return b.Broker.DeadLetters(ctx, func(d broker.DeadLetter) broker.Verdict {
		d.Time = d.Time.Add(-time.Hour)
		return decide(d)
	})
}

// TestClockBehind: a letter that comes back with an earlier time is not replayed again.
func TestClockBehind(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", func(c *Config) { c.Broker = behind{c.Broker} })
		r.many(4, "bad")
		v := start(t, l, Order{Do: ActionReplay, Rate: 1})
		came := 0
		for range 30 {
			time.Sleep(500 * time.Millisecond)
			for n := range shards {
				for _, d := range r.take(n) {
					came++
					_ = d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: "bad"})
				}
			}
		}
		if v = await(t, l, v.ID); v.State != Done || v.Done != 4 || came != 4 {
			t.Errorf("%+v, %d came", v, came)
		}
	})
}

// TestPurgeTask removes, and leaves alone what has no time unless it is named.
func TestPurgeTask(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		r.many(12, "bad")
		time.Sleep(time.Second)
		v := start(t, l, Order{Do: ActionPurge, Rate: maxRate})
		if v = await(t, l, v.ID); v.State != Done || v.Done != 12 || len(r.left()) != 0 || r.queued() != 0 {
			t.Errorf("%+v, %q left, %d queued", v, r.left(), r.queued())
		}
		timeless := &seen{DeadLetter: &broker.DeadLetter{Envelope: message.Envelope{ID: "x"}}, letters: l}
		all, named := Order{AsOf: time.Now()}, Order{AsOf: time.Now(), Filter: Filter{IDs: []string{"x"}}}
		if all.wants(timeless) || !named.wants(timeless) {
			t.Error("a letter without a time is touched without its id, or not with it")
		}
	})
}

// TestCancel ends a task after the letter that it is at. Nothing is lost.
func TestCancel(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l, other := r.node("a", nil), r.node("b", nil)
		r.many(40, "bad")
		for i, by := range []*Letters{l, other} {
			v := start(t, l, Order{Do: ActionReplay, Rate: 1})
			time.Sleep(4500 * time.Millisecond)
			code, text, _ := exchange(t, by, "DELETE", Path+"/tasks/"+v.ID, "")
			got := read[Task](t, text)
			if code != 200 || got.State != Cancelled || got.Error != "cancelled by ann" || got.Done < 3 || got.Done > 6 || got.Ended == nil {
				t.Errorf("%d: %d %s", i, code, text)
			}
			if left := len(r.left()); left+r.queued() != 40 {
				t.Errorf("%d are left and %d queued, of 40", left, r.queued())
			}
			if code, text, _ = exchange(t, by, "DELETE", Path+"/tasks/"+v.ID, ""); code != 200 || read[Task](t, text).Done != got.Done {
				t.Errorf("again: %d %s", code, text)
			}
		}
		if code, text, _ := exchange(t, other, "DELETE", Path+"/tasks/none", ""); code != 404 {
			t.Errorf("an unknown task: %d %s", code, text)
		}
	})
}

// TestDrain ends the tasks of a process that stops, and says so.
func TestDrain(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := New(Config{
			Broker: r.memory, Rules: message.Strict, Shards: shards, Node: func() string { return "a" }, Nodes: func() int { return 1 },
			Tell: func(event.Event) {},
		})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			l.Run(ctx)
		}()
		synctest.Wait()
		r.many(10, "bad")
		v := start(t, l, Order{Do: ActionReplay, Rate: 1})
		time.Sleep(2500 * time.Millisecond)
		cancel()
		<-ended
		got := l.mine(v.ID)[0].view()
		if got.State != Cancelled || !strings.Contains(got.Error, "stopped") || got.Done == 0 || len(r.left())+r.queued() != 10 {
			t.Errorf("%+v, %d left, %d queued", got, len(r.left()), r.queued())
		}
		if _, err := l.Start(t.Context(), "x", Order{Do: ActionReplay}); !errors.Is(err, ErrStopping) {
			t.Error(err)
		}
		if _, err := l.Replay(Change{Key: strings.Repeat("0", 32)}); !errors.Is(err, ErrStopping) {
			t.Error(err)
		}
	})
}

// TestTaskOutlastsTheBroker goes on when the broker is back, and gives up when it is
// away for long.
func TestTaskOutlastsTheBroker(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		r.many(20, "bad")
		v := start(t, l, Order{Do: ActionReplay, Rate: 2})
		time.Sleep(3 * time.Second)
		r.memory.Block("low on memory")
		time.Sleep(20 * time.Second)
		if v, _ = l.Task(t.Context(), v.ID); v.State != Running || !strings.Contains(v.Error, "low on memory") || v.Done == 20 {
			t.Errorf("while it is blocked: %+v", v)
		}
		r.memory.Block("")
		if v = await(t, l, v.ID); v.State != Done || v.Done != 20 || v.Error != "" || r.queued() != 20 {
			t.Errorf("%+v, %d queued", v, r.queued())
		}
		r.many(2, "worse")
		v = start(t, l, Order{Do: ActionReplay, Rate: 1})
		r.memory.Block("low on memory")
		if v = await(t, l, v.ID); v.State != Failed || !strings.Contains(v.Error, "low on memory") {
			t.Errorf("%+v", v)
		}
	})
}
