package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/runner/guard"
)

// errLeave is why a connection is given up that the engine does not want any more.
var errLeave = errors.New("the engine stops")

// errDeaf is why a connection is given up whose answers would fill the memory. The bound is
// that of an engine for a runner that does not read.
var errDeaf = errors.New("the engine offers more than it reads answers")

const maxAnswers = 1024

// read takes what the engine says until the connection ends.
func (l *link) read(ctx context.Context) error {
	for {
		f, err := l.receive(ctx)
		if err != nil {
			return err
		}
		switch f.Type {
		case frame.Definitions:
			l.r.mu.Lock()
			l.r.define(f.Definitions)
			l.r.mu.Unlock()
		case frame.Offer:
			if err := l.offer(f); err != nil {
				return err
			}
		case frame.BeatFrame:
			l.renewed(f)
		case frame.Drain:
			return errLeave
		case frame.Take, frame.Log, frame.End, frame.Stale, frame.Cancel:
			l.attempt(f)
		}
	}
}

// offer takes an attempt, or refuses it.
func (l *link) offer(f frame.Frame) error {
	r := l.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.find(f.Run, f.Attempt) != nil {
		return nil // it is here
	}
	if len(l.queue) >= maxAnswers {
		return errDeaf
	}
	a := &attempt{run: f.Run, number: f.Attempt, file: f.File, log: newSpool(), progress: time.Now()}
	var args bytes.Buffer
	if json.Compact(&args, f.Args) == nil { // one line, as a container needs it
		a.args = args.Bytes()
	}
	def, known := r.jobs[f.Job]
	a.def = def
	answer := frame.Frame{Type: frame.Take, Run: f.Run, Attempt: f.Attempt}
	if answer.Why = r.refusal(f, known); answer.Why != "" {
		answer.Type = frame.Refuse
	} else {
		r.attempts = append(r.attempts, a)
	}
	l.say(answer)
	return nil
}

// refusal is why an attempt cannot run here now, or "". mu is locked.
func (r *Runner) refusal(f frame.Frame, known bool) string {
	busy := 0
	for _, a := range r.attempts {
		if a.state == over {
			continue
		}
		if a.run == f.Run {
			return "an earlier attempt of the run still ends here"
		}
		busy++
	}
	switch {
	case r.draining:
		return "the runner stops"
	case busy >= r.cfg.Slots:
		return "all slots of the runner are taken"
	case len(r.attempts) >= frame.MaxAttempts:
		return "too many attempts of the runner have ended without an acknowledgement"
	case !known:
		return "the runner was not told of this job"
	}
	return r.cfg.admit(r.jobs[f.Job])
}

// renewed takes the answer to a beat.
func (l *link) renewed(f frame.Frame) {
	r := l.r
	r.mu.Lock()
	answered, ok := l.beats.answer(f.Seq)
	kept := make(map[frame.Attempt]bool)
	for _, id := range f.Attempts {
		kept[frame.Attempt{Run: id.Run, Attempt: id.Attempt}] = true
	}
	var lost, renewed []*attempt
	for _, id := range answered.attempts {
		a := r.find(id.Run, id.Attempt)
		switch {
		case a == nil:
		case kept[id]:
			a.lease = r.cfg.leaseFrom(answered.start, a.def.Image != "")
			r.startIfAllowed(a)
			renewed = append(renewed, a)
		case r.giveUp(a):
			lost = append(lost, a)
		}
	}
	leases := make([]guard.Order, len(renewed))
	for i, a := range renewed {
		leases[i] = a.lease
	}
	r.mu.Unlock()
	if !ok {
		return // of no beat
	}
	for i, a := range renewed {
		a.order(leases[i])
	}
	end(lost)
}

// startIfAllowed starts an attempt that the engine has let start, and whose lease is known
// to last. An offer may have been on its way for any time, so it says nothing about the
// lease; a beat that was answered does. mu is locked.
func (r *Runner) startIfAllowed(a *attempt) {
	if a.state == offered && a.taken && guard.Now() < a.lease.Fence {
		a.state = started
		go r.execute(a)
	}
}

// leaseFrom returns when the processes of an attempt have to end that was renewed at start,
// or later. What is left of the lease is for the system to end them, and for the engine of
// a container.
func (c *Config) leaseFrom(start int64, container bool) guard.Order {
	lease := int64(c.lease)
	o := guard.Order{Fence: start + lease*2/3, Kill: start + lease*9/10}
	if container {
		o.Kill = start + lease*8/10
	}
	return o
}

// attempt takes what is about one attempt.
func (l *link) attempt(f frame.Frame) {
	r := l.r
	r.mu.Lock()
	a := r.find(f.Run, f.Attempt)
	if a == nil {
		r.mu.Unlock()
		return
	}
	a.progress = time.Now()
	var cancelled, lost []*attempt
	switch f.Type {
	case frame.Take:
		a.taken = true
		r.startIfAllowed(a)
	case frame.Log:
		if f.Offset < a.acked { // it has forgotten something
			a.resume(f.Offset)
		}
		a.acked = min(max(f.Offset, 0), a.log.length.Load())
		a.sent = max(a.sent, a.acked)
	case frame.End:
		if a.state == over {
			a.endAcked, a.endSent = true, false
			if a.sent > a.acked {
				a.sent = a.acked // what it has not acknowledged it does not have
			}
		}
	case frame.Stale:
		if a.state == over {
			r.forget(a)
		} else if r.giveUp(a) {
			lost = append(lost, a)
		}
	case frame.Cancel:
		if a.state == offered {
			a.log.end()
			a.state, a.outcome = over, frame.Cancelled
		} else {
			cancelled = append(cancelled, a)
		}
	}
	if a.done() {
		r.forget(a)
	}
	l.wakeUp()
	r.mu.Unlock()
	for _, a := range cancelled {
		a.order(guard.Order{End: guard.Cause(frame.Cancelled), Within: time.Duration(a.def.Grace)})
	}
	end(lost)
}
