package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
)

// TestLocate asks every node for messages in every place, ours and foreign ones.
func TestLocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWhereabouts(t, 3)
		server, a, b := p.start("server", true), p.start("a", false, 0, 2), p.start("b", false, 1)
		now := time.Now()
		id := newID(9)
		server.receipts.Accepted(id, []message.ShardCount{{Shard: 1, Messages: 8}, {Shard: 2, Messages: 1}})
		for i, submitted := range []string{id + ".%d", "order-%d"} {
			name := func(n int) string { return fmt.Sprintf(submitted, n) }
			p.put(name(0), Place{Shard: 1, Received: true}, InFile{})
			p.put(name(1), Place{Shard: 1, Received: true, Worker: "1-7", Since: now}, InFile{})
			p.put(name(2), Place{Shard: 2, Received: true, Written: true, At: now}, InFile{File: "shard-2/2-1_X.ndjson", Line: 3})
			p.put(name(3), Place{Shard: 1, Written: true, At: now}, InFile{File: "shard-1/.1-1_X.rolling", Line: 1, Open: true})
			p.put(name(4), Place{Shard: 1, Written: true, At: now}, InFile{Whole: true})
			p.put(name(5), Place{Shard: 1, Written: true, At: now}, InFile{})
			p.kill(name(6), i == 1, "too deep")
			for _, n := range []*locatorNode{server, a, b} {
				for i, want := range []struct{ text, why string }{
					{"in_hand, shard 1, b", "gathers"},
					{"in_hand, shard 1, b, 1-7", ""},
					{"written, shard 2, a, shard-2/2-1_X.ndjson, line 3", ""},
					{"written, shard 1, b, shard-1/.1-1_X.rolling, line 1", "hidden"},
					{"written, shard 1, b", "moved away or deleted since"},
					{"written, shard 1, b", "or is further back"},
					{"dead, shard 0, too deep", ""},
				} {
					start := time.Now()
					text, why := n.text(t, name(i))
					if text != want.text || !strings.Contains(why, want.why) || (why == "") != (want.why == "") {
						t.Errorf("%s at %s: %s (%s), want %+v", name(i), n.cfg.Node(), text, why, want)
					}
					if took := time.Since(start); took > 100*time.Millisecond {
						t.Errorf("it took %v", took)
					}
				}
			}
		}
		id = newID(8)
		server.receipts.Accepted(id, []message.ShardCount{{Shard: 1, Messages: 8}})
		p.queued = 4
		if text, why := a.text(t, id+".7"); text != "queued, shard 1" || !strings.Contains(why, "4 envelopes wait in the queue of shard 1") {
			t.Errorf("%s (%s)", text, why)
		}
		p.queued = 1
		if _, why := a.text(t, id+".7"); !strings.Contains(why, "1 envelope waits in the queue of shard 1") {
			t.Error(why)
		}
		p.trouble = "shard 1 is paused"
		if text, why := b.text(t, id+".7"); text != "queued, shard 1" || !strings.HasSuffix(why, "; shard 1 is paused") {
			t.Errorf("%s (%s)", text, why)
		}
		// A dead letter that was replayed is where it is now.
		p.put(id+".6", Place{Shard: 1, Written: true, At: now}, InFile{File: "shard-1/1-1_Y.ndjson", Line: 1})
		if text, _ := server.text(t, id+".6"); !strings.HasPrefix(text, "written") {
			t.Error(text)
		}
	})
}

