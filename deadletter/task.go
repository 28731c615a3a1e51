package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// Bounds of tasks.
const (
	maxRunning  = 4
	maxTasks    = 100 // that are remembered
	maxRate     = 10_000
	defaultRate = 100
	maxWhy      = 500 // bytes of the reason of a client
	// maxHandled is how many letters a task handles.
	maxHandled = 1_000_000
	// passTime bounds a pass. One that finds nothing to do has the next one go further,
	// up to longPassTime. Others may have to wait so long for the queue.
	passTime     = 2 * time.Second
	longPassTime = 30 * time.Second
	// passPause is the least pause between two passes, in which others may look.
	passPause = 100 * time.Millisecond
	// taskPatience is how long a task goes on that fails.
	taskPatience = time.Minute
	// cancelWait is how long the answer to a cancel waits for the end of the task.
	cancelWait = 2 * time.Second
)

// Action is what a task does with dead letters.
type Action string

// Actions of tasks.
const (
	ActionReplay Action = "replay" // publish them to their queues again, then remove them
	ActionPurge  Action = "purge"  // remove them, for good
)

// State is where a task is.
type State string

// States of tasks.
const (
	Running   State = "running"
	Done      State = "done"      // it has handled all
	Cancelled State = "cancelled" // a client cancelled it, or the process stopped
	Failed    State = "failed"    // it gave up
)

// Order is a task that is wanted, and by whom.
type Order struct {
	Do     Action `json:"do"`
	Filter Filter `json:"filter"`
	// AsOf is when a letter must have been dead to be touched: those that came later are
	// not, so none is replayed twice that dies again. Default, and at the latest: now. A
	// letter whose time is not known is touched only if the filter has its id.
	AsOf time.Time `json:"as_of,omitzero"`
	// Rate is how many letters a second at most, 1 to 10,000. Default: 100.
	Rate int `json:"rate,omitempty"`
	// Reason is why.
	Reason string `json:"reason,omitempty"`
	// Preview only tells what it would touch.
	Preview bool `json:"preview,omitempty"`

	By   string `json:"-"` // the name of the client
	From string `json:"-"` // its address
}

// check sets what is left out, and returns why there can be no such task.
func (o *Order) check(now time.Time) error {
	now = now.Truncate(time.Millisecond)
	if o.AsOf.IsZero() || o.AsOf.After(now) {
		o.AsOf = now
	}
	o.AsOf = o.AsOf.UTC().Truncate(time.Millisecond)
	o.Rate = cmp.Or(o.Rate, defaultRate)
	switch {
	case o.AsOf.Year() < 1: // it could not be told
		return fmt.Errorf("%w: as_of is before the year 1", ErrTask)
	case o.Do != ActionReplay && o.Do != ActionPurge:
		return fmt.Errorf("%w: do is %.20q, want replay or purge", ErrTask, string(o.Do))
	case o.Rate < 1 || o.Rate > maxRate:
		return fmt.Errorf("%w: rate is %d, want 1 to %d letters a second", ErrTask, o.Rate, maxRate)
	case len(o.Reason) > maxWhy:
		return fmt.Errorf("%w: reason has %d bytes, want at most %d", ErrTask, len(o.Reason), maxWhy)
	}
	return o.Filter.Check()
}

// wants tells whether the task is about a letter.
func (o *Order) wants(s *seen) bool {
	return s.existed(o.AsOf, len(o.Filter.IDs) > 0) && o.Filter.Matches(s.DeadLetter, s.Body)
}

// Preview is what a task would touch.
type Preview struct {
	Head
	Letters  int      `json:"letters"`
	Messages int      `json:"messages"`
	Examples []string `json:"examples"` // keys
	// Cut tells that there may be more: not all letters were looked at.
	Cut bool `json:"cut"`
}

// maxPreviewed is how many examples a preview has.
const maxPreviewed = 10

