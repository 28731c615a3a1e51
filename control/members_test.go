package control

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// beatOf is a beat of a consumer of ten shards.
func beatOf(node string, seq uint64) Beat {
	return Beat{V: broker.BusVersion, Node: node, Seq: seq, Kind: Still, Consumer: &Consumer{Shards: 10, Works: true}}
}

// checkHere fails unless these nodes are here.
func checkHere(t *testing.T, m *members, want ...string) {
	t.Helper()
	var got []string
	for _, b := range m.here() {
		got = append(got, b.Node)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v are here, want %v", got, want)
	}
}

// checkOwners fails unless these nodes may own shards.
func checkOwners(t *testing.T, m *members, now time.Time, want ...string) {
	t.Helper()
	got, _ := m.owners(now, 10)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%v may own shards after %v, want %v", got, now.Sub(start), want)
	}
}

// TestMembersSilence: a node is gone after three beats that did not come.
func TestMembersSilence(t *testing.T) {
	m := newMembers("me")
	if !m.heard(start, beatOf("a", 1)) || m.heard(start.Add(time.Second), beatOf("a", 2)) {
		t.Error("a node comes once")
	}
	last := start.Add(time.Second)
	if gone := passed(m, last.Add(goneAfter-1)); gone != nil {
		t.Errorf("%v are gone too early", gone)
	}
	checkHere(t, m, "a")
	if gone := passed(m, last.Add(goneAfter)); !slices.Equal(gone, []string{"a"}) {
		t.Errorf("%v are gone, want a", gone)
	}
	checkHere(t, m)
	if !m.heard(last.Add(goneAfter), beatOf("a", 3)) {
		t.Error("a node that was silent does not come back")
	}
	passed(m, last.Add(2*goneAfter))
	passed(m, last.Add(2*goneAfter+forgetAfter))
	if len(m.all) != 0 {
		t.Error("a node that is gone is never forgotten")
	}
}

// passed lets the time pass while the bus is there.
func passed(m *members, now time.Time) (gone []string) {
	m.heardSelf(now)
	return m.pass(now)
}

// TestMembersBusAway: a node that was here when the bus was lost owns no shards, and is not
// known to be gone until it has been silent for three beats of a bus that is there.
func TestMembersBusAway(t *testing.T) {
	m := newMembers("me")
	m.heard(start, beatOf("a", 1))
	m.heard(start, beatOf("b", 1))
	passed(m, start)
	lost := func(want ...string) {
		t.Helper()
		var got []string
		for name, k := range m.all {
			if k.lost {
				got = append(got, name)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%v are lost, want %v", got, want)
		}
	}
	if gone := m.pass(start.Add(goneAfter)); gone != nil {
		t.Errorf("%v are gone", gone)
	}
	checkHere(t, m)
	checkOwners(t, m, start.Add(goneAfter))
	lost("a", "b")
	m.pass(start.Add(2 * forgetAfter))
	lost("a", "b")

	back := start.Add(3 * forgetAfter)
	passed(m, back)
	if !m.heard(back.Add(time.Second), beatOf("b", 2)) {
		t.Error("b does not come back")
	}
	lost("a")
	if gone := passed(m, back.Add(goneAfter/3)); gone != nil {
		t.Errorf("%v are gone too early", gone)
	}
	passed(m, back.Add(2*goneAfter/3))
	if gone := passed(m, back.Add(goneAfter)); !slices.Equal(gone, []string{"a"}) {
		t.Errorf("%v are gone, want a", gone)
	}
	lost()
	checkHere(t, m, "b")
}

// TestMembersOrder: late and repeated beats change nothing, also after a goodbye.
func TestMembersOrder(t *testing.T) {
	m := newMembers("me")
	m.heard(start, beatOf("a", 7))
	old := beatOf("a", 6)
	old.Draining = true
	m.heard(start, old)
	checkOwners(t, m, start.Add(standMin), "a")
	bye := beatOf("a", 9)
	bye.Kind = Goodbye
	m.heard(start.Add(time.Second), bye)
	for _, seq := range []uint64{8, 9, 10} {
		if m.heard(start.Add(time.Second), beatOf("a", seq)) {
			t.Errorf("beat %d brings a node back that has said goodbye", seq)
		}
	}
	checkHere(t, m)
	late := beatOf("b", 3)
	late.Kind = Goodbye
	m.heard(start, late)
	if m.all["b"] != nil {
		t.Error("a goodbye makes a node known")
	}
}

// TestMembersStand: a node gets shards when it has been well for a moment; for longer,
// each time that did not last. It loses them at once.
func TestMembersStand(t *testing.T) {
	m, now, seq := newMembers("me"), start, uint64(0)
	say := func(works bool) {
		seq++
		b := beatOf("a", seq)
		b.Consumer.Works = works
		m.heard(now, b)
	}
	pass := func(d time.Duration, works bool) {
		for end := now.Add(d); now.Before(end); now = now.Add(time.Second) {
			say(works)
		}
	}
	for _, stand := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		stand *= time.Second
		say(true)
		checkOwners(t, m, now.Add(stand-1))
		checkOwners(t, m, now.Add(stand), "a")
		pass(stand, true)
		say(false)
		checkOwners(t, m, now)
		pass(5*time.Second, false)
	}
	pass(steadyAfter, true)
	say(false)
	say(true)
	checkOwners(t, m, now.Add(standMin), "a")

	b := beatOf("a", seq+1)
	b.Draining = true
	m.heard(now, b)
	checkOwners(t, m, now.Add(time.Hour))
	if _, others := m.owners(now, 10); len(others) > 0 {
		t.Error("a node that drains may own shards")
	}
	m.heard(now, beatOf("a", seq+2))
	if fit, _ := m.owners(now.Add(time.Hour), 11); len(fit) > 0 {
		t.Error("a consumer with another number of shards may own these")
	}
}

