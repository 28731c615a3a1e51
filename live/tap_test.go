package live

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// one has one message pass, whose line is given.
func (r *tailRig) one(tail *Tail, line string) {
	tail.Pass(Passed{Stage: StageWritten, Worker: "0-1", File: "f.ndjson", At: time.Now(), Messages: []message.Message{{Line: []byte(line)}}})
}

// texts returns the entries that were shown.
func (c *client) texts() (texts []string) {
	for c.read(1000) > 0 {
	}
	for _, f := range c.frames {
		if m, ok := f.Data.(Message); ok {
			texts = append(texts, string(m.Entry))
		}
	}
	return texts
}

// TestRedact: what is redacted is neither told on the bus nor found by a filter.
func TestRedact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, _ := rig.node("a", func(c *TailConfig) { c.Redact = []string{"/card"} })
		b, _ := rig.node("b")
		var told strings.Builder
		defer rig.memory.Listen(entriesTopic(b.id), func(body []byte, _ int) { told.Write(body) })()
		all := newClient(t, b, Query{})
		for _, q := range []Query{
			{Contains: "4711"}, {Where: []Where{{"/card", "4711"}}}, {Where: []Where{{"/card/no", "4711"}}}, {Contains: `"card":{`},
		} {
			guess := newClient(t, b, q)
			defer guess.viewer.Close()
			defer func() {
				if got := guess.texts(); len(got) > 0 {
					t.Errorf("%+v finds %s", q, got)
				}
			}()
		}
		masked := newClient(t, b, Query{Contains: mask, Where: []Where{{"/card", "***"}}})
		synctest.Wait()
		rig.one(a, `{"message_id":"s.0","card":"4711"}`)
		rig.one(a, `{"message_id":"s.1","card":{"no":"4711"}}`)
		time.Sleep(time.Second)
		synctest.Wait()
		want := `[{"message_id":"s.0","card":"***"} {"message_id":"s.1","card":"***"}]`
		if got := fmt.Sprint(all.texts()); got != want {
			t.Error(got)
		}
		if got := fmt.Sprint(masked.texts()); got != want {
			t.Error(got)
		}
		if strings.Contains(told.String(), "4711") || !strings.Contains(told.String(), "***") {
			t.Error("on the bus is ", told.String())
		}
		all.viewer.Close()
		masked.viewer.Close()
	})
}

// TestPayload: an entry is shown whole, cut, or not at all; a process that shows none
// does not let filters look into it either, whoever asks.
func TestPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, _ := rig.node("a")
		short := `{"message_id":"s.0","v":"<é\u0000>"}`
		long := `{"message_id":"s.1","v":"` + strings.Repeat("é\\\"", 3*MaxTailEntry) + `"}`
		views := map[Payload]*client{}
		for _, p := range []Payload{PayloadFull, PayloadHead, PayloadNone} {
			views[p] = newClient(t, a, Query{Payload: p})
		}
		synctest.Wait()
		rig.one(a, short)
		rig.one(a, long)
		time.Sleep(time.Second)
		for p, c := range views {
			got := c.texts()
			switch {
			case len(got) != 2 || p != PayloadNone && got[0] != short || p == PayloadNone && got[0]+got[1] != "":
				t.Errorf("%s: %.100q", p, got)
			case p != PayloadNone:
				most := MaxTailEntry
				if p == PayloadHead {
					most = HeadBytes
				}
				var text string
				if err := json.Unmarshal([]byte(got[1]), &text); err != nil || !strings.HasPrefix(long, text) || len(text) > most || len(text) < most-3 {
					t.Errorf("%s: %v, %d bytes", p, err, len(text))
				}
				if last := c.frames[len(c.frames)-1].Data.(Message); !last.Truncated {
					t.Errorf("%s: it is not said to be cut", p)
				}
			}
			c.viewer.Close()
		}

		none, bus := rig.node("none", func(c *TailConfig) { c.Payload = PayloadNone })
		if _, err := none.View(Query{Contains: "x"}); err == nil {
			t.Error("a filter may look into entries that are not shown")
		}
		hidden := newClient(t, none, Query{})
		_ = bus.Bus.Tell(tapInterestTopic, interestOf(1, Query{Contains: "x"}))
		time.Sleep(time.Second)
		rig.one(none, short)
		time.Sleep(time.Second)
		if got := hidden.texts(); len(got) != 1 || got[0] != "" {
			t.Errorf("%q", got)
		}
		synctest.Wait()
		for _, tap := range none.owner.taps {
			if tap.filter.reads() || tap.filter.Payload != PayloadNone {
				t.Errorf("there is a tap for %+v", tap.filter.Filter)
			}
		}
		hidden.viewer.Close()
	})
}

