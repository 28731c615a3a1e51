package runner

import (
	"encoding/json"
	"os"
	"sync"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/runner/guard"
)

// state is where an attempt is. It only goes forward.
type state int

const (
	offered state = iota // it starts when the engine lets it, and has renewed its lease
	started              // its process may run
	over                 // nothing of it runs, and the engine has to hear of it
)

// attempt is an attempt to run a job. The Runner's mu guards what is not said to be
// otherwise.
type attempt struct {
	run    int64 // read-only, as what follows
	number int
	def    frame.Definition
	args   json.RawMessage
	file   *frame.Published
	log    *spool // has a lock of its own

	state state
	// taken tells that the engine has let it start.
	taken bool
	// stale tells that the engine has given it up: it is not renewed any more.
	stale bool
	lease guard.Order // as it was renewed last

	// acked is how much of the log the engine has, and sent how much it was sent on this
	// connection; progress is when one of them, or endSent, has changed.
	acked, sent int64
	endSent     bool
	endAcked    bool
	progress    time.Time

	outcome frame.Outcome
	exit    int
	why     string

	pipe   sync.Mutex  // guards what follows
	orders *os.File    // nil while there is no guard
	asked  guard.Order // to end before there was a guard
	// last is when the guard sends SIGKILL at the latest, because of the lease, and overdue
	// when it should have ended long ago, because of the time-out or an order; by guard.Now.
	last, overdue int64
}

// orderTimeout bounds what a guard that is stopped may hold up.
const orderTimeout = 100 * time.Millisecond

// order gives an order to the guard, if there is one.
func (a *attempt) order(o guard.Order) {
	a.pipe.Lock()
	defer a.pipe.Unlock()
	if a.orders == nil {
		if o.End != "" {
			a.asked = o
		}
		return
	}
	if o.End != "" {
		grace := min(o.Within, time.Duration(a.def.Grace))
		a.overdue = min(a.overdue, guard.Now()+int64(grace+slack)) // for a guard that is stopped
	}
	if o.Kill != 0 {
		a.last = o.Kill
	}
	text, err := json.Marshal(o)
	if err == nil {
		_ = a.orders.SetWriteDeadline(time.Now().Add(orderTimeout)) // pipes have deadlines
		// At most PIPE_BUF bytes, so it is written whole or not at all (pipe(7)). A guard
		// that has ended needs no order, and one that is stopped is killed when overdue.
		_, _ = a.orders.Write(append(text, '\n'))
	}
}

// id names it on the wire.
func (a *attempt) id() frame.Attempt { return frame.Attempt{Run: a.run, Attempt: a.number} }

// due returns what the engine lacks: logs from sent on, its end, or nothing. mu of the
// Runner is locked. room is how many bytes of logs may be sent. Small parts wait until what was
// sent before is acknowledged, so that a job that prints a line at a time costs the engine
// no write a line (RFC 896 does that for TCP).
func (a *attempt) due(room int64) (log, ended bool) {
	ready, whole := a.log.ready(), a.log.whole.Load()
	switch {
	case a.sent < ready:
		waits := a.sent > a.acked && !whole && ready-a.sent < frame.MaxLogPart
		return room > 0 && !waits, false
	default:
		return false, a.state == over && !a.endSent && !a.endAcked
	}
}

// part returns the next part of the log. It reads from a disk, so no lock is held.
func (a *attempt) part(offset int64) *frame.Frame {
	data, cut := a.log.part(offset)
	return &frame.Frame{Type: frame.Log, Run: a.run, Attempt: a.number, Offset: offset, Data: data, Cut: cut}
}

// end tells how it has ended. mu of the Runner is locked.
func (a *attempt) end() *frame.Frame {
	a.endSent, a.progress = true, time.Now()
	return &frame.Frame{
		Type: frame.End, Run: a.run, Attempt: a.number,
		Outcome: a.outcome, Exit: a.exit, Why: a.why[:min(len(a.why), frame.MaxWhy)], Offset: a.log.length.Load(),
	}
}

// done tells whether the engine has all of it. mu of the Runner is locked.
func (a *attempt) done() bool {
	return a.endAcked && a.acked == a.log.length.Load()
}

// resume goes on with the log where the engine says. mu of the Runner is locked.
func (a *attempt) resume(offset int64) {
	a.acked = min(max(offset, 0), a.log.length.Load())
	a.sent, a.endSent, a.progress = a.acked, false, time.Now()
}
