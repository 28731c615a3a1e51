package server

import (
	"math"
	"sync/atomic"
	"time"
)

// Intake is whether a server takes submissions. Its methods may be called concurrently.
type Intake struct {
	pause atomic.Pointer[Pause] // nil if they are taken
	under atomic.Int64          // submissions that are being published
}

// Pause is why the server takes no submissions for a while.
type Pause struct {
	// Until is when it ends by itself; zero for never.
	Until time.Time
}

// Pause has the server answer each submission with 503 and the problem "paused", and
// publish nothing of it; nil ends that. It stays ready: its probes tell of the process,
// and a pause is no fault of it. What is being published goes on: see Idle.
func (i *Intake) Pause(p *Pause) { i.pause.Store(p) }

// Paused tells whether a pause goes on.
func (i *Intake) Paused() bool { return i.refusal() != nil }

// Idle tells whether no submission is being published. After Pause that says that nothing
// is published any more until the pause ends. What is read then is refused, and so clients
// that go on to send do not keep the server from being idle.
func (i *Intake) Idle() bool { return i.under.Load() == 0 }

// enter counts a submission that is about to be published until leave, unless it returns
// why it may not be. It looks at the pause after it has counted. So none is published after
// Idle: it is counted there, or it is refused here.
func (i *Intake) enter() error {
	if err := i.refusal(); err != nil {
		return err
	}
	i.under.Add(1)
	err := i.refusal()
	if err != nil {
		i.leave()
	}
	return err
}

// leave is called when the outcome of a submission is known.
func (i *Intake) leave() { i.under.Add(-1) }

// refusal returns why no submission may be taken now, nil if it may. It is asked before a
// submission is read, too.
func (i *Intake) refusal() error {
	p := i.pause.Load()
	if p == nil {
		return nil
	}
	k := intakePaused
	detail := "an operator has paused the intake; nothing was published, try again later"
	if !p.Until.IsZero() {
		left := time.Until(p.Until)
		if left <= 0 {
			return nil
		}
		k.retryAfter = int(math.Ceil(min(left, time.Duration(k.retryAfter)*time.Second).Seconds()))
		detail = "an operator has paused the intake until " + p.Until.UTC().Format(time.RFC3339) + "; nothing was published"
	}
	return &problem{kind: k, detail: detail}
}
