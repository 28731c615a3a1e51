package message_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"async-data-processor/message"
)

// some returns n messages.
func some(n int) []message.Message {
	return slices.Repeat([]message.Message{{Line: []byte(line0)}}, n)
}

func settle(t *testing.T, b *message.Batch, o message.Outcome) {
	t.Helper()
	if err := b.Settle(o); err != nil {
		t.Errorf("settle: %v", err)
	}
}

// TestBatchSpansDeliveries fills batches of five as a batcher does: the second
// batch begins in the middle of a delivery.
func TestBatchSpansDeliveries(t *testing.T) {
	var l1, l2, l3 ledger
	d1, d2, d3 := l1.delivery(), l2.delivery(), l3.delivery()
	d1.Expect(3)
	d2.Expect(6)
	d3.Expect(1)

	var a, b message.Batch
	a.Add(d1, some(3)...)
	a.Add(d2, some(2)...)
	b.Add(d2, some(1)...) // one by one, in the same delivery
	b.Add(d2, some(3)...)
	b.Add(d3, some(1)...)
	if len(a.Messages) != 5 || len(b.Messages) != 5 {
		t.Fatalf("batches of %d and %d messages, want 5 and 5", len(a.Messages), len(b.Messages))
	}

	settle(t, &b, ack)
	l1.want(t)
	l2.want(t)
	l3.want(t, ack)
	settle(t, &a, returned)
	l1.want(t, returned)
	l2.want(t, returned)
	l3.want(t, ack)
}

// TestBatchInterleaves adds to two deliveries in turn.
func TestBatchInterleaves(t *testing.T) {
	var l1, l2 ledger
	d1, d2 := l1.delivery(), l2.delivery()
	d1.Expect(3)
	d2.Expect(2)
	var b message.Batch
	b.Add(d1, some(1)...)
	b.Add(d2, some(2)...)
	b.Add(d1, some(2)...)
	settle(t, &b, dead)
	l1.want(t, deadLines(3))
	l2.want(t, deadLines(2))
}

// deadLines is the outcome dead of n messages.
func deadLines(n int) message.Outcome {
	o := dead
	o.Dead = slices.Repeat([]message.Dead{{Line: []byte(line0), Reason: dead.Reason}}, n)
	return o
}

// TestBatchLeavesRunsAlone: it may keep the slices that it is given, and changes
// none of them.
func TestBatchLeavesRunsAlone(t *testing.T) {
	var l ledger
	d := l.delivery()
	d.Expect(4)
	run := []message.Message{{Line: []byte("1")}, {Line: []byte("2")}, {Line: []byte("3")}}
	var a, b message.Batch
	a.Add(d, run[:1]...)
	b.Add(d, run[1:2]...)
	a.Add(d, message.Message{Line: []byte("4")})
	b.Add(d, run[2:]...)
	equalLines(t, a.Messages, []string{"1", "4"})
	equalLines(t, b.Messages, []string{"2", "3"})
	equalLines(t, run, []string{"1", "2", "3"})
}

func TestBatches(t *testing.T) {
	for _, tt := range []struct{ size, messages, want int }{
		{0, 1, 1},
		{0, 100, 1},
		{5, 1, 1},
		{5, 5, 1},
		{5, 6, 2},
		{5, 40, 8},
		{1, 3, 3},
	} {
		b := message.Batch{Size: tt.size}
		b.Add(nil, some(tt.messages)...)
		if got := b.Batches(); got != tt.want {
			t.Errorf("%d messages in files of %d are %d batches, want %d", tt.messages, tt.size, got, tt.want)
		}
	}
}

// TestBatchNamesTheDead: of a delivery in several batches, only the messages of the
// dead batch are dead.
func TestBatchNamesTheDead(t *testing.T) {
	var l1, l2 ledger
	d1, d2 := l1.delivery(), l2.delivery()
	d1.Expect(2)
	d2.Expect(2)
	var a, b, c message.Batch
	a.Add(d1, message.Message{Line: []byte("1")})
	b.Add(d1, message.Message{Line: []byte("2")})
	b.Add(d2, message.Message{Line: []byte("3")})
	c.Add(d2, message.Message{Line: []byte("4")})
	settle(t, &a, ack)
	settle(t, &b, dead)
	settle(t, &c, ack)
	for line, l := range map[string]*ledger{"2": &l1, "3": &l2} {
		want := dead
		want.Dead = []message.Dead{{Line: []byte(line), Reason: dead.Reason}}
		l.want(t, want)
	}
}

