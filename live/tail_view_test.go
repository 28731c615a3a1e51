package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
)

// TestResume: a view goes on strictly after its last frame, says what it cannot show any
// more, and says so if it begins anew.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, _ := rig.node("a")
		c := newClient(t, a, Query{})
		synctest.Wait()
		rig.pass(a, 0, 10, "")
		time.Sleep(time.Second)
		c.read(5) // of 10
		c.viewer.Close()
		rig.pass(a, 0, 10, "")
		time.Sleep(time.Second)
		c.connect()
		for c.read(100) > 0 {
		}
		if c.sent != 20 || c.missed != 0 || c.matched() != 20 {
			t.Errorf("%d shown, %d missed, %d match; want all 20", c.sent, c.missed, c.matched())
		}
		c.viewer.Close()

		for range 3 {
			rig.pass(a, 0, 500, "")
			time.Sleep(time.Second)
		}
		c.connect() // after more than the ring has
		for c.read(2000) > 0 {
		}
		var ring uint64
		for _, f := range c.frames {
			if g, ok := f.Data.(Gap); ok && g.Why == WhyRing {
				ring += g.Missed
			}
		}
		if ring != 500 || c.sent != 1020 || c.matched() != 1520 {
			t.Errorf("%d are not in the ring, %d shown, %d match", ring, c.sent, c.matched())
		}
		c.viewer.Close()

		for after, why := range map[string]string{
			c.last: "filter", "01JD8Y6G5V3X9Q2R7T4B1C0D5E-5": "epoch", "nonsense": "epoch", c.epoch + "-99999": "epoch",
		} {
			q := Query{After: after}
			if why == "filter" {
				q.Contains = "x"
			}
			v, err := a.View(q)
			if err != nil {
				t.Fatal(err)
			}
			hello, _ := v.Next(t.Context())
			if f, _ := v.Next(t.Context()); hello.Kind != KindHello || f.Data != (Reset{why}) {
				t.Errorf("after %s: %v, want a reset because of the %s", after, f, why)
			}
			v.Close()
		}
		time.Sleep(lingerTime + renewInterval)
		c.query.After = c.last
		if v, err := a.View(c.query); err != nil || v.stream.epoch == c.epoch {
			t.Error("a stream is there long after its last viewer:", err)
		} else {
			v.Close()
		}
	})
}

// files is what a node has in files; each line has a file of its own.
func (r *tailRig) files(shard int, numbers ...int) func(*TailConfig) {
	began := time.Now()
	return func(c *TailConfig) {
		owned := c.Owned
		c.Owned = func() []int {
			if owned == nil {
				return []int{shard}
			}
			return append(owned(), shard)
		}
		newest := c.Newest
		c.Newest = func(ctx context.Context, n int, until time.Time, take func(FileLine) bool) error {
			if n != shard {
				return newest(ctx, n, until, take)
			}
			for i := len(numbers) - 1; i >= 0; i-- {
				l := FileLine{Worker: "w", File: fmt.Sprint("f", i), At: began.Add(time.Duration(i*10+shard) * time.Second)}
				l.Text = fmt.Appendf(nil, `{"message_id":"s%d.%d"}`, shard, numbers[i])
				if l.At.After(until) {
					r.t.Errorf("asked for files that were begun after the tap")
				}
				if !take(l) {
					break
				}
			}
			return nil
		}
	}
}

