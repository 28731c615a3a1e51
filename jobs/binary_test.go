package jobs

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// TestSeed: a runner without a subprotocol speaks the binary frames, as they are on the wire.
func TestSeed(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e := rg.start("node", rg.store)
		p := e.dial(true)
		text := p.text()
		var jobs []struct {
			Name, Image string
			Command     []string
		}
		mustJSON(t, text[1:], &jobs)
		if text[0] != 1 || len(jobs) != 4 || jobs[2].Image != "cuda" || jobs[0].Command[1] != "hello" {
			t.Errorf("got %q", text)
		}
		e.create("gpu")  // not for it
		e.create("file") // nor this
		run := e.create("hello")
		second := e.create("again")
		want := []byte{2, 0, 0, 0, byte(run.ID), 0, 0, 0, 0, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o'}
		if got := p.text(); !bytes.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		p.silent(5 * time.Second) // it has one slot
		if got := rg.run(run.ID); got.State != store.Running || !strings.HasPrefix(got.Runner, "old-") {
			t.Errorf("the run is %+v", got)
		}
		if v := e.Runners(); len(v) != 1 || !v[0].Seed || v[0].Slots != 1 || !v[0].Working {
			t.Errorf("the runner is %+v", v)
		}
		report := func(kind byte, id int64) { p.socket.in <- binary.BigEndian.AppendUint32([]byte{kind}, uint32(id)) }
		for _, odd := range [][]byte{{}, {1}, {2, 0, 0}, {9, 0, 0, 0, 1}, []byte("hello"), {2, 0, 0, 0, 99}, {2, 255, 255, 255, 255}, {3, 0, 0, 0, byte(run.ID), 0}} {
			p.socket.in <- odd // is ignored
		}
		report(1, run.ID)
		report(2, run.ID)
		if got := p.text(); string(got[13:]) != "again" {
			t.Errorf("got %q", got)
		}
		if got := rg.run(run.ID); got.State != store.Succeeded {
			t.Errorf("the run is %+v", got)
		}
		report(3, second.ID)
		time.Sleep(time.Second)
		if got := rg.run(second.ID); got.State != store.Queued || got.Spent != 1 || got.Exit == nil || *got.Exit != 1 {
			t.Errorf("the run is %+v", got)
		}
		e.stop()
		p.wantClose(closeDrain, "")
	})
}

// TestSeedLease: the lease of an old runner is renewed while it is connected, and not after.
func TestSeedLease(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e := rg.start("node", rg.store)
		p := e.dial(true)
		p.text()
		run := e.create("again")
		p.text()
		time.Sleep(time.Millisecond)
		before := rg.run(run.ID).LeaseUntil
		for rg.run(run.ID).LeaseUntil.Equal(before) { // the database has its own clock
			p.silent(frame.Beat)
		}
		p.leave()
		if got := rg.run(run.ID); got.State != store.Running {
			t.Errorf("the run is %+v", got)
		}
		rg.set("lease_until = 1")
		time.Sleep(5 * time.Second)
		if got := rg.run(run.ID); got.State != store.Queued || got.Outcome != store.Lost {
			t.Errorf("the run is %+v", got)
		}
	})
}

// TestSeedTimeout: an old runner knows no time-out, so the engine ends the run.
func TestSeedTimeout(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e := rg.start("node", rg.store)
		p := e.dial(true)
		p.text()
		run := e.create("hello")
		p.text()
		time.Sleep(defaultTimeout + defaultGrace + 2*frame.Beat)
		if got := rg.run(run.ID); got.State != store.TimedOut {
			t.Errorf("the run is %+v", got)
		}
		p.wantClose(closeSlow, "in time")
	})
}

// FuzzFrame: whatever a runner sends is refused, or a frame that keeps the bounds.
func FuzzFrame(f *testing.F) {
	for _, seed := range []string{
		`{"type":"hello","v":1,"runner":"r1","slots":1,"labels":["a"],"attempts":[{"run":1,"attempt":2,"log":3}]}`,
		`{"type":"beat","seq":18446744073709551615,"attempts":[{"run":9223372036854775807,"attempt":1}]}`,
		`{"type":"log","run":1,"attempt":1,"offset":5,"data":"aGVsbG8=","cut":7}`,
		`{"type":"end","run":1,"attempt":1,"outcome":"exited","exit":75,"why":"\u0000\u001b[31m\ud800","offset":9}`,
		`{"type":"take","run":1,"attempt":1}`, `{"type":"refuse","run":1,"attempt":1,"why":"no"}`, `{"type":"drain"}`, "null", "[]", "{}", "\x00", `{"TYPE":"take"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := parseFrame(text)
		if err != nil {
			if len(err.Error()) > 200 || !json.Valid([]byte(`"`+strings.Trim(strings.ReplaceAll(err.Error(), `"`, ""), "\\")+`"`)) && strings.ContainsAny(err.Error(), "\x00\n") {
				t.Errorf("the reason %q cannot be told", err)
			}
			return
		}
		if len(got.Data) > frame.MaxLogPart || len(got.Why) > frame.MaxWhy || len(got.Attempts) > frame.MaxAttempts && got.Type == frame.BeatFrame {
			t.Errorf("%s has %d bytes, %d of why, %d attempts", got.Type, len(got.Data), len(got.Why), len(got.Attempts))
		}
		if strings.ContainsAny(got.Why, "\x00\n\x1b") {
			t.Errorf("why is %q", got.Why)
		}
		if got.Type == frame.Hello && checkHello(got) == nil && (checkName(got.Runner) != nil || got.Slots < 1 || got.Slots > frame.MaxSlots) {
			t.Errorf("got %+v", got)
		}
		if kind, run, ok := frame.BinaryReport(text); ok && (len(text) != 5 || kind > 3 || run != int32(binary.BigEndian.Uint32(text[1:]))) {
			t.Errorf("got %d %d of %v", kind, run, text)
		}
	})
}