// preview looks what an order, which is valid, would touch.
func (l *Letters) preview(ctx context.Context, client string, o *Order) (Preview, error) {
	out := Preview{Examples: []string{}}
	began, whole, err := l.looks.look(ctx, client, func(s *seen) bool {
		if o.wants(s) {
			out.Letters++
			out.Messages += s.count()
			if len(out.Examples) < maxPreviewed {
				out.Examples = append(out.Examples, s.Key())
			}
		}
		return true
	})
	out.Head, out.Cut = l.head(began, whole), !whole
	out.AsOf = o.AsOf
	return out, err
}

// Task is a task as it is told.
type Task struct {
	ID     string    `json:"id"`
	Do     Action    `json:"do"`
	Filter Filter    `json:"filter"`
	AsOf   time.Time `json:"as_of"`
	Rate   int       `json:"rate"`
	State  State     `json:"state"`
	// Total is how many letters it was about at its start; nil if that is not known.
	Total *int `json:"total"`
	// Done counts those that it has handled. Failed counts those that it could not
	// replay, because nothing tells which queue they came from.
	Done    int        `json:"done"`
	Failed  int        `json:"failed"`
	Started time.Time  `json:"started"`
	Ended   *time.Time `json:"ended"`
	By      string     `json:"by"`
	Reason  string     `json:"reason"`
	Error   string     `json:"error"` // why it ended early, or what it waits for
	Node    string     `json:"node"`
}

// task is a task of this process.
type task struct {
	letters *Letters
	order   Order
	cancel  context.CancelCauseFunc
	ended   chan struct{}

	// Only its own goroutine uses what follows.
	seed    maphash.Seed
	handled map[uint64]bool // what it has replayed, or could not, by ids and body

	mu   sync.Mutex // guards what follows
	told Task
}

// errCancelled is why a task ends that is not wanted any more.
var errCancelled = errors.New("cancelled")

// Start begins a task, and returns it as it is then. It looks first how much there is to do.
func (l *Letters) Start(ctx context.Context, client string, o Order) (Task, error) {
	seen, err := l.preview(ctx, client, &o)
	if err != nil {
		return Task{}, err
	}
	t := &task{
		letters: l, order: o, ended: make(chan struct{}), seed: maphash.MakeSeed(), handled: make(map[uint64]bool),
		told: Task{
			ID: message.NewID(), Do: o.Do, Filter: o.Filter, AsOf: o.AsOf, Rate: o.Rate, State: Running,
			Started: time.Now().UTC().Truncate(time.Millisecond), By: o.By, Reason: o.Reason, Node: l.cfg.Node(),
		},
	}
	change := event.DeadLettersChange{
		Do: string(o.Do), Task: t.told.ID, Filter: o.Filter.String(), AsOf: o.AsOf, Rate: o.Rate, Letters: seen.Letters, By: o.By, From: o.From, Reason: o.Reason,
	}
	if seen.Cut {
		change.Letters = -1
	} else {
		t.told.Total = &seen.Letters
	}
	first := t.view()
	running, err := l.admit(t)
	if err != nil {
		return Task{}, err
	}
	l.cfg.Tell(change)
	err = l.begin(func(context.Context) { t.run(running) })
	if err != nil { // the process stops
		t.end(Cancelled, err)
	}
	return first, err
}

// admit remembers a task, and forgets the oldest that has ended. It returns what ends the
// task.
func (l *Letters) admit(t *task) (context.Context, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	running, oldest := 0, -1
	for i, o := range l.tasks {
		switch {
		case o.view().State == Running:
			running++
		case oldest < 0:
			oldest = i
		}
	}
	switch {
	case l.stopping():
		return nil, ErrStopping
	case running >= maxRunning:
		return nil, ErrTooMany
	case len(l.tasks) >= maxTasks:
		l.tasks = slices.Delete(l.tasks, oldest, oldest+1)
	}
	ctx, cancel := context.WithCancelCause(l.ctx)
	t.cancel = cancel
	l.tasks = append(l.tasks, t)
	return ctx, nil
}

// view is the task as it is now.
func (t *task) view() Task {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.told
}

// change changes what is told of the task.
func (t *task) change(f func(*Task)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.told)
}

// errTooFar is why a task gives up whose letters lie behind too many others.
var errTooFar = fmt.Errorf("no dead letter that is meant is among those that can be looked at within %v; "+
	"the command dead-letters looks at all, with the same filters", longPassTime)