// TestTapBounds: however many taps others ask for, there is a bound for all and for each
// node, and what is told stays within the bytes of a second.
func TestTapBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, bus := rig.node("a")
		hub := message.NewID()
		for i := range 1000 {
			f, _ := Query{Contains: fmt.Sprint(i % 7)}.compile()
			n := tapInterest{V: broker.BusVersion, Node: "other", Seq: uint64(i), Hub: hub, Tap: message.NewID(), Filter: f.Filter}
			if i >= 200 {
				n.Hub = message.NewID()
			}
			body, _ := json.Marshal(n)
			_ = bus.Bus.Tell(tapInterestTopic, body)
			synctest.Wait()
		}
		if all, one := a.taps(hub); all != maxTaps || one != maxHubTaps {
			t.Errorf("%d taps, %d of one node", all, one)
		}
		if _, refused := a.owner.cfg.Skips.Counts(); refused != 1000-maxTaps {
			t.Errorf("%d are refused", refused)
		}
		bytes := 0
		bus.onTell(func(topic string, body []byte) {
			if strings.HasPrefix(topic, "tail.entries.") {
				bytes += len(body)
			}
		})
		const seconds = 8 // less than a lease
		for range seconds * 10 {
			rig.pass(a, 0, 100, strings.Repeat(" ", 500))
			time.Sleep(100 * time.Millisecond)
		}
		bus.onTell(nil)
		synctest.Wait()
		// The counts of each tap are told every two seconds, whatever else is.
		if most := seconds * (10*tellBytes + maxTaps*250/2); bytes > most || bytes < seconds*5*tellBytes {
			t.Errorf("%d bytes in %d seconds, at most %d are allowed", bytes, seconds, most)
		}
		time.Sleep(lease + time.Second)
		if all, _ := a.taps(hub); all > 0 || a.owner.bytes.Load() > 0 {
			t.Errorf("%d taps and %d bytes are left", all, a.owner.bytes.Load())
		}
	})
}

// TestFairShare: a viewer of everything takes nothing from a viewer of little.
func TestFairShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, _ := rig.node("a")
		much, little := newClient(t, a, Query{}), newClient(t, a, Query{Contains: "rare"})
		synctest.Wait()
		for i := range 50 {
			rig.pass(a, 0, 1000, strings.Repeat(" ", 500))
			rig.pass(a, 1, 1, `,"v":"rare"`)
			time.Sleep(100 * time.Millisecond)
			if i%5 == 0 {
				much.read(1000)
				little.read(1000)
			}
		}
		time.Sleep(time.Second)
		for much.read(1000)+little.read(1000) > 0 {
		}
		if little.sent != 50 || little.missed > 0 {
			t.Errorf("of little: %d shown, %d missed", little.sent, little.missed)
		}
		if much.sent == 0 || much.missed == 0 || much.sent+much.missed != 50*1001 {
			t.Errorf("of much: %d shown, %d missed", much.sent, much.missed)
		}
		much.viewer.Close()
		little.viewer.Close()
	})
}

// TestWorkShare: filters have a twentieth of a processor's time.
func TestWorkShare(t *testing.T) {
	var a allowance
	now := time.Now()
	worked, rested := time.Duration(0), time.Duration(0)
	for i := range 1000 {
		took := time.Duration(i%40) * time.Millisecond
		rest := a.spend(now, took)
		worked, rested = worked+took, rested+rest
		now = now.Add(took + rest)
	}
	if share := float64(worked) / float64(worked+rested); share > 0.055 || share < 0.04 {
		t.Errorf("they work %.2f of the time", share)
	}
	a = allowance{}
	for range 1000 {
		if rest := a.spend(now, 40*time.Microsecond); rest > 0 {
			t.Fatalf("little work rests for %v", rest)
		}
		now = now.Add(time.Millisecond)
	}
}

