package message_test

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"async-data-processor/message"
)

// ledger is a broker that remembers how it was told to settle.
type ledger struct {
	mu       sync.Mutex
	outcomes []message.Outcome
	err      error // what it answers
}

func (l *ledger) settle(o message.Outcome) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outcomes = append(l.outcomes, o)
	return l.err
}

func (l *ledger) want(t *testing.T, want ...message.Outcome) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.outcomes) != len(want) {
		t.Fatalf("settled with %v, want %v", l.outcomes, want)
	}
	for i, o := range l.outcomes {
		if !reflect.DeepEqual(o, want[i]) {
			t.Errorf("settled with %v, want %v", o, want[i])
		}
	}
}

func (l *ledger) delivery() *message.Delivery {
	return message.NewDelivery(message.Envelope{ID: "E"}, false, l.settle)
}

var (
	ack      = message.Outcome{Kind: message.Ack}
	dead     = message.Outcome{Kind: message.DeadLetter, Reason: "poison"}
	returned = message.Outcome{Kind: message.Return, Reason: "disk full"}
)

func TestDeliverySettlesOnce(t *testing.T) {
	for _, o := range []message.Outcome{ack, dead, returned} {
		var l ledger
		d := l.delivery()
		if err := d.Settle(o); err != nil {
			t.Errorf("settle: %v", err)
		}
		l.want(t, o)
		for _, again := range []message.Outcome{ack, dead, returned} {
			if err := d.Settle(again); !errors.Is(err, message.ErrSettled) {
				t.Errorf("second settle: %v, want ErrSettled", err)
			}
			if err := d.Resolve(1, again); !errors.Is(err, message.ErrSettled) {
				t.Errorf("resolve after settle: %v, want ErrSettled", err)
			}
		}
		l.want(t, o)
	}
}

// TestDeliverySettleFails: the broker could not be told, and the right to tell
// it is spent all the same, as the outcome is unknown.
func TestDeliverySettleFails(t *testing.T) {
	l := ledger{err: errors.New("connection lost")}
	d := l.delivery()
	if err := d.Settle(ack); !errors.Is(err, l.err) {
		t.Errorf("got %v, want %v", err, l.err)
	}
	if err := d.Settle(returned); !errors.Is(err, message.ErrSettled) {
		t.Errorf("got %v, want ErrSettled", err)
	}
	l.want(t, ack)
}

// TestDeliveryResolves: the outcome of a delivery is the heaviest of its
// messages', whenever it came, and not known before the last.
func TestDeliveryResolves(t *testing.T) {
	dead2 := message.Outcome{Kind: message.DeadLetter, Reason: "another"}
	type step struct {
		n int
		o message.Outcome
	}
	tests := []struct {
		name  string
		steps []step
		want  message.Outcome
	}{
		{"one batch", []step{{5, ack}}, ack},
		{"three batches", []step{{2, ack}, {2, ack}, {1, ack}}, ack},
		{"a dead letter first", []step{{1, dead}, {4, ack}}, dead},
		{"a dead letter last", []step{{4, ack}, {1, dead}}, dead},
		{"a dead letter between", []step{{1, ack}, {3, dead}, {1, ack}}, dead},
		{"two dead letters tell the first reason", []step{{1, dead}, {1, dead2}, {3, ack}}, dead},
		{"returned outweighs dead", []step{{1, returned}, {1, dead}, {3, ack}}, returned},
		{"in any order", []step{{1, dead}, {1, ack}, {3, returned}}, returned},
		{"named", []step{{1, named(1)}, {4, ack}}, named(1)},
		{"named in two batches", []step{{1, named(1)}, {1, ack}, {2, named(3, 4)}, {1, ack}}, outcomeOf("message 1 is poison", 1, 3, 4)},
		{"named all", []step{{2, named(1, 2)}, {3, named(3, 4, 5)}}, outcomeOf("message 1 is poison", 1, 2, 3, 4, 5)},
		{"not named speaks for all", []step{{1, dead}, {1, named(1)}, {3, ack}}, dead},
		{"named and returned", []step{{1, named(1)}, {1, returned}, {3, ack}}, returned},
		{"nothing resolved is nothing", []step{{0, ack}, {5, ack}}, ack},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var l ledger
			d := l.delivery()
			d.Expect(5)
			for _, s := range tt.steps {
				l.want(t)
				must(t, d.Resolve(s.n, s.o))
			}
			l.want(t, tt.want)
		})
	}
}

// named is the outcome of messages that are dead, each for itself.
func named(numbers ...int) message.Outcome {
	return outcomeOf(fmt.Sprintf("message %d is poison", numbers[0]), numbers...)
}

func outcomeOf(reason string, numbers ...int) message.Outcome {
	o := message.Outcome{Kind: message.DeadLetter, Reason: reason}
	for _, n := range numbers {
		o.Dead = append(o.Dead, message.Dead{Line: fmt.Append(nil, n), Reason: fmt.Sprintf("message %d is poison", n)})
	}
	return o
}

// TestDeliveryOfOneDies: a message that is alone in its envelope is dead with
// the envelope as it came.
func TestDeliveryOfOneDies(t *testing.T) {
	var l ledger
	d := l.delivery()
	d.Expect(1)
	must(t, d.Resolve(1, named(1)))
	l.want(t, message.Outcome{Kind: message.DeadLetter, Reason: "message 1 is poison"})
}

func TestDeliveryResolveFails(t *testing.T) {
	l := ledger{err: errors.New("connection lost")}
	d := l.delivery()
	d.Expect(2)
	if err := d.Resolve(1, ack); err != nil {
		t.Errorf("first of two: %v", err)
	}
	if err := d.Resolve(1, ack); !errors.Is(err, l.err) {
		t.Errorf("last of two: %v, want %v", err, l.err)
	}
	if err := d.Resolve(1, ack); !errors.Is(err, message.ErrSettled) {
		t.Errorf("one too many: %v, want ErrSettled", err)
	}
	l.want(t, ack)
}

func TestDeliveryResolvesConcurrently(t *testing.T) {
	const n = 200
	for round := range 50 {
		var l ledger
		d := l.delivery()
		d.Expect(n)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range n {
			o := ack
			if i == round {
				o = dead
			}
			wg.Go(func() {
				<-start
				if err := d.Resolve(1, o); err != nil {
					t.Errorf("resolve: %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		l.want(t, dead)
	}
}

func TestDeliverySettlesConcurrently(t *testing.T) {
	for range 100 {
		var l ledger
		var won atomic.Int32
		d := l.delivery()
		start := make(chan struct{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				<-start
				switch err := d.Settle(ack); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, message.ErrSettled):
					t.Errorf("settle: %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d settled, want 1", won.Load())
		}
		l.want(t, ack)
	}
}

// TestDeliverySettleMayReenter: a broker's settle may look at the delivery.
func TestDeliverySettleMayReenter(t *testing.T) {
	var d *message.Delivery
	d = message.NewDelivery(message.Envelope{}, false, func(o message.Outcome) error { return d.Settle(o) })
	if err := d.Settle(ack); !errors.Is(err, message.ErrSettled) {
		t.Errorf("got %v, want ErrSettled", err)
	}
}