// TestLast: the last messages are those in the files of all owners, in the order of the
// files, and then what has passed since; none twice.
func TestLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		filesA, filesB := rig.files(0, 0, 1, 2, 3), rig.files(1, 0, 1, 2)
		time.Sleep(time.Minute)
		owners := func(c *TailConfig) { c.Consumers = func() int { return 2 } }
		a, _ := rig.node("a", filesA, owners)
		b, _ := rig.node("b", filesB, owners)
		server, _ := rig.node("server", owners)
		show := func(tail *Tail, q Query) (*client, string) {
			c := newClient(t, tail, q)
			c.read(1000)
			var ids []string
			for _, f := range c.frames {
				if m, ok := f.Data.(Message); ok {
					if !m.Replayed {
						t.Errorf("%s is not from the files", m.ID)
					}
					ids = append(ids, m.ID)
				}
			}
			return c, strings.Join(ids, " ")
		}
		began := time.Now()
		for _, tail := range []*Tail{a, b, server} {
			for want, q := range map[string]Query{
				"s1.1 s0.2 s1.2 s0.3":                {Last: 4},
				"s0.0 s1.0 s0.1 s1.1 s0.2 s1.2 s0.3": {Last: 100},
				"s0.2 s0.3":                          {Last: 2, Shards: []int{0}},
				"s1.2":                               {Last: 9, Contains: "s1.2"},
				"":                                   {Last: 9, Stage: StageDead},
			} {
				c, got := show(tail, q)
				if got != want {
					t.Errorf("%+v: %s, want %s", q, got, want)
				}
				c.viewer.Close()
			}
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("all owners have answered, and it took %v", took)
		}

		// What passes while the files are read is there once.
		rig.passed[0] = 4
		c := newClient(t, server, Query{Last: 3})
		synctest.Wait()
		rig.one(a, `{"message_id":"s0.3"}`) // in a file already, and told late
		rig.pass(a, 0, 2, "")
		time.Sleep(6 * time.Second)
		for c.read(100) > 0 {
		}
		if c.seenIDs() != "s1.1 s0.2 s1.2 s0.3 s0.4 s0.5" {
			t.Errorf("%d are shown: %s", c.sent, c.seenIDs())
		}
		// Another one has the same from the ring and the files.
		d, got := newClient(t, server, Query{Last: 4}), ""
		d.read(100)
		if got = d.seenIDs(); got != "s1.2 s0.3 s0.4 s0.5" {
			t.Error(got)
		}
		c.viewer.Close()
		d.viewer.Close()
	})
}

// TestLateTold: a message that was shown from a file is not shown again when its owner
// tells it later, and counts once.
func TestLateTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		files := rig.files(0, 0, 1, 2, 3)
		time.Sleep(time.Minute)
		a, _ := rig.node("a", files)
		c := newClient(t, a, Query{Last: 3})
		c.read(10)
		rig.one(a, `{"message_id":"s0.2"}`)
		rig.one(a, `{"message_id":"s0.3"}`)
		rig.one(a, `{"message_id":"s0.4"}`)
		time.Sleep(statsInterval)
		c.read(10)
		if got := c.seenIDs(); got != "s0.1 s0.2 s0.3 s0.4" {
			t.Error(got)
		}
		time.Sleep(statsInterval)
		c.read(10)
		if last := c.frames[len(c.frames)-1].Data; last != (Counts{Seen: 6, Matched: 4, Sent: 4}) {
			t.Errorf("%+v", last)
		}
		c.viewer.Close()
	})
}

func (c *client) seenIDs() string {
	var ids []string
	for _, f := range c.frames {
		if m, ok := f.Data.(Message); ok {
			ids = append(ids, m.ID)
		}
	}
	return strings.Join(ids, " ")
}

// TestManyViewers: so many are taken, and no more; those with one filter share what
// travels; and room is made for a new filter.
func TestManyViewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, bus := rig.node("a")
		var all []*client
		for range MaxViewers {
			all = append(all, newClient(t, a, Query{}))
		}
		if _, err := a.View(Query{}); !errors.Is(err, ErrTooManyViewers) {
			t.Error(err)
		}
		synctest.Wait()
		before := bus.toldTo("tail.entries")
		rig.pass(a, 0, 10, "")
		time.Sleep(tellInterval)
		synctest.Wait()
		if told := bus.toldTo("tail.entries") - before; told > 2 {
			t.Errorf("%d bodies for viewers that want the same", told)
		}
		for i, c := range all {
			if i%8 > 0 { // the others are stalled
				if c.read(100); c.sent != 10 {
					t.Errorf("viewer %d: %d shown", i, c.sent)
				}
			}
			c.viewer.Close()
		}
		before = bus.toldTo("tail.interest")
		for i := range 3 * MaxViewers { // a filter each, one after the other
			v, err := a.View(Query{Contains: fmt.Sprint(i)})
			if err != nil {
				t.Fatal(err)
			}
			v.Close()
			synctest.Wait()
		}
		if told := bus.toldTo("tail.interest") - before; told > 2*3*MaxViewers {
			t.Errorf("%d bodies tell of %d viewers", told, 3*MaxViewers)
		}
		if all, _ := a.taps(a.id); len(a.streams) > maxTailStreams || all > maxTailStreams || a.viewers != 0 {
			t.Errorf("%d streams, %d taps, %d viewers", len(a.streams), all, a.viewers)
		}
	})
}

