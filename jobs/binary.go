package jobs

import (
	"crypto/rand"
	"math"
	"strings"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// An old runner, whose frames are binary, has no name, no beat and no fence. The engine
// renews its lease for as long as its WebSocket answers pings. When that breaks, its run
// is lost as soon as the lease is over, though the process may still go on: such a runner
// cannot keep the promise that a run is executed by one runner at a time.

// seedRuns tells whether an old runner may run a job: it knows neither labels nor files
// nor variables.
func seedRuns(d frame.Definition) bool {
	return d.On == frame.Manual && len(d.Labels) == 0 && len(d.Env) == 0 && len(d.Secrets) == 0
}

// becomeSeed gives the connection of an old runner what a hello would say.
func (r *runner) becomeSeed() {
	r.seed, r.load.seed, r.load.slots = true, true, 1
	r.name = "old-" + strings.ToLower(rand.Text()[:8])
	r.parts.Go(r.beatForIt)
}

// lateSeed is why a run of an old runner ends that takes too long.
const lateSeed = "the old runner has not reported an end in time"

// beatForIt renews the lease of an old runner, and ends a run that takes too long.
func (r *runner) beatForIt() {
	for backoff.Sleep(r.ctx, frame.Beat) {
		var fences []store.Fence
		for f, h := range r.load.taken() {
			fences = append(fences, f)
			if d, ok := r.engine.Definition(h.job); ok && time.Since(h.since) > time.Duration(d.Timeout+d.Grace) {
				r.todo.put(frame.Frame{Type: frame.End, Run: f.Run, Attempt: f.Attempt, Outcome: frame.TimedOut, Why: lateSeed})
			}
		}
		r.beat(frame.Frame{Type: frame.BeatFrame, Attempts: attemptsOf(fences)})
	}
}

// seedFrame returns a frame as an old runner reads it, nil if it has no word for it.
func seedFrame(f frame.Frame) []byte {
	switch f.Type {
	case frame.Welcome, frame.Definitions:
		b, err := frame.BinaryJobs(f.Definitions)
		if err != nil {
			return nil // it cannot fail on texts and numbers
		}
		return b
	case frame.Offer:
		return frame.BinaryOffer(int32(min(f.Run, math.MaxInt32)), f.Job)
	}
	return nil
}

// report returns what a frame of an old runner says of the attempt that it has.
func (l *load) report(b []byte) (f frame.Frame, ok bool) {
	kind, run, ok := frame.BinaryReport(b)
	if !ok || kind == frame.BinaryRunning { // that is noted when it is offered
		return f, false
	}
	for fence := range l.taken() {
		if fence.Run == int64(run) {
			f = frame.Frame{Type: frame.End, Run: fence.Run, Attempt: fence.Attempt, Outcome: frame.Exited}
			if kind == frame.BinaryFailure {
				f.Exit, f.Why = 1, "the old runner reports a failure"
			}
			return f, true
		}
	}
	return f, false
}
