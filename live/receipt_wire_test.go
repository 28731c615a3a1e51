package live

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// TestBits holds sets to the simplest ones.
func TestBits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		limit := 1 + rnd.IntN(300)
		var b, o bitset
		in, other := make([]bool, limit), make([]bool, limit)
		for i := range limit {
			if rnd.IntN(3) > 0 {
				in[i] = true
				b.add(i)
			}
			if rnd.IntN(5) == 0 {
				other[i] = true
				o.add(i)
			}
		}
		again, err := parseBits(b.String(), limit)
		if err != nil || !slices.Equal(again, b) {
			t.Fatalf("%v is read as %v, %v", b, again, err)
		}
		numbers := slices.Collect(b.all())
		if len(numbers) > 0 {
			if _, err := parseBits(b.String(), numbers[len(numbers)-1]); err == nil {
				t.Fatalf("%v is read below its highest number", b)
			}
		}
		rest, count := b.without(o), 0
		for i := range limit {
			if b.has(i) != in[i] || rest.has(i) != (in[i] && !other[i]) {
				t.Fatalf("%d in %v, without %v", i, b, o)
			}
			if in[i] {
				count++
			}
		}
		var same bitset
		for _, n := range numbers {
			same.add(n)
		}
		if b.count() != count || len(numbers) != count || !slices.Equal(same, b) {
			t.Fatalf("%v has %d", b, count)
		}
		grows := o.without(b).count() > 0
		if b.join(o) != grows || b.join(o) {
			t.Fatal("a set grows when it should not, or does not when it should")
		}
		if all := upTo(limit); all.count() != limit || all.has(limit) {
			t.Fatalf("%d numbers below %d", all.count(), limit)
		}
	}
	for _, bad := range []string{",", "-", "1-", "a", "2,1", "1,1", "3-2", "5-100", "100", "-1", "1 ", "99999999999999999999"} {
		if b, err := parseBits(bad, 100); err == nil {
			t.Errorf("%q is read as %v", bad, b)
		}
	}
}

// TestMemory holds what a server remembers to a list.
func TestMemory(t *testing.T) {
	const limit = 2500
	m := newMemory(limit)
	rnd := rand.New(rand.NewPCG(3, 4))
	type accepted struct {
		id     string
		at     time.Time
		shards int
	}
	var all []accepted
	for range limit {
		m.add(newID(1), nil, time.Now())
	}
	m.next, m.length = 1<<32-4000, 0 // the numbers begin anew on the way
	for i := range 4 * limit {
		a := accepted{newID(1), time.UnixMilli(int64(i + 1)), rnd.IntN(knownShards + 3)}
		if len(all) > 0 && rnd.IntN(20) == 0 {
			a.id = all[rnd.IntN(len(all))].id // a client tries again
		}
		var shards []message.ShardCount
		for n := range a.shards {
			shards = append(shards, message.ShardCount{Shard: n})
		}
		m.add(a.id, shards, a.at)
		all = append(all, a)
		if len(all) > limit {
			all = all[1:]
		}
		if m.length == 0 {
			all = nil
		}
	}
	if len(all) < limit {
		t.Fatalf("the list has %d", len(all))
	}
	for _, a := range all {
		first := all[slices.IndexFunc(all, func(o accepted) bool { return o.id == a.id })]
		at, shards, found := m.find(a.id)
		want := first.shards
		if want > knownShards {
			want = 0
		}
		if !found || !at.Equal(first.at) || shards.count() != want {
			t.Fatalf("%s: %v, %v, %v; want %+v", a.id, at, shards, found, first)
		}
	}
	for range 1000 {
		if _, _, found := m.find(newID(1)); found {
			t.Fatal("it remembers what it was not told")
		}
	}
}

// FuzzInterest: no body makes an interest beyond the bounds.
func FuzzInterest(f *testing.F) {
	id := newID(10)
	f.Add(broker.Body(interest{V: 1, Node: "n", To: "01jd8y6g5v3x9q2r7t4b1c0d5e", IDs: []asked{{ID: id, Shards: "0-3,7", Seek: true}}}))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := parseInterest(body)
		if err != nil {
			return
		}
		if in.V != broker.BusVersion || len(in.To) != replyLen || len(in.IDs) > maxAsked {
			t.Errorf("%+v", in)
		}
		for _, a := range in.IDs {
			if n, ok := message.CountOf(a.ID); !ok || n > message.MaxEntries {
				t.Errorf("%+v", a)
			}
		}
	})
}

// FuzzAnswer: no body makes a receipt say what cannot be.
func FuzzAnswer(f *testing.F) {
	const id = "01JD8Y6G5V3X9Q2R7T4B1C000A" // of 10
	f.Add(broker.Body(answer{
		V: 1, Node: "n", Owns: "0-4", Forgot: []shardMemory{{1, 1e12}}, Paused: []pausedShards{{"0-2", "disk", 1e12}, {Shards: "3"}},
		IDs: []idState{{
			ID: id, Written: []written{{0, "0-3", 1e12, 2e12, 3e12}}, Dead: []deadState{{1, "4,6", "bad"}},
			Sought: true, Accepted: 1e12, Shards: "0-1",
		}},
	}))
	f.Fuzz(func(t *testing.T, body []byte) {
		r := NewReceipts(ReceiptConfig{Shards: 5})
		e := &entry{id: id, count: 10, created: time.Now(), seek: true}
		r.entries[id] = e
		r.hearAnswer(body, 0)
		got := e.receipt(&r.shards, time.Now())
		if got.Written < 0 || got.Dead < 0 || got.Pending < 0 || got.Written+got.Dead+got.Pending != 10 || got.Done && got.Pending > 0 {
			t.Errorf("%+v", got)
		}
		if len(got.Paused) > maxPauses || len(r.shards.pauses) > maxShards {
			t.Errorf("%d pauses, of %d shards", len(got.Paused), len(r.shards.pauses))
		}
		broker.Body(got)
	})
}
