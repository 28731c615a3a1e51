package workerpool

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/event"
	"async-data-processor/message"
)

// worker is one goroutine of a pool.
type worker struct {
	pool   *Pool
	record *event.Worker // guarded by pool.mu
	// batch is what the worker took last, and since when; nil while it rests. Guarded by
	// pool.mu.
	batch *message.Batch
	since time.Time
}

var (
	// errTimedOut is the cause of a write that was given up.
	errTimedOut = errors.New("worker timeout exceeded")
	// errNoReturn: Write ended its goroutine (runtime.Goexit), so it has not
	// said that the batch is durable.
	errNoReturn = errors.New("the write did not return")
)

// run takes batches until there are no more, or the worker is retired or lost.
func (w *worker) run(ctx context.Context) {
	for {
		b, why := w.next()
		if b == nil {
			w.stop(why)
			if why == idle {
				w.pool.retired <- struct{}{}
			}
			return
		}
		if why := w.handle(ctx, b); why != "" {
			w.stop(why)
			return
		}
	}
}

// Why workers stop, besides panics.
const (
	idle      = "idle"      // there was nothing to do for long, and there are others
	drained   = "drained"   // no batch will come again
	timedOut  = "timed out" // a batch exceeded the worker timeout
	cancelled = "cancelled" // the drain's deadline passed
	resized   = "resized"   // there were more than the new maximum
)

// next returns the next batch, or why there is none for this worker. A worker
// that finds one waiting goes on being busy.
func (w *worker) next() (b *message.Batch, why string) {
	if w.pool.crowded.Load() && w.pool.leave() {
		return nil, resized
	}
	var ok bool
	select {
	case b, ok = <-w.pool.batches:
	default:
		w.rest()
		select {
		case b, ok = <-w.pool.batches:
		case why := <-w.pool.retire:
			return nil, why
		}
	}
	if !ok {
		return nil, drained
	}
	w.take(b)
	return b, ""
}

// handle sees the batch through until it is settled. It returns why the worker
// cannot go on, or "".
func (w *worker) handle(ctx context.Context, b *message.Batch) (why string) {
	panicked, why := w.write(ctx, b)
	if panicked != nil {
		w.send(event.WorkerPanicked{Worker: w.snapshot(), Value: panicked.value, Stack: panicked.stack})
		w.isolate(ctx, b, panicked)
		return fmt.Sprintf("panicked: %v", panicked.value)
	}
	return why
}

