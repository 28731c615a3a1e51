package output

import (
	"fmt"
	"time"

	"pgregory.net/rapid"

	"async-data-processor/broker/brokertest"
)

// step is something that happens.
type step struct {
	what string
	do   func(w *world)
}

func (s step) GoString() string { return s.what }

// stepKinds is what may happen, the earlier the simpler, and in proportion.
var stepKinds = []func(t *rapid.T) step{
	publishStep, publishStep, publishStep, publishStep, passStep, passStep,
	faultStep, faultStep, faultStep, faultStep, settleStep, breakStep,
	killStep, drainStep, standbyStep, clockStep, recordFaultStep, awayStep,
}

func drawStep(t *rapid.T) step {
	return even(t, "step", stepKinds...)(t)
}

// even draws each of the choices as often as any other, which rapid does not:
// it prefers the first. Like rapid it shrinks to the first.
func even[T any](t *rapid.T, label string, choices ...T) T {
	n := 0
	for range 8 {
		n <<= 1
		if rapid.Bool().Draw(t, label) {
			n++
		}
	}
	return choices[n*len(choices)>>8]
}

func publishStep(t *rapid.T) step {
	n := rapid.IntRange(1, 12).Draw(t, "messages")
	again := 0
	if even(t, "repeats", false, false, true) {
		again = rapid.IntRange(1, 20).Draw(t, "again")
	}
	failures := even(t, "failures", nil, nil, nil, nil, nil,
		[]brokertest.Failure{brokertest.Unsaved}, []brokertest.Failure{brokertest.Saved},
		[]brokertest.Failure{brokertest.Refused, brokertest.Saved})
	return step{
		fmt.Sprintf("publish %d, back by %d, failures %v", n, again, failures),
		func(w *world) { w.publish(n, again, failures...) },
	}
}

func passStep(t *rapid.T) step {
	d := even(t, "time", time.Millisecond, 100*time.Millisecond, modelLinger, 3*time.Second, longestHang)
	return step{fmt.Sprintf("%v pass", d), func(*world) { time.Sleep(d) }}
}

var (
	// modelCalls are the kinds of calls that faults are drawn for; any is "".
	modelCalls = []string{
		"", "create", "write", "fsync", "close", "link", "folder fsync",
		"held", "locked", "open", "linked", "remove", "folder close", "names", "read",
		"reopen", "truncate", "forget", "size", "read at",
	}
	// hangCalls are those that may hang: not those of an undo. In a bubble time
	// stands still while a goroutine waits for a mutex, so what has one must
	// not hang (see modelFolder.hang for the gate).
	hangCalls = []string{"create", "write", "fsync", "close", "link", "folder fsync", "held", "held", "open", "reopen", "truncate"}
	// panicCalls are those that may panic: not those of an undo.
	panicCalls = []string{"create", "write", "fsync", "close", "held", "open", "link", "folder fsync"}
)

func faultStep(t *rapid.T) step {
	f := fault{verdict: even(t, "verdict", pass, pass, fail, fail, happened, short, torn, crashBefore, crashAfter, panicBefore, panicAfter)}
	calls := modelCalls
	switch f.verdict {
	case panicBefore, panicAfter:
		calls = panicCalls
	case short, torn:
		calls = []string{"write"}
	case fail, happened:
		f.more = max(0, rapid.IntRange(-4, 4).Draw(t, "more"))
	case crashBefore, crashAfter:
		f.power, f.bits = drawPower(t)
	}
	if f.verdict == pass || even(t, "hangs", false, false, false, true) {
		if len(calls) == len(modelCalls) {
			calls = hangCalls
		}
		f.hang = even(t, "hang", 10*time.Millisecond, time.Second, modelTimeout+time.Second, modelTimeout+time.Second, longestHang)
	}
	f.call = even(t, "call", calls...)
	f.skip = even(t, "skip", 0, 0, 0, 1, 1, 1, 2, 3, 5)
	return step{f.GoString(), func(w *world) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.faults = append(w.faults, f)
	}}
}

func drawPower(t *rapid.T) (power bool, bits uint64) {
	if power = rapid.Bool().Draw(t, "power"); power {
		bits = rapid.Uint64().Draw(t, "bits")
	}
	return power, bits
}

// settleStep lets a settle fail, with or without reaching the broker.
func settleStep(t *rapid.T) step {
	v := even(t, "verdict", fail, happened)
	return step{fmt.Sprintf("a settle: %v", v), func(w *world) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.settleFaults = append(w.settleFaults, v)
	}}
}

func breakStep(*rapid.T) step {
	return step{"the broker's connections break", func(w *world) { w.memory.Break() }}
}

func killStep(t *rapid.T) step {
	slot := even(t, "slot", 0, 1)
	power, bits := drawPower(t)
	return step{fmt.Sprintf("process %d is killed, power lost: %v, bits %#x", slot, power, bits), func(w *world) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if p := w.processes[slot]; p != nil {
			w.crash(p, power, bits)
		}
	}}
}

func drainStep(t *rapid.T) step {
	slot := even(t, "slot", 0, 1)
	patience := even(t, "patience", time.Hour, time.Second, 0)
	return step{fmt.Sprintf("process %d is drained, for %v at most", slot, patience), func(w *world) {
		if p := w.process(slot); p != nil {
			p.drain(patience)
		}
	}}
}

func standbyStep(*rapid.T) step {
	return step{"a standby starts", func(w *world) {
		if p := w.process(1); p != nil {
			select {
			case <-p.ended:
			default:
				return
			}
		}
		w.launch(1)
	}}
}

// clockStep sets the clock.
func clockStep(t *rapid.T) step {
	const day = 24 * time.Hour
	ahead := even(t, "ahead", day, -day, 0, 3650*day, -10_000*day)
	return step{fmt.Sprintf("the clock is ahead by %v", ahead), func(w *world) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ahead = ahead
	}}
}

func (w *world) process(slot int) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.processes[slot]
}