// TestLimit ends a view after so many messages.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, _ := rig.node("a")
		c := newClient(t, a, Query{Limit: 7})
		synctest.Wait()
		rig.pass(a, 0, 100, "")
		time.Sleep(time.Second)
		c.read(100)
		_, err := c.viewer.Next(t.Context())
		if last := c.frames[len(c.frames)-1].Data; !errors.Is(err, io.EOF) || c.sent != 7 || c.matched() != 7 || last != (Bye{Why: ByeLimit}) {
			t.Errorf("%d shown, %v, %v", c.sent, last, err)
		}
		c.viewer.Close()
		if _, err := c.viewer.Next(t.Context()); err == nil {
			t.Error("a closed view goes on")
		}
	})
}

// TestSample: a viewer has no more than its rate, hears how many were left out, and what
// is left out does not travel.
func TestSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, bus := rig.node("a")
		c := newClient(t, a, Query{Rate: 50})
		entries := 0
		bus.onTell(func(_ string, body []byte) { entries += strings.Count(string(body), `"shard":`) })
		synctest.Wait()
		for range 100 {
			rig.pass(a, 0, 100, "")
			time.Sleep(100 * time.Millisecond)
			c.read(1000)
		}
		time.Sleep(statsInterval)
		c.read(1000)
		samples := 0
		for _, f := range c.frames {
			if f.Kind == KindSample {
				samples++
			}
		}
		if c.sent < 450 || c.sent > 550 || c.sampled+c.sent != 10_000 || samples < 9 || samples > 12 {
			t.Errorf("%d shown, %d left out, told %d times", c.sent, c.sampled, samples)
		}
		synctest.Wait()
		if entries > 600 {
			t.Errorf("%d entries have travelled", entries)
		}
		c.viewer.Close()
	})
}

// TestNodeVanishes: a node that goes without a word is told; one that says goodbye is not.
func TestNodeVanishes(t *testing.T) {
	for _, last := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rig := newTailRig(t)
			a, _ := rig.node("a")
			client := rig.memory.Open(nil)
			b := NewTail(TailConfig{Bus: client, Node: func() string { return "b" }, Payload: PayloadFull})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.Run(ctx)
			}()
			synctest.Wait()
			c := newClient(t, a, Query{})
			synctest.Wait()
			rig.pass(b, 0, 5, "")
			time.Sleep(time.Second)
			rig.pass(b, 0, 5, "")
			if !last {
				_ = client.Close() // the process is gone; the last five were never told
			}
			cancel()
			<-done
			_ = client.Close()
			time.Sleep(goneAfter + renewInterval)
			for c.read(100) > 0 {
			}
			if want := map[bool]uint64{true: 10, false: 5}[last]; c.sent != want || (c.unknown == 0) != last {
				t.Errorf("with a last word %v: %d shown, %d unknown gaps", last, c.sent, c.unknown)
			}
			c.viewer.Close()
		})
	}
}

// TestOwnerTime: what an owner has no time to look at counts as what matches, for those
// that it may match.
func TestOwnerTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig := newTailRig(t)
		a, bus := rig.node("a")
		c, other := newClient(t, a, Query{Contains: "rare", Shards: []int{0}}), newClient(t, a, Query{Shards: []int{1}})
		synctest.Wait()
		release := bus.hang()
		rig.pass(a, 0, 1, "")
		time.Sleep(tellInterval) // the taps' goroutine hangs
		long := strings.Repeat("x", message.MaxEntryBytes/2)
		for range 100 { // more than may wait
			rig.pass(a, 0, 1, `,"v":"`+long+`"`)
		}
		release()
		time.Sleep(time.Second)
		c.read(100)
		other.read(100)
		if c.sent > 0 || c.missed == 0 || c.missed != c.matched() || c.missed > 100 || other.matched() > 0 {
			t.Errorf("%d shown, %d missed, %d match; of another shard %d", c.sent, c.missed, c.matched(), other.matched())
		}
		c.viewer.Close()
		other.viewer.Close()
	})
}