var errTooMuch = fmt.Errorf("it has handled %d dead letters; start another task for the rest", maxHandled)

// run passes over the queue until nothing is left to do. It ends when ctx does, after
// the letter that it is at.
func (t *task) run(ctx context.Context) {
	defer close(t.ended)
	defer t.cancel(nil)
	pauses := backoff.Backoff{Min: passPause, Max: 5 * time.Second}
	span := passTime
	var failing time.Time // zero while it does not
	for {
		began := time.Now()
		acted, whole, err := t.pass(ctx, span)
		took := time.Since(began)
		pause := max(passPause, took/2, time.Duration(acted)*time.Second/time.Duration(t.order.Rate)-took)
		if err == nil || acted > 0 {
			failing = time.Time{}
			pauses.Reset()
		}
		switch {
		case ctx.Err() != nil:
			t.end(Cancelled, context.Cause(ctx))
			return
		case err != nil && failing.IsZero():
			failing = began
			fallthrough
		case err != nil && time.Since(failing) < taskPatience:
			t.change(func(v *Task) { v.Error = broker.Clip(oneLine(err), maxReason) })
			pause = pauses.Next()
		case err != nil:
			t.end(Failed, err)
			return
		case whole:
			t.end(Done, nil)
			return
		case len(t.handled) >= maxHandled:
			t.end(Failed, errTooMuch)
			return
		case acted > 0:
			span = passTime
		case span >= longPassTime:
			t.end(Failed, errTooFar)
			return
		default:
			span = min(2*span, longPassTime)
		}
		backoff.Sleep(ctx, pause)
	}
}

// end tells that the task has ended, and why if that was early.
func (t *task) end(s State, why error) {
	if errors.Is(why, context.Canceled) {
		why = errors.New("the process stopped; nothing is lost, start the task again at another node")
	}
	t.change(func(v *Task) {
		v.State, v.Ended, v.Error = s, stamp(time.Now()), ""
		if why != nil {
			v.Error = broker.Clip(oneLine(why), maxReason)
		}
	})
	v := t.view()
	t.letters.cfg.Tell(event.DeadLettersTaskEnded{Task: v.ID, Do: string(v.Do), State: string(s), Letters: v.Done, Failed: v.Failed, Err: why})
}

// pass handles at most as many letters as the rate allows in a second, and returns how many
// that were. whole tells that it has seen all, so none is left.
func (t *task) pass(ctx context.Context, within time.Duration) (acted int, whole bool, err error) {
	open := false // it is not known yet whether the last letter was handled
	var last uint64
	settle := func() {
		open = false
		acted++
		t.change(func(v *Task) { v.Done, v.Error = v.Done+1, "" })
	}
	verdict := broker.Replay
	if t.order.Do == ActionPurge {
		verdict = broker.Remove
	}
	whole, err = t.letters.visit(ctx, within, func(s *seen) (broker.Verdict, bool) {
		if open {
			settle()
		}
		switch {
		case s.late || acted >= t.order.Rate || len(t.handled) >= maxHandled:
			return broker.Keep, false
		case !t.order.wants(s):
			return broker.Keep, true
		}
		// A letter that comes back may be told an earlier time, by another clock.
		last = t.content(s)
		switch {
		case verdict == broker.Replay && t.handled[last]:
			return broker.Keep, true
		case verdict == broker.Replay && s.Envelope.Shard < 0:
			t.handled[last] = true
			t.change(func(v *Task) { v.Failed++ })
			return broker.Keep, true
		case verdict == broker.Replay:
			t.handled[last] = true
		}
		open = true
		return verdict, true
	})
	switch {
	case open && whole:
		settle()
	case open: // it may be there still, and is tried again then
		delete(t.handled, last)
	}
	return acted, whole, err
}

// content is what a letter keeps when it dies again.
func (t *task) content(s *seen) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	_, _ = h.WriteString(s.Envelope.ID) // it never fails
	_ = h.WriteByte(0)
	_, _ = h.WriteString(s.Origin)
	_ = h.WriteByte(0)
	_, _ = h.Write(s.Envelope.Body)
	return h.Sum64()
}