// TestLocateNothing says why a message is not known.
func TestLocateNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWhereabouts(t, 2)
		n := p.start("n", true, 0, 1)
		check := func(id, state, why string) {
			t.Helper()
			text, got := n.text(t, id)
			if text != state || !strings.Contains(got, why) {
				t.Errorf("%s: %s (%s), want %s (%s)", id, text, got, state, why)
			}
		}
		old := newID(2)
		check(old+".0", "not_known", "it was never accepted")
		check("order-1", "not_known", "or by another system")
		check(old, "not_known", "see its receipt; its messages are "+old+".0 to "+old+".1")
		check(old+".2", "not_known", "has 2 messages, from "+old+".0 to "+old+".1")
		p.queued = 3
		check("order-1", "not_known", "3 envelopes wait in the queues, which cannot be looked into")
		p.put(old+".1", Place{Shard: 0, Sibling: true}, InFile{})
		check(old+".1", "queued", "3 envelopes wait in the queues")
		time.Sleep(time.Hour)
		p.forgot[1] = time.Now().Add(-time.Minute)
		check(old+".0", "not_known", "shard 1 remembers what was written since")
		check("order-1", "not_known", "it may have been written before")
		young := newID(1)
		n.receipts.Accepted(young, []message.ShardCount{{Shard: 1, Messages: 1}})
		p.queued = 0
		check(young+".0", "queued, shard 1", "no envelope waited in the queue of shard 1")
		for _, bad := range []string{"", "a b", "a\"", "a\\", "a\n", "ä", strings.Repeat("x", 256)} {
			if _, err := n.Locate(t.Context(), bad); !errors.Is(err, ErrMessageID) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		check(strings.Repeat("x", 255), "not_known", "")
	})
}

// TestLocateSilent: while an owner is silent, what was not found is unknown, and not
// queued, dead or never accepted.
func TestLocateSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWhereabouts(t, 3)
		server, a := p.start("server", true), p.start("a", false, 0, 1)
		id := newID(2)
		server.receipts.Accepted(id, []message.ShardCount{{Shard: 0, Messages: 1}, {Shard: 2, Messages: 1}})
		p.put(id+".0", Place{Shard: 0, Written: true, At: time.Now()}, InFile{File: "shard-0/0-1_X.ndjson", Line: 1})
		if text, _ := server.text(t, id+".0"); text != "written, shard 0, a, shard-0/0-1_X.ndjson, line 1" {
			t.Error(text)
		}
		for _, one := range []string{id + ".1", "order-1"} {
			start := time.Now()
			if text, why := server.text(t, one); text != "unknown, incomplete" || !strings.Contains(why, "no owner of shard 2 has answered") {
				t.Errorf("%s: %s (%s)", one, text, why)
			}
			if took := time.Since(start); took < askTimeout || took > askTimeout+100*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		}
		p.start("b", false, 2)
		if text, _ := a.text(t, id+".1"); text != "queued" {
			t.Error(text)
		}
	})
}

