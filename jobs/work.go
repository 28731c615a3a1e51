package jobs

import (
	"context"
	"errors"
	"slices"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

const (
	// patience is how long a frame waits for the database. Then the runner is sent away,
	// and sends again what has no answer.
	patience = 30 * time.Second
	// maxFrames is how many frames of a runner are read in a second.
	maxFrames = 5000
	// maxRenew bounds the leases that one call of the store renews.
	maxRenew = 256
)

// read reads frames until the connection ends.
func (r *runner) read() {
	count, from := 0, time.Now()
	for {
		text, err := r.socket.Read()
		if err != nil {
			return
		}
		if count++; count >= maxFrames {
			if !backoff.Sleep(r.ctx, time.Second-time.Since(from)) {
				return
			}
			count, from = 0, time.Now()
		}
		if time.Since(from) > time.Second {
			count, from = 0, time.Now()
		}
		if !r.receive(text) {
			return
		}
	}
}

// receive has a frame worked on. It returns false if the connection ends.
func (r *runner) receive(text []byte) bool {
	if r.seed {
		f, ok := r.load.report(text)
		return !ok || r.todo.putIf(r.ctx, f)
	}
	f, err := parseFrame(text)
	if err == nil && f.Type == frame.Hello {
		err = errors.New("hello is the first frame, and comes once")
	}
	if err != nil {
		r.stop(closeBadFrame, err.Error())
		return false
	}
	switch f.Type {
	case frame.Drain:
		r.load.drain()
		r.engine.tells.runnersChanged()
	case frame.BeatFrame:
		r.beat(f)
	default:
		return r.todo.putIf(r.ctx, f)
	}
	return true
}

// beat has leases renewed. A beat that waits is of no use once there is a newer one.
func (r *runner) beat(f frame.Frame) {
	for {
		select {
		case r.beats <- f:
			return
		default:
		}
		select {
		case <-r.beats:
		default:
		}
	}
}

// renew answers beats. The database has renewed the leases before: the runner goes on with
// its processes because of the answer.
func (r *runner) renew() {
	for {
		var f frame.Frame
		select {
		case f = <-r.beats:
		case <-r.ctx.Done():
			return
		}
		fences := fencesOf(f.Attempts)
		renewed, cancelling, ok := r.renewAll(fences)
		if !ok {
			return
		}
		r.reply(frame.Frame{Type: frame.BeatFrame, Seq: f.Seq, Attempts: attemptsOf(renewed)})
		r.load.beat(fences, renewed)
		for _, c := range cancelling {
			r.reply(frame.Frame{Type: frame.Cancel, Run: c.Run, Attempt: c.Attempt})
		}
	}
}

// renewAll renews the leases of those attempts that are the runner's.
func (r *runner) renewAll(fences []store.Fence) (renewed, cancelling []store.Fence, ok bool) {
	if len(fences) == 0 {
		return nil, nil, true // an idle runner costs the database nothing
	}
	for part := range slices.Chunk(fences, maxRenew) {
		ok = r.try(func(ctx context.Context) error {
			now, ending, err := r.engine.cfg.Store.Renew(ctx, r.name, part)
			if err == nil {
				renewed, cancelling = append(renewed, now...), append(cancelling, ending...)
			}
			return err
		})
		if !ok {
			break
		}
	}
	return renewed, cancelling, ok
}

// try calls f until the database answers. It returns false if the connection ends before.
func (r *runner) try(f func(context.Context) error) bool {
	pause := backoff.Backoff{Min: 50 * time.Millisecond, Max: 2 * time.Second, Jitter: 0.5}
	for began := time.Now(); ; {
		ctx, cancel := context.WithTimeout(r.ctx, storeTimeout)
		err := f(ctx)
		cancel()
		switch {
		case r.ctx.Err() != nil:
			return false
		case err != nil && !store.Away(err):
			r.stop(closeMistake, err.Error())
			return false
		case r.engine.reached(err):
			return true
		}
		if time.Since(began) >= patience {
			r.stop(closeLater, "the database of jobs does not answer")
			return false
		}
		if !backoff.Sleep(r.ctx, pause.Next()) {
			return false
		}
	}
}

// gone makes nothing of the error that a run was removed.
func gone(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// started notes that an attempt runs. It is not going if it is stale.
func (r *runner) started(f store.Fence) (run store.Run, going, ok bool) {
	ok = r.try(func(ctx context.Context) (err error) {
		run, going, err = r.engine.cfg.Store.Start(ctx, f)
		return gone(err)
	})
	return run, going, ok
}

// attempt returns whose an attempt is, and the length of its log; no one's if there is no such.
func (r *runner) attempt(f store.Fence) (of string, length int64, ok bool) {
	ok = r.try(func(ctx context.Context) error {
		all, err := r.engine.cfg.Store.Attempts(ctx, f.Run)
		for _, a := range all {
			if a.Number == f.Attempt {
				of, length = a.Runner, a.Log
			}
		}
		return gone(err)
	})
	return of, length, ok
}

// worker does what the frames of a runner ask for, one after the other. Its user is one
// goroutine.
type worker struct {
	*runner
	// own are attempts that the database says to be the runner's, or to have been.
	own map[store.Fence]bool
}

func (r *runner) work() {
	w := worker{runner: r, own: make(map[store.Fence]bool)}
	for {
		f, ok := r.todo.next(r.ctx)
		if !ok || !w.do(f, store.Fence{Run: f.Run, Attempt: f.Attempt}) {
			return
		}
	}
}

// do returns false if the connection ends.
func (w *worker) do(f frame.Frame, fence store.Fence) bool {
	switch f.Type {
	case frame.Take:
		return w.take(fence)
	case frame.Refuse:
		return w.refuse(fence, f.Why)
	}
	owned, ok := w.owns(fence)
	switch {
	case !ok:
		return false
	case !owned:
		w.stale(fence)
		return true
	case f.Type == frame.Log:
		return w.log(f, fence)
	}
	return w.finish(f, fence)
}

// take notes that the runner wants to start, and lets it.
func (w *worker) take(fence store.Fence) bool {
	if !w.load.take(fence) {
		w.stale(fence)
		return true
	}
	run, going, ok := w.started(fence)
	switch {
	case !ok:
		return false
	case !going:
		w.stale(fence)
		return true
	}
	w.reply(frame.Frame{Type: frame.Take, Run: fence.Run, Attempt: fence.Attempt})
	w.engine.Changed(run) // its end may have been asked for: it has to start before it ends
	return true
}

// refuse gives an offer back.
func (w *worker) refuse(fence store.Fence, why string) bool {
	if !w.load.has(fence) {
		return true
	}
	ok := w.try(func(ctx context.Context) error {
		return w.engine.unclaim(ctx, fence, "runner "+w.name+" refuses: "+why)
	})
	w.load.shun(w.load.drop(fence))
	w.engine.Kick()
	return ok
}

// owns tells whether an attempt is, or was, the runner's: no other one may report of it.
func (w *worker) owns(fence store.Fence) (owned, ok bool) {
	if w.load.has(fence) || w.own[fence] {
		return true, true
	}
	of, _, ok := w.attempt(fence)
	if !ok || of != w.name {
		return false, ok
	}
	if len(w.own) >= frame.MaxAttempts {
		clear(w.own)
	}
	w.own[fence] = true
	return true, true
}

// log keeps a part of a log. The answer says up to where the log is there: the runner sends
// again what is missing.
func (w *worker) log(f frame.Frame, fence store.Fence) bool {
	var next int64
	var there bool
	ok := w.try(func(ctx context.Context) (err error) {
		next, err = w.engine.cfg.Store.AppendLog(ctx, fence, f.Offset, f.Data, f.Cut)
		there = !errors.Is(err, store.ErrNotFound) // else the run was removed
		return gone(err)
	})
	switch {
	case !ok:
		return false
	case !there:
		w.stale(fence)
	default:
		w.reply(frame.Frame{Type: frame.Log, Run: fence.Run, Attempt: fence.Attempt, Offset: next})
	}
	return true
}

// finish notes the end of an attempt. One that is not the run's last attempt is stale, and
// changes nothing.
func (w *worker) finish(f frame.Frame, fence store.Fence) bool {
	var run store.Run
	var current bool
	ok := w.try(func(ctx context.Context) (err error) {
		run, current, err = w.engine.cfg.Store.End(ctx, fence, store.End{Outcome: f.Outcome, Exit: f.Exit, Why: f.Why, Log: f.Offset})
		return err
	})
	switch {
	case !ok:
		return false
	case !current:
		w.stale(fence)
		return true
	}
	job := w.load.drop(fence)
	if f.Outcome == frame.Fault {
		w.load.shun(job)
	}
	w.reply(frame.Frame{Type: frame.End, Run: fence.Run, Attempt: fence.Attempt})
	e := event.RunEnded{
		Run: run.ID, Attempt: fence.Attempt, Job: run.Job, Runner: w.name, Outcome: string(f.Outcome), State: string(run.State), Exit: f.Exit, Why: f.Why,
	}
	if !run.Started.IsZero() && !run.Ended.IsZero() {
		e.Took = run.Ended.Sub(run.Started)
	}
	w.engine.cfg.Events.Send(e)
	w.engine.Changed(run)
	w.engine.Kick() // a slot is free
	if w.seed && f.Outcome == frame.TimedOut {
		w.stop(closeSlow, f.Why) // it may still be at it, and has one slot
		return false
	}
	return true
}
