package brokertest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// An engine may tell the broker of several acknowledgements together. These
// settle some of what is unsettled, in any order and from many goroutines, and
// look at what comes again.
var ackCases = []testCase{
	{"acknowledges what it is told to, up to Close", acknowledgesUntilClose},
	{"acknowledges nothing else when the connection is cut", acknowledgesUntilCut},
	{"acknowledges beside returns and dead letters", acknowledgesBeside},
	{"acknowledges late ones when the intake has ended", acknowledgesAfterIntake},
}

// few is how many settles a channel of RabbitMQ has on their way to a quorum
// queue, less two. It forgets what is beyond when it ends: that comes again.
const few = 30

// fill publishes n envelopes to the shard and takes them all.
func (c *client) fill(shard, n int) (*intake, []*message.Delivery) {
	c.t.Helper()
	var envelopes []message.Envelope
	for range n {
		envelopes = append(envelopes, envelope(shard, 1))
	}
	for i, err := range c.together(c.t.Context(), envelopes...) {
		if err != nil {
			c.insist(envelopes[i])
		}
	}
	in := c.consume(shard, n)
	var held []*message.Delivery
	for _, d := range in.take(n) {
		held = append(held, d)
	}
	// In the order in which they were handed out, nearly, as workers settle.
	slices.SortFunc(held, func(x, y *message.Delivery) int {
		return slices.IndexFunc(envelopes, func(e message.Envelope) bool { return e.ID == x.ID }) -
			slices.IndexFunc(envelopes, func(e message.Envelope) bool { return e.ID == y.ID })
	})
	for i := range held {
		j := min(len(held)-1, i+rand.IntN(4))
		held[i], held[j] = held[j], held[i]
	}
	return in, held
}

// ackAll acknowledges from some goroutines; an error must be ErrStale.
func ackAll(t *testing.T, deliveries []*message.Delivery) {
	const workers = 4
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(deliveries); i += workers {
				if err := deliveries[i].Settle(ack); err != nil && !errors.Is(err, broker.ErrStale) {
					t.Errorf("settling: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// some splits deliveries at random.
func some(deliveries []*message.Delivery) (chosen, rest []*message.Delivery) {
	for _, d := range deliveries {
		if rand.IntN(3) > 0 {
			chosen = append(chosen, d)
		} else {
			rest = append(rest, d)
		}
	}
	return chosen, rest
}

// comeAgain checks that these deliveries come again, and none but them.
func (c *client) comeAgain(shard int, want []*message.Delivery) {
	c.t.Helper()
	in := c.consume(shard, 100)
	got := in.take(len(want))
	for _, d := range want {
		if got[d.ID] == nil {
			c.t.Errorf("%q does not come again, though it was not acknowledged", d.ID)
		}
	}
	in.none()
	for _, d := range got {
		settle(c.t, d, ack)
	}
	in.stop()
}

func acknowledgesUntilClose(t *testing.T, e *Engine) {
	for range 5 {
		c := open(t, e)
		_, held := c.fill(0, few)
		acked, rest := some(held)
		ackAll(t, acked)
		_ = c.Close() // at once
		next := open(t, e)
		next.comeAgain(0, rest)
		_ = next.Close()
	}
	empty(t, e, 0)
}

func acknowledgesUntilCut(t *testing.T, e *Engine) {
	for range 2 {
		c := open(t, e)
		in, held := c.fill(0, 60)
		acked, rest := some(held)
		var wg sync.WaitGroup
		wg.Go(func() { ackAll(t, acked) })
		e.Break(t)
		wg.Wait()
		// What was acknowledged too late comes again, the rest does for sure.
		missing := map[string]bool{}
		for _, d := range rest {
			missing[d.ID] = true
		}
		for len(missing) > 0 {
			d := in.next()
			if !slices.ContainsFunc(held, func(h *message.Delivery) bool { return h.ID == d.ID }) {
				t.Errorf("%q was never published", d.ID)
			}
			delete(missing, d.ID)
			settle(t, d, ack)
		}
		for _, d := range rest {
			if err := d.Settle(ack); !errors.Is(err, broker.ErrStale) {
				t.Errorf("a late ack: %v, want ErrStale", err)
			}
		}
		in.drain(e, 0)
		in.stop()
		_ = c.Close()
	}
}

// drain acknowledges what comes until the shard has nothing left.
func (in *intake) drain(e *Engine, shard int) {
	in.t.Helper()
	for began := time.Now(); ; {
		select {
		case d := <-in.deliveries:
			settle(in.t, d, ack)
		case <-time.After(quiet):
			if e.Depth(in.t, shard) == 0 {
				return
			}
		}
		if time.Since(began) > 2*patience {
			in.t.Fatal("the shard does not get empty")
		}
	}
}

func acknowledgesBeside(t *testing.T, e *Engine) {
	c := open(t, e)
	in, held := c.fill(0, 60)
	acked, rest := some(held)
	dead, returned := rest[:len(rest)/2], rest[len(rest)/2:]
	var wg sync.WaitGroup
	wg.Go(func() { ackAll(t, acked) })
	for _, d := range dead {
		settle(t, d, message.Outcome{Kind: message.DeadLetter, Reason: "dead"})
	}
	for _, d := range returned {
		settle(t, d, giveUp)
	}
	wg.Wait()
	again := in.take(len(returned))
	for _, d := range returned {
		if again[d.ID] == nil {
			t.Errorf("%q does not come again, though it was returned", d.ID)
		}
	}
	in.none()
	for _, d := range again {
		settle(t, d, ack)
	}
	in.stop()
	_ = c.Close()
	got := deadLetters(t, e, len(dead))
	for _, d := range dead {
		if !slices.ContainsFunc(got, func(l DeadLetter) bool { return l.ID == d.ID }) {
			t.Errorf("%q is no dead letter", d.ID)
		}
	}
	empty(t, e, 0)
}

func acknowledgesAfterIntake(t *testing.T, e *Engine) {
	c := open(t, e)
	in, held := c.fill(0, few)
	in.stop()
	acked, rest := some(held)
	ackAll(t, acked)
	for _, d := range rest {
		settle(t, d, giveUp) // the last one ends the subscription
	}
	c.comeAgain(0, rest)
	_ = c.Close()
	empty(t, e, 0)
}
