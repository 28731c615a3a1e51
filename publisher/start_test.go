package publisher_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
	"async-data-processor/publisher"
)

// start starts a submission with a message for each of the shards.
func (h *harness) start(ctx context.Context, shards ...int) <-chan answer {
	s := message.Submission{ID: "S"}
	for i, n := range shards {
		s.Messages = append(s.Messages, numbered(i, 100, h.at[n]))
	}
	answered, began := make(chan answer, 2), time.Now()
	h.publisher.Start(ctx, s, func(shards []message.ShardCount, err error) {
		answered <- answer{shards, err, time.Since(began)}
	})
	for _, m := range s.Messages {
		clear(m.Line) // nothing refers to it any more
	}
	synctest.Wait()
	return answered
}

// TestStart: what Start has begun is in the same rounds as what Submit waits for,
// and is told once, when the last outcome is known.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 2)
		first, second := h.start(t.Context(), 0, 1, 1), h.submit(0)
		h.wantRounds("0:1 1:2 ")
		h.confirm(0)
		if len(first) > 0 {
			t.Error("told before both outcomes are known")
		}
		h.confirm(1)
		a := <-first
		if a.err != nil || len(a.shards) != 2 || a.shards[0].Messages != 1 || a.shards[1].Messages != 2 {
			t.Errorf("got %+v", a)
		}
		h.confirm(0)
		h.wantPublished(second)

		rejected := h.start(t.Context(), 1)
		h.settle(1, broker.ErrRejected)
		if a := <-rejected; !errors.Is(a.err, message.ErrNotPublished) {
			t.Errorf("got %v, want ErrNotPublished", a.err)
		}
		if a := <-h.start(t.Context()); a.err != nil || a.shards != nil {
			t.Errorf("without messages: got %+v", a)
		}
		h.wantRounds("0:1 ", "1:1 ")
	})
}

// TestStartExpires: a context that ends decides the outcome, and what no one waits
// for is not published.
func TestStartExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, 1)
		gone, cancel := context.WithCancelCause(t.Context())
		under, waiting, other := h.start(gone, 0), h.start(gone, 0), h.start(t.Context(), 0)
		h.wantRounds("0:1 ")
		why := errors.New("too late")
		cancel(why)
		synctest.Wait()
		for _, answered := range []<-chan answer{under, waiting, h.start(gone, 0)} {
			if a := <-answered; !errors.Is(a.err, why) || errors.Is(a.err, message.ErrNotPublished) {
				t.Errorf("got %v, want an unknown outcome because of %v", a.err, why)
			}
		}
		h.confirm(0)
		h.wantRounds("0:3 ") // other shares an envelope with those that are gone
		h.confirm(0)
		if a := <-other; a.err != nil {
			t.Errorf("got %v", a.err)
		}

		under, waiting = h.start(t.Context(), 0), h.start(timed(t), 0)
		h.wantRounds("0:1 ")
		time.Sleep(time.Second + time.Millisecond)
		h.confirm(0)
		h.wantPublished(under)
		h.wantError(waiting, context.DeadlineExceeded)
		h.wantRounds() // what expired alone in its envelope
		for _, answered := range []<-chan answer{under, waiting, other} {
			if len(answered) > 0 {
				t.Error("told twice")
			}
		}
	})
}

// timed returns a context of a second.
func timed(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestStartRace has outcomes and deadlines meet: each submission is told once.
func TestStartRace(t *testing.T) {
	p := publisher.New(publisher.Config{Shards: 3, Timeout: timeout, Broker: publisher.Func(
		func(_ context.Context, envelopes []message.Envelope, done func(int, error)) {
			time.Sleep(100 * time.Microsecond)
			for i := range envelopes {
				done(i, nil)
			}
		})})
	const submissions = 5000
	told := make(chan error, 2*submissions)
	for i := range submissions {
		deadline := time.Duration(i%300) * time.Microsecond
		if i%100 == 99 {
			deadline = time.Minute // a busy machine may end all others
		}
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		p.Start(ctx, oneOfEach(3), func(_ []message.ShardCount, err error) {
			cancel()
			told <- err
		})
	}
	published := 0
	for range submissions {
		select {
		case err := <-told:
			if err == nil {
				published++
			} else if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a submission is not told")
		}
	}
	time.Sleep(10 * time.Millisecond)
	if len(told) > 0 || published == 0 || published == submissions {
		t.Errorf("%d of %d are published, %d are told twice", published, submissions, len(told))
	}
}