// TestBatchSplit splits batches of every size over deliveries of three
// messages down to single messages, and settles those.
func TestBatchSplit(t *testing.T) {
	for n := 2; n <= 20; n++ {
		var ledgers []*ledger
		var d *message.Delivery
		whole := message.Batch{Cause: message.Lingered, Size: 7}
		for i := range n {
			if i%3 == 0 {
				l := new(ledger)
				ledgers = append(ledgers, l)
				d = l.delivery()
				d.Expect(min(3, n-i))
			}
			whole.Add(d, message.Message{Line: fmt.Append(nil, i)})
		}
		whole.Abandon()
		var split func(b *message.Batch) (lines []string)
		split = func(b *message.Batch) []string {
			if !b.BeginPublish() || b.Cause != message.Lingered || b.Size != 7 {
				t.Fatalf("half of %d messages (%v, size %d) has no rights of its own, or is another's", len(b.Messages), b.Cause, b.Size)
			}
			if len(b.Messages) == 1 {
				settle(t, b, ack)
				return []string{string(b.Messages[0].Line)}
			}
			first, second := b.Split()
			if diff := len(second.Messages) - len(first.Messages); diff < 0 || diff > 1 {
				t.Fatalf("halves of %d and %d", len(first.Messages), len(second.Messages))
			}
			return append(split(first), split(second)...)
		}
		first, second := whole.Split()
		for i, line := range append(split(first), split(second)...) {
			if line != fmt.Sprint(i) {
				t.Errorf("message %d of %d became %s", i, n, line)
			}
		}
		for _, l := range ledgers {
			l.want(t, ack)
		}
	}
}

func TestBatchSettleGoesOn(t *testing.T) {
	l1, l2, l3 := ledger{err: errors.New("one")}, ledger{}, ledger{err: errors.New("three")}
	var b message.Batch
	for _, l := range []*ledger{&l1, &l2, &l3} {
		d := l.delivery()
		d.Expect(1)
		b.Add(d, some(1)...)
	}
	err := b.Settle(ack)
	if !errors.Is(err, l1.err) || !errors.Is(err, l3.err) {
		t.Errorf("got %v, want both errors", err)
	}
	for _, l := range []*ledger{&l1, &l2, &l3} {
		l.want(t, ack)
	}
	var settled interface{ Unwrap() []error }
	if err := b.Settle(returned); !errors.As(err, &settled) || len(settled.Unwrap()) != 3 || !errors.Is(err, message.ErrSettled) {
		t.Errorf("second settle: %v, want ErrSettled of each", err)
	}
	settle(t, new(message.Batch), ack) // nothing to settle
}

// TestBatchRightsExclude lets a writer that tries again race supervisors that
// give up on it: one side wins, whatever the order.
func TestBatchRightsExclude(t *testing.T) {
	for range 2000 {
		var (
			b         message.Batch
			committed [3]bool
			abandoned atomic.Int32
			start     = make(chan struct{})
			wg        sync.WaitGroup
		)
		wg.Go(func() {
			<-start
			for i := range committed {
				committed[i] = b.BeginPublish()
			}
		})
		for range 2 {
			wg.Go(func() {
				<-start
				if b.Abandon() {
					abandoned.Add(1)
				}
			})
		}
		close(start)
		wg.Wait()

		want := [3]bool{}
		if abandoned.Load() == 0 {
			want = [3]bool{true, true, true}
		}
		if abandoned.Load() > 1 || committed != want {
			t.Fatalf("abandoned %d times, committed %v", abandoned.Load(), committed)
		}
	}
}

// TestBatchTellsOfAbandon: OnAbandon's function is called before Abandon returns, or
// at once if it was abandoned before. A batch with a writer calls nothing.
func TestBatchTellsOfAbandon(t *testing.T) {
	var told []string
	tell := func(what string) func() { return func() { told = append(told, what) } }
	expect := func(want ...string) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Fatalf("told %q, want %q", told, want)
		}
	}

	var b message.Batch
	b.OnAbandon(tell("first attempt"))
	b.OnAbandon(tell("second attempt"))
	expect()
	b.Abandon()
	expect("second attempt")
	b.Abandon()
	expect("second attempt")
	b.OnAbandon(tell("late"))
	expect("second attempt", "late")

	told = nil
	var b2 message.Batch
	b2.BeginPublish()
	b2.OnAbandon(tell("granted"))
	b2.Abandon()
	expect()
}

// TestBatchTellsInARace: asking and abandoning at once loses no telling.
func TestBatchTellsInARace(t *testing.T) {
	for range 2000 {
		var b message.Batch
		var told atomic.Int32
		var wg sync.WaitGroup
		wg.Go(func() { b.OnAbandon(func() { told.Add(1) }) })
		wg.Go(func() { b.Abandon() })
		wg.Wait()
		if told.Load() == 0 {
			t.Fatal("the function was not called")
		}
	}
}
