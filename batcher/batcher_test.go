package batcher_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/batcher"
	"async-data-processor/message"
)

// The tests run their scripts (see rig.play) on a batcher that makes batches of 5,
// or lets three of them leave together.
var (
	alone = batcher.Config{Size: 5, Linger: time.Second}
	// 19 messages are three batches and a part of one, which does not go along.
	together = batcher.Config{Size: 5, Together: 19, Linger: time.Second}
)

func play(t *testing.T, cfg batcher.Config, scripts map[string]string) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { start(t, cfg).play(script) })
		})
	}
}

// TestEnvelopeSpansBatches: a delivery is settled with the last of its batches.
func TestEnvelopeSpansBatches(t *testing.T) {
	for _, n := range []int{1, 4, 5, 6, 10, 12, 2000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, alone)
				p := r.deliver(n)
				for left := n; left > 0; left -= 5 {
					if got := p.settled(); len(got) != 0 {
						t.Errorf("settled with %v, want not yet", got)
					}
					size, cause := 5, message.Full
					if left < 5 {
						r.at(time.Second)
						size, cause = left, message.Lingered
					}
					settle(t, r.take(size, cause), message.Ack)
				}
				if got := p.settled(); len(got) != 1 || got[0].Kind != message.Ack {
					t.Errorf("settled with %v, want one ack", got)
				}
				r.play("end")
			})
		})
	}
}

func TestFlush(t *testing.T) {
	play(t, alone, map[string]string{
		"nothing to flush":        "flush, none, deliver 1, none before 1s, lingered 1, flush, none, end",
		"incomplete":              "deliver 1, flush, flushed 1, at 1h, none, deliver 1, none before 1h0m1s, lingered 1, end",
		"goes on filling":         "deliver 1, flush, deliver 4, full 5, end",
		"twice":                   "deliver 1, flush, flush, flushed 1, none, end",
		"behind full ones":        "deliver 7, flush, full 5, none, flush, flushed 2, end",
		"the rest of an envelope": "deliver 12, flush, full 5, full 5, flush, flushed 2, end",
	})
	play(t, together, map[string]string{"together": "deliver 12, flush, full 10, flushed 2, none, end"})
}

func TestFull(t *testing.T) {
	play(t, alone, map[string]string{
		"leaves at once":                  "deliver 1, none, deliver 1, deliver 2, none, deliver 1, full 5, deliver 4, none, deliver 1, full 5, end",
		"nothing leaves without messages": "at 1h, none, end",
		"intake waits for the workers":    "deliver 4, deliver 13, refuse, at 1h, refuse, full 5, refuse, at 2h, refuse, full 5, refuse, full 5, deliver 3, full 5, end",
	})
	play(t, batcher.Config{Size: 1, Linger: time.Second}, map[string]string{
		"of one": "deliver 3, refuse, full 1, refuse, full 1, refuse, full 1, at 1m, none, end",
	})
}

// TestLinger: it counts from the first message of each batch anew. While no worker
// takes it, a lingered batch goes on filling.
func TestLinger(t *testing.T) {
	play(t, alone, map[string]string{
		"without traffic":                      "at 700ms, deliver 3, none before 1.7s, lingered 3, end",
		"with traffic":                         "deliver 1, at 333ms, deliver 1, at 666ms, deliver 1, at 999ms, deliver 1, none before 1s, lingered 4, end",
		"after a full batch":                   "deliver 2, at 700ms, deliver 3, full 5, at 800ms, deliver 1, none before 1.8s, lingered 1, end",
		"after a lingered batch":               "deliver 1, at 1s, lingered 1, deliver 1, none before 2s, lingered 1, end",
		"of what a full batch left over":       "deliver 7, at 400ms, full 5, none before 1.4s, lingered 2, end",
		"after a batch that waited for longer": "deliver 6, at 1m, full 5, none, none before 1m1s, lingered 1, end",
		"filled in part":                       "deliver 1, at 1m, deliver 2, at 2m, lingered 3, end",
		"filled":                               "deliver 1, at 1m, deliver 3, deliver 4, refuse, full 5, none before 1m1s, lingered 3, end",
	})
	play(t, batcher.Config{Size: 5}, map[string]string{
		"not at all": "deliver 1, lingered 1, deliver 12, full 5, full 5, lingered 2, none, end",
	})
}

func TestDrain(t *testing.T) {
	play(t, alone, map[string]string{
		"flushes what is held":           "deliver 3, close, flushed 3, closed",
		"waits for the workers":          "deliver 3, close, at 1h, flushed 3, closed",
		"after a full batch its rest":    "deliver 12, close, at 1h, full 5, full 5, flushed 2, closed",
		"a full batch is the last":       "deliver 5, close, full 5, closed",
		"a lingered one keeps its cause": "deliver 2, at 1s, close, lingered 2, closed",
		"between two batches":            "deliver 5, full 5, end",
		"at once":                        "end",
	})
}

// TestFullBatchesLeaveTogether: those that found no worker, and no others. A long
// delivery waits for the workers, and intake with it.
func TestFullBatchesLeaveTogether(t *testing.T) {
	play(t, together, map[string]string{
		"alone":         "deliver 5, full 5, end",
		"two":           "deliver 5, full 5, deliver 4, deliver 8, full 10, at 1s, lingered 2, end",
		"three at most": "deliver 7, deliver 7, deliver 25, refuse, full 15, refuse, full 15, deliver 2, full 10, at 1s, lingered 1, end",
	})
}

// TestIncompleteBehindFull: an incomplete batch lingers behind full ones, from its
// own first message, and goes on filling while they wait.
func TestIncompleteBehindFull(t *testing.T) {
	play(t, together, map[string]string{
		"not taken along":                "deliver 7, at 1h, full 5, lingered 2, end", // it has lingered behind the other
		"not before its time":            "deliver 5, at 700ms, deliver 2, at 1.6s, full 5, none, none before 1.7s, lingered 2, end",
		"filled":                         "deliver 7, at 1h, deliver 4, full 10, none, at 1h1s, lingered 1, end",
		"filled after it lingered alone": "deliver 2, at 1h, deliver 9, full 10, none, at 1h1s, lingered 1, end",
		"flushed":                        "deliver 12, close, at 1h, full 10, flushed 2, closed",
	})
}