// write sees the batch through until it is settled, unless writing it panics.
// It returns why the worker cannot go on, or "".
func (w *worker) write(ctx context.Context, b *message.Batch) (p *panicked, why string) {
	if ctx.Err() != nil {
		w.giveBack(b, context.Cause(ctx))
		return nil, ""
	}
	began, late := time.Now(), false
	pause := backoff.Backoff{Min: holdMin, Max: holdMax}
	var failing time.Time // since when
	for attempt := 1; ; attempt++ {
		out := w.attempt(ctx, b)
		late = late || out.late
		switch {
		case out.panicked != nil:
			return out.panicked, ""
		case out.abandoned:
			w.giveBack(b, out.err)
			return nil, stopReason(late, cancelled)
		case out.err == nil:
			w.finish(b, out, began)
			return nil, stopReason(late, "")
		case ctx.Err() != nil:
			w.giveBack(b, because(context.Cause(ctx), out.err))
			return nil, cancelled
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		retry := pause.Next()
		giveUp := w.hold(attempt, out.err, time.Since(failing), retry)
		if giveUp == nil && !backoff.Sleep(ctx, retry) {
			giveUp = context.Cause(ctx)
		}
		if giveUp != nil {
			w.giveBack(b, because(giveUp, out.err))
			return nil, cancelled
		}
	}
}

// stopReason is why a worker stops after a batch, if it was late, or otherwise.
func stopReason(late bool, otherwise string) string {
	if late {
		return timedOut
	}
	return otherwise
}

// because joins why a batch is given up with what failed, unless that says it.
func because(why, failed error) error {
	if errors.Is(why, failed) {
		return why
	}
	return errors.Join(why, failed)
}

// hold records that the batch cannot be written, and asks the policy. It returns
// why the batch is to go back to the broker, nil if it is tried again after retry.
func (w *worker) hold(attempt int, err error, failingFor, retry time.Duration) (giveUp error) {
	w.set(event.Holding)
	p := w.pool
	p.mu.Lock()
	p.held[w.record.ID] = err
	p.mu.Unlock()
	w.send(event.BatchHeld{Worker: w.snapshot(), Attempt: attempt, Err: err, Retry: retry})
	if p.cfg.OnRetry == nil {
		return nil
	}
	return p.cfg.OnRetry(err, failingFor)
}

// outcome is how one attempt to write a batch ended.
type outcome struct {
	file      string
	written   []message.Message // the others were duplicates
	err       error
	abandoned bool // there was no write, or it lost its right to the batch
	late      bool // it took longer than the worker timeout
	panicked  *panicked
}

// attempt writes the batch on a goroutine of its own, because a write that
// hangs in a system call cannot be interrupted, only left behind: b.Abandon
// makes sure that it will never publish the batch.
func (w *worker) attempt(ctx context.Context, b *message.Batch) outcome {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := w.admit(ctx); err != nil {
		return outcome{err: err, abandoned: true}
	}
	lateBefore := w.pool.late.Load()
	timeout := time.NewTimer(w.pool.timeout(lateBefore))
	defer timeout.Stop()
	id := w.record.ID // never changes
	done := make(chan outcome, 1)
	go func() {
		defer func() { <-w.pool.writes }()
		out := outcome{err: errNoReturn} // unless it says otherwise
		defer func() {
			if value := recover(); value != nil {
				out.panicked = &panicked{value, debug.Stack()}
			}
			done <- out
		}()
		out.file, out.written, out.err = w.pool.cfg.Writer.Write(ctx, id, b)
	}()

	var cause error
	select {
	case out := <-done:
		return out
	case <-timeout.C:
		cause = errTimedOut
	case <-ctx.Done():
		cause = context.Cause(ctx)
	}
	abandoned := b.Abandon()
	late := cause == errTimedOut
	if late {
		w.pool.late.CompareAndSwap(lateBefore, lateBefore+1) // those side by side count once
		w.exclude()
		w.send(event.WorkerTimedOut{Worker: w.snapshot(), Returned: abandoned})
	}
	if abandoned {
		cancel(cause)
		return outcome{err: cause, abandoned: true, late: late}
	}
	out := <-done // it is about to publish: only it knows the outcome
	out.late = late
	return out
}

// admit waits while every write slot is taken by a write that hangs. Without that
// bound a hung disk would take batch after batch, and return each, until the
// broker took them for poison.
func (w *worker) admit(ctx context.Context) error {
	for began := time.Now(); ; {
		select {
		case w.pool.writes <- struct{}{}:
			return nil
		default:
		}
		if giveUp := w.hold(0, w.pool.stuck(), time.Since(began), holdMax); giveUp != nil {
			return giveUp
		}
		again := time.NewTimer(holdMax)
		select {
		case w.pool.writes <- struct{}{}:
			again.Stop()
			return nil
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return context.Cause(ctx)
		}
	}
}

// finish acknowledges a durable batch. This is the one place where an
// acknowledgement follows a file.
func (w *worker) finish(b *message.Batch, out outcome, began time.Time) {
	now := time.Now()
	written := len(out.written)
	if written > 0 && !out.late {
		w.pool.late.Store(0)
	}
	if told := w.pool.cfg.OnWritten; told != nil && written > 0 {
		told(Written{Worker: w.record.ID, File: out.file, Batch: b, Messages: out.written, At: now})
	}
	err := b.Settle(message.Outcome{Kind: message.Ack})
	duplicates, batches := len(b.Messages)-written, 0
	if written > 0 {
		batches = b.Batches()
	}

	p := w.pool
	p.mu.Lock()
	if written > 0 {
		w.record.Batches += int64(batches)
		w.record.Messages += int64(written)
		w.record.LastFile = out.file
	}
	w.record.Duplicates += int64(duplicates)
	delete(p.held, w.record.ID)
	record := *w.record
	p.mu.Unlock()
	if err != nil {
		w.send(event.SettleFailed{Worker: record, Err: err})
	}
	w.send(event.BatchWritten{
		Worker: record, Batches: batches, Messages: written, Duplicates: duplicates,
		Cause: b.Cause.String(), File: out.file, Took: now.Sub(began),
	})
}

// giveBack returns an unwritten batch to the broker.
func (w *worker) giveBack(b *message.Batch, why error) {
	err := errors.Join(why, b.Settle(message.Outcome{Kind: message.Return, Reason: why.Error()}))
	w.pool.mu.Lock()
	delete(w.pool.held, w.record.ID)
	w.pool.mu.Unlock()
	w.send(event.BatchReturned{Worker: w.snapshot(), Messages: len(b.Messages), Err: err})
}

// rest makes the worker idle, which it may be already.
func (w *worker) rest() {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	w.batch = nil
	if w.record.State != event.Idle {
		w.record.State = event.Idle
		w.pool.count(0, -1)
	}
}

// take makes the worker busy with a batch.
func (w *worker) take(b *message.Batch) {
	now := time.Now()
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	w.batch, w.since = b, now
	w.become(event.Busy)
}

// set gives the worker a state in which it has a batch.
func (w *worker) set(s event.State) {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	w.become(s)
}

// become is set. A timed-out worker keeps that state to its end. mu is held.
func (w *worker) become(s event.State) {
	if w.record.State == event.Idle {
		w.pool.count(0, +1)
	}
	if w.record.State != event.TimedOut {
		w.record.State = s
	}
}

// exclude takes the timed-out worker from the numbers of the policy, so that another
// can take its place.
func (w *worker) exclude() {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	if w.record.State != event.TimedOut {
		w.record.State = event.TimedOut
		w.pool.count(-1, -1)
	}
}

// stop ends the worker's record.
func (w *worker) stop(why string) {
	p := w.pool
	p.mu.Lock()
	w.batch = nil
	p.alive = slices.DeleteFunc(p.alive, func(o *worker) bool { return o == w })
	switch w.record.State {
	case event.TimedOut: // counted no more
	case event.Idle:
		p.count(-1, 0)
	default:
		p.count(-1, -1)
	}
	if why == resized {
		p.leaving--
	}
	p.drained = p.drained || why == drained
	p.history.stop(w.record, why, time.Now())
	p.mu.Unlock()
	w.send(event.WorkerStopped{Worker: w.snapshot()})
}

func (w *worker) snapshot() event.Worker {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	return *w.record
}

func (w *worker) send(e event.Event) { w.pool.cfg.Events.Send(e) }