// TestTailHostileBodies: whatever is on the bus is counted and left, and what is right still
// gets through.
func TestTailHostileBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, bus := rig.node("a")
		c := newClient(t, a, Query{})
		s := c.viewer.stream
		tell := func(topic string, body any) {
			text, ok := body.(string)
			if !ok {
				b, _ := json.Marshal(body)
				text = string(b)
			}
			_ = bus.Bus.Tell(topic, []byte(text))
			synctest.Wait()
		}
		right := tapEntries{V: broker.BusVersion, Node: "x", Seq: 1, Tap: s.epoch, Began: 1}
		for i, body := range []any{
			"", "null", "[]", "{", `{"v":2}`, `{"v":1}`, `{"v":1,"node":7}`, strings.Repeat("[", 100_000), strings.Repeat("x", broker.MaxBusBody),
			with(right, func(e *tapEntries) { e.Node = strings.Repeat("n", maxNode+1) }),
			with(right, func(e *tapEntries) { e.Matched = 1 }),                          // more than were seen
			with(right, func(e *tapEntries) { e.Seen, e.Matched, e.Sampled = 9, 1, 2 }), // more than match
			with(right, func(e *tapEntries) { e.Seen = 1 << 60 }),
			with(right, func(e *tapEntries) { e.Seen, e.Matched = 1<<64-1, 1<<64-1 }),
			with(right, func(e *tapEntries) { e.Entries = []Message{{At: time.Now()}} }), // not counted
			with(right, func(e *tapEntries) { e.Seen, e.Matched, e.Entries = 1, 1, []Message{{Shard: -1, At: time.Now()}} }),
			with(right, func(e *tapEntries) { e.Seen, e.Matched, e.Entries = 1, 1, []Message{{}} }),
		} {
			seq := func() uint64 {
				a.mu.Lock()
				defer a.mu.Unlock()
				return s.seq
			}
			before := seq()
			tell(entriesTopic(a.id), body)
			tell(tapInterestTopic, body)
			if all, _ := a.taps(""); seq() != before || all != 1 {
				t.Errorf("body %d has been taken", i)
			}
		}
		tell(entriesTopic(a.id), with(right, func(e *tapEntries) { e.Tap = message.NewID() })) // of no stream
		for i := range 3 * maxSources {
			tell(entriesTopic(a.id), with(right, func(e *tapEntries) { e.Node = fmt.Sprint("n", i) }))
		}
		a.mu.Lock()
		sources := len(s.sources)
		a.mu.Unlock()
		if sources > maxSources {
			t.Errorf("%d nodes are remembered", sources)
		}
		time.Sleep(goneAfter + renewInterval) // nothing is heard of them
		rig.pass(a, 0, 3, "")
		time.Sleep(time.Second)
		for c.read(100) > 0 {
		}
		if c.sent != 3 {
			t.Errorf("%d of 3 are shown", c.sent)
		}
		if foreign, broken := a.owner.cfg.Skips.Counts(); foreign < 1 || broken < 15 {
			t.Errorf("%d of another version, %d broken", foreign, broken)
		}
		c.viewer.Close()
	})
}

func with(e tapEntries, edit func(*tapEntries)) tapEntries {
	edit(&e)
	return e
}

// FuzzTailBodies: no body makes a node fail, and the counts of a viewer stay right.
func FuzzTailBodies(f *testing.F) {
	f.Add([]byte(`{"v":1,"node":"x","seq":1,"began":1,"seen":3,"matched":2,"sampled":1,"entries":[{"id":"a","shard":1,"at":"2026-01-01T00:00:00Z","entry":{}}]}`), uint8(3))
	f.Add(interestOf(1, Query{Where: []Where{{"/a", "b"}}}), uint8(1))
	f.Fuzz(func(t *testing.T, body []byte, times uint8) {
		tail := NewTail(TailConfig{Bus: silent{}, Node: func() string { return "a" }, Payload: PayloadFull})
		v, err := tail.View(Query{})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		var e tapEntries
		if broker.ReadBody(body, &e) == nil {
			e.Tap = v.stream.epoch
			for range times % 8 {
				e.Seq++
				e.Began += uint64(times) / 100
				own, _ := json.Marshal(e)
				tail.hear(own, 0)
			}
		}
		tail.hear(body, 0)
		tail.owner.hear(body, 0)
		tail.owner.answerLast(body)
		for {
			frame, _, err := v.step(t.Context(), time.Now())
			if err != nil || frame.Kind == "" {
				break
			}
		}
		tail.mu.Lock()
		defer tail.mu.Unlock()
		if c := v.counts(); c.Matched != c.Sent+c.Missed+c.Sampled || c.Matched != v.stream.seq {
			t.Errorf("%+v of %d", c, v.stream.seq)
		}
	})
}

// silent is a bus on which nothing is heard.
type silent struct{ broker.Bus }

func (silent) Tell(string, []byte) error { return nil }