// TestMembersFlood: ever new nodes neither grow the memory nor push out one that is here,
// and a node that says it is this one is refused.
func TestMembersFlood(t *testing.T) {
	m := newMembers("me")
	all := Shards{}
	for n := range maxShards {
		all.Add(n)
	}
	m.heard(start, beatOf("a", 1))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 20 * maxMembers {
		now := start.Add(time.Duration(i) * time.Millisecond)
		b := beatOf(fmt.Sprint("x", i), math.MaxUint64)
		b.Consumer.Runs, b.Consumer.Waits = slices.Clone(all), slices.Clone(all)
		m.heard(now, b)
		if i%1000 == 0 {
			m.heard(now, beatOf("a", uint64(i+2)))
			m.pass(now)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if len(m.all) != maxMembers || m.all["a"] == nil || !m.all["a"].here {
		t.Errorf("%d nodes are known, want %d, and a still here", len(m.all), maxMembers)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("the memory has grown by %d MiB", grown>>20)
	}
	refused := m.refused
	m.heard(start, beatOf("me", 1))
	if m.refused != refused+1 || m.all["me"] != nil {
		t.Error("a beat with this node's own name was taken")
	}
}

func TestParseBeat(t *testing.T) {
	const good = `{"v":1,"node":"a","seq":1,"kind":"beat","unknown":[1],"consumer":{"shards":10,"works":true,"runs":"0-3,7","waits":"9"}}`
	b, err := parseBeat([]byte(good))
	if err != nil || b.Node != "a" || b.Consumer.Runs.String() != "0-3,7" || !b.Consumer.Has(9) || b.Consumer.Has(4) || b.Consumer.Has(-1) {
		t.Errorf("got %+v, %v", b, err)
	}
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, body := range map[string]string{
		"empty":                 "",
		"not JSON":              "{",
		"an array":              "[1]",
		"another version":       replace(`"v":1`, `"v":2`),
		"no node":               replace(`"a"`, `""`),
		"a long node":           replace(`"a"`, `"`+strings.Repeat("a", maxName+1)+`"`),
		"a negative seq":        replace(`"seq":1`, `"seq":-1`),
		"no shards":             replace(`"shards":10`, `"shards":0`),
		"shards without end":    replace(`"0-3,7"`, `"0-999999999"`),
		"shards out of order":   replace(`"0-3,7"`, `"7,0-3"`),
		"a range from its end":  replace(`"0-3,7"`, `"3-0"`),
		"a sign":                replace(`"0-3,7"`, `"-1"`),
		"shards that are words": replace(`"0-3,7"`, `"all"`),
		"a long host":           replace(`"unknown"`, `"info":{"host":"`+strings.Repeat("a", maxText+1)+`"},"x"`),
		"many roles":            replace(`"unknown"`, `"info":{"roles":["","","","","","","","",""]},"x"`),
		"too long":              replace(`"unknown":[1]`, `"x":"`+strings.Repeat("a", 256<<10)+`"`),
	} {
		if b, err := parseBeat([]byte(body)); err == nil {
			t.Errorf("%s: got %+v", name, b)
		}
	}
}

func FuzzParseBeat(f *testing.F) {
	f.Add([]byte(`{"v":1,"node":"a","seq":1,"consumer":{"shards":10,"runs":"0-3,7"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := parseBeat(body)
		if err != nil {
			return
		}
		if c := b.Consumer; c != nil && len(c.Runs)+len(c.Waits) > 2*maxShards {
			t.Errorf("%d shards of one consumer", len(c.Runs)+len(c.Waits))
		}
		m := newMembers("me")
		m.heard(start, b)
		m.owners(start.Add(time.Minute), 10)
	})
}