// TestLocateIsShared: who asks for one message waits for one look; the looks of others,
// the searches of files and what waits are bounded. A disk that hangs costs the file only.
func TestLocateIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWhereabouts(t, 1)
		n := p.start("n", false, 0)
		p.delay = 400 * time.Millisecond
		var all sync.WaitGroup
		var busy, late atomic.Int64
		locate := func(id string) {
			all.Go(func() {
				l, err := n.Locate(t.Context(), id)
				switch {
				case errors.Is(err, ErrLooks):
					busy.Add(1)
				case err != nil || l.State != WhereWritten:
					t.Errorf("%+v, %v", l, err)
				case l.Why != nil && strings.Contains(*l.Why, "other searches"):
					late.Add(1)
				}
			})
		}
		for i := range maxLocating + 5 {
			p.put(fmt.Sprint(i), Place{Written: true, At: time.Now()}, InFile{File: "shard-0/f", Line: 1})
		}
		for range 1000 {
			locate("0")
		}
		all.Wait()
		if p.finds != 1 || busy.Load() != 0 {
			t.Errorf("%d searches for one message, %d refused", p.finds, busy.Load())
		}
		for i := range maxLocating + 5 {
			locate(fmt.Sprint(i))
		}
		all.Wait()
		if busy.Load() < 5 || p.finds > 50 {
			t.Errorf("%d of %d are refused, and there were %d searches", busy.Load(), maxLocating+5, p.finds)
		}
		p.delay, p.hangs = 0, time.Hour
		start := time.Now()
		for _, want := range []string{"the disk did not answer within 1s", "other searches took 1s"} {
			if text, why := n.text(t, "0"); text != "written, shard 0, n" || !strings.Contains(why, want) {
				t.Errorf("%s (%s), want %s", text, why, want)
			}
		}
		if took := time.Since(start); took > 3*fileTimeout {
			t.Errorf("it took %v", took)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestLocateHostile: what another process answers is within bounds, or is not used.
func TestLocateHostile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWhereabouts(t, 2)
		n := p.start("n", true, 0)
		enemy := p.memory.Open(nil)
		defer enemy.Close()
		var answers []string
		defer enemy.Answer(whereTopic, func([]byte) []byte {
			if len(answers) == 0 {
				return nil
			}
			text := answers[0]
			answers = answers[1:]
			return []byte(text)
		})()
		place := func(text string) string { return `{"v":1,"node":"e","owns":"1","place":` + text + `}` }
		bad := []string{
			`{`, `{"v":2}`, `{"v":1}`, `{"v":1,"node":"a b"}`, `{"v":1,"node":"` + strings.Repeat("x", 129) + `"}`,
			`{"v":1,"node":"e","owns":"0-2048"}`, `{"v":1,"node":"e","owns":"1","forgot":[{"n":-1}]}`,
			`{"v":1,"node":"e","owns":"1","at":-1}`, `{"v":1,"node":"e","shards":"1"}`,
			place(`{"n":0,"state":"written"}`), place(`{"n":-1,"state":"written"}`), place(`{"n":1,"state":"queued"}`),
			place(`{"n":1,"state":"written","file":"a\u001b[2J","line":1}`), place(`{"n":1,"state":"written","line":-1}`),
			place(`{"n":1,"state":"written","line":1}`), place(`{"n":1,"state":"in_hand","worker":"<b> x"}`),
			place(`{"n":1,"state":"in_hand","since":999999999999999999}`), place(`{"n":1,"state":"written","file":"` + strings.Repeat("x", 256) + `","line":1}`),
		}
		for i, text := range bad {
			answers = []string{text}
			if text, _ := n.text(t, "order-1"); text != "unknown, incomplete" {
				t.Errorf("%s: %s", bad[i], text)
			}
		}
		if foreign, broken := n.cfg.Skips.Counts(); foreign != 1 || broken != int64(len(bad)-1) {
			t.Errorf("%d and %d are skipped", foreign, broken)
		}
		answers = []string{place(`{"n":1,"state":"written","why":"` + strings.Repeat("x", 1000) + `"}`)}
		if _, why := n.text(t, "order-1"); len(why) != maxReason {
			t.Errorf("a reason of %d bytes", len(why))
		}
		for _, text := range []string{`{`, `{"v":1,"node":"e","id":""}`, `{"v":1,"node":"e","id":"a b"}`} {
			if a := n.answer([]byte(text)); a != nil {
				t.Errorf("%s is answered with %s", text, a)
			}
		}
	})
}

// TestLetterLooks: one look at a time, which those share who come while another one runs.
func TestLetterLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &slowLetters{}
		l := letterLooks{queue: q, turn: make(chan struct{}, 1)}
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if found := l.find(t.Context(), fmt.Sprint(i)); !found.looked || (found.place != nil) != (i < 3) {
					t.Errorf("%d: %+v", i, found)
				}
			})
			if i == 50 {
				time.Sleep(time.Second / 2)
			}
		}
		all.Wait()
		if q.looks > 3 {
			t.Errorf("%d looks", q.looks)
		}
		q.fails = true
		if found := l.find(t.Context(), "0"); found.looked || found.place != nil {
			t.Errorf("of a look that fails: %+v", found)
		}
		time.Sleep(time.Minute)
	})
}

// TestLocationJSON: what is not known is null, never left out, 0 or empty.
func TestLocationJSON(t *testing.T) {
	text, err := json.Marshal(Location{ID: "x", State: WhereNotKnown})
	var members map[string]any
	if err != nil || json.Unmarshal(text, &members) != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"submission", "shard", "owner", "worker", "since", "file", "line", "reason", "why"} {
		if value, there := members[name]; !there || value != nil {
			t.Errorf("%s is %v in %s", name, value, text)
		}
	}
	if !slices.Contains([]any{false}, members["complete"]) {
		t.Errorf("%s", text)
	}
}
