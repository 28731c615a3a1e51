package workerpool_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/workerpool"
)

// errDeadline is the cause with which the tests cancel a pool.
var errDeadline = errors.New("drain deadline passed")

// rig is a pool at work in a bubble, on shard 7.
type rig struct {
	t       *testing.T
	cfg     workerpool.Config
	pool    *workerpool.Pool
	output  *output
	journal *journal
	batches chan *message.Batch
	cancel  context.CancelCauseFunc
	ended   chan struct{} // closed when Run has returned
	began   time.Time

	// settling is what the broker answers to every settle.
	settling error

	// shrinks tells that the bounds may be lowered while a worker starts; set before.
	shrinks bool
	closed  bool // batches is; only used by the test's goroutine

	mu     sync.Mutex          // guards what follows
	handed int                 // messages
	jobs   map[string][]string // the ids in a batch, by its name
	dead   map[string]string   // by id, why
	events []event.Event
	wrong  []string
}

// inBubble runs the test of a pool of 3 to 4 workers with a timeout of 30s.
func inBubble(t *testing.T, o *output, test func(r *rig)) {
	t.Helper()
	inBubbleWith(t, workerpool.Config{Min: 3, Max: 4, Timeout: 30 * time.Second}, o, test)
}

func inBubbleWith(t *testing.T, cfg workerpool.Config, o *output, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{
			t:       t,
			cfg:     cfg,
			output:  o,
			journal: new(journal),
			batches: make(chan *message.Batch, 1000),
			ended:   make(chan struct{}),
			began:   time.Now(),
			jobs:    make(map[string][]string),
			dead:    make(map[string]string),
		}
		o.journal = r.journal
		r.cfg.Shard, r.cfg.Writer, r.cfg.Events = 7, o, r.observe
		r.pool = workerpool.New(r.cfg, r.batches)
		ctx, cancel := context.WithCancelCause(t.Context())
		r.cancel = cancel
		go func() {
			defer close(r.ended)
			r.pool.Run(ctx)
		}()
		defer r.abort()
		synctest.Wait()
		test(r)
		r.check()
	})
}

// hand puts a batch of n messages, of one delivery, into the pool's reach. Its
// name is that of its first message.
func (r *rig) hand(n int) (name string) {
	r.mu.Lock()
	first := r.handed
	r.handed += n
	name = fmt.Sprint("b", first)
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprint("b", first+i)
	}
	r.jobs[name] = ids
	r.mu.Unlock()

	b := &message.Batch{Cause: message.Full, Size: fileSize}
	d := message.NewDelivery(message.Envelope{Count: n}, false, func(o message.Outcome) error {
		r.journal.add(o.Kind.String() + " " + name)
		if o.Kind != message.Ack && o.Reason == "" {
			r.fault("%s is settled as %s without a reason", name, o.Kind)
		}
		if o.Kind == message.DeadLetter {
			r.bury(ids, o)
		}
		return r.settling
	})
	d.Expect(n)
	for _, id := range ids {
		b.Add(d, message.Message{Line: fmt.Appendf(nil, `{"message_id":"%s"}`, id)})
	}
	r.batches <- b
	return name
}

func (r *rig) bury(ids []string, o message.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range o.Dead {
		r.dead[d.ID()] = d.Reason
	}
	if len(o.Dead) == 0 {
		for _, id := range ids {
			r.dead[id] = o.Reason
		}
	}
}

// died asserts which messages are dead, each because writing it panicked.
func (r *rig) died(want ...string) {
	r.t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	got := slices.Sorted(maps.Keys(r.dead))
	if !slices.Equal(got, want) {
		r.t.Errorf("dead are %v, want %v", got, want)
	}
	for id, why := range r.dead {
		if !strings.HasPrefix(why, "writing it panicked: ") {
			r.t.Errorf("%s is dead because of %q", id, why)
		}
	}
}

func (r *rig) handMany(batches int) {
	for range batches {
		r.hand(5)
	}
}

func nameOf(b *message.Batch) string { return b.Messages[0].ID() }

func idsOf(b *message.Batch) []string {
	ids := make([]string, len(b.Messages))
	for i, m := range b.Messages {
		ids[i] = m.ID()
	}
	return ids
}

func fileOf(worker, batch string) string { return "shard-7/" + worker + "_" + batch + ".ndjson" }

// observe is the sink; it holds the pool to its bounds.
func (r *rig) observe(e event.Event) {
	if _, ok := e.(event.WorkerStarted); ok {
		alive := 0
		for _, w := range r.pool.History() {
			if w.State != event.Stopped && w.State != event.TimedOut {
				alive++
			}
		}
		if _, most := r.pool.Bounds(); alive > most && !r.shrinks {
			r.fault("there are %d workers", alive)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *rig) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

// close says that there will be no more batches.
func (r *rig) close() {
	r.closed = true
	close(r.batches)
}

// abort ends a pool whose test failed halfway, so that its failure is all that
// is reported.
func (r *rig) abort() {
	r.cancel(errDeadline)
	if !r.closed {
		r.close()
	}
	<-r.ended
	time.Sleep(24 * time.Hour) // wakes what a pool has left behind
	synctest.Wait()
}

// over asserts that Run has returned.
func (r *rig) over() {
	r.t.Helper()
	synctest.Wait()
	select {
	case <-r.ended:
	default:
		r.t.Fatalf("after %v: Run has not returned", time.Since(r.began))
	}
}

// runs asserts that Run has not returned.
func (r *rig) runs() {
	r.t.Helper()
	synctest.Wait()
	select {
	case <-r.ended:
		r.t.Fatalf("after %v: Run has returned", time.Since(r.began))
	default:
	}
}

// drain waits for the pool's end, which has to come by itself.
func (r *rig) drain() {
	r.close()
	<-r.ended
}

// at sleeps until d after the start, and lets the pool come to rest.
func (r *rig) at(d time.Duration) {
	time.Sleep(time.Until(r.began.Add(d)))
	synctest.Wait()
}

// states counts the workers by state.
func (r *rig) states(want map[event.State]int) {
	r.t.Helper()
	synctest.Wait()
	got := make(map[event.State]int)
	for _, w := range r.pool.History() {
		got[w.State]++
	}
	for _, s := range []event.State{event.Idle, event.Busy, event.Holding, event.TimedOut, event.Stopped} {
		if got[s] != want[s] {
			r.t.Fatalf("after %v: workers are %v, want %v", time.Since(r.began), got, want)
		}
	}
}

// worker returns the record of a worker.
func (r *rig) worker(id string) event.Worker {
	r.t.Helper()
	synctest.Wait()
	for _, w := range r.pool.History() {
		if w.ID == id {
			return w
		}
	}
	r.t.Fatalf("no worker %s in the history", id)
	return event.Worker{}
}

// lived asserts why a worker started and stopped; stopped is empty if it lives.
func (r *rig) lived(id, started, stopped string) {
	r.t.Helper()
	w := r.worker(id)
	if w.WhyStarted != started || w.WhyStopped != stopped {
		r.t.Errorf("worker %s started because of %q and stopped because of %q, want %q and %q", id, w.WhyStarted, w.WhyStopped, started, stopped)
	}
	if over := w.State == event.Stopped; over != (stopped != "") || over == w.Stopped.IsZero() {
		r.t.Errorf("worker %s is %v, stopped at %v because of %q", id, w.State, w.Stopped, w.WhyStopped)
	}
}

// happened asserts what became of a batch, step by step.
func (r *rig) happened(batch string, want ...string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.journal.of(batch); !slices.Equal(got, want) {
		r.t.Errorf("after %v: %s was %v, want %v", time.Since(r.began), batch, got, want)
	}
}

func told[E event.Event](r *rig) []E {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var es []E
	for _, e := range r.events {
		if e, ok := e.(E); ok {
			es = append(es, e)
		}
	}
	return es
}

// count asserts how many events of one type were told, so far.
func count[E event.Event](r *rig, want int) {
	r.t.Helper()
	if got := len(told[E](r)); got != want {
		r.t.Errorf("%d times told %T, want %d", got, *new(E), want)
	}
}

// check holds a pool that has ended to everything it promises.
func (r *rig) check() {
	r.t.Helper()
	r.over()
	time.Sleep(24 * time.Hour) // what it has left behind may still do harm
	synctest.Wait()

	written := make(map[string]int)
	for _, id := range r.output.visible {
		written[id]++
	}
	panicked := len(told[event.WorkerPanicked](r)) > 0
	for name, ids := range r.jobs {
		var settled []string
		for _, what := range r.journal.of(name) {
			switch what {
			case "wrote":
				if len(settled) > 0 {
					r.t.Errorf("%s was settled before it was written", name)
				}
			case "ack", "return", "dead-letter":
				settled = append(settled, what)
			}
		}
		if len(settled) != 1 {
			r.t.Errorf("%s was settled by %v", name, settled)
			continue
		}
		for _, id := range ids {
			n, want := written[id], 1
			// Of a batch that was split, what is written may come again.
			if _, dead := r.dead[id]; dead || settled[0] == "return" && !(panicked && n == 1) {
				want = 0
			}
			if n != want {
				r.t.Errorf("%s is in %d files, want %d, for %s was settled by %s", id, n, want, name, settled[0])
			}
		}
	}
	batches, messages, dead := int64(r.output.files), int64(len(r.output.visible)), int64(len(told[event.MessageDied](r)))
	var duplicates int64
	for _, w := range r.pool.History() {
		batches, messages, duplicates = batches-w.Batches, messages-w.Messages, duplicates+w.Duplicates
		dead -= w.Dead
		if w.State != event.Stopped || w.WhyStopped == "" || w.Stopped.Before(w.Started) || (w.LastFile == "") != (w.Batches == 0) {
			r.t.Errorf("at the end: worker %+v", w)
		}
	}
	// A batch of nothing but duplicates is none, but its messages are visible.
	for _, e := range told[event.BatchWritten](r) {
		duplicates -= int64(e.Duplicates)
		messages -= int64(e.Duplicates)
	}
	if batches != 0 || messages != 0 || duplicates != 0 || dead != 0 {
		r.t.Errorf("the history lacks %d batches, %d messages, %d duplicates and %d dead", batches, messages, -duplicates, dead)
	}
	r.checkEvents()
	for _, wrong := range slices.Concat(r.wrong, r.output.wrong) {
		r.t.Error(wrong)
	}
}

// checkEvents compares the events with one another.
func (r *rig) checkEvents() {
	r.t.Helper()
	for i, e := range told[event.WorkerStarted](r) {
		if want := fmt.Sprint("7-", i+1); e.Worker.ID != want || e.Worker.State != event.Idle || e.Worker.Shard != 7 {
			r.t.Errorf("start %d told %+v, want worker %s", i, e.Worker, want)
		}
	}
	stopped := make(map[string]bool)
	for _, e := range told[event.WorkerStopped](r) {
		if stopped[e.Worker.ID] || e.Worker.State != event.Stopped {
			r.t.Errorf("a stop told %+v", e.Worker)
		}
		stopped[e.Worker.ID] = true
	}
	if started := len(told[event.WorkerStarted](r)); started != len(stopped) {
		r.t.Errorf("%d workers started, %d stopped", started, len(stopped))
	}
	if r.settling == nil {
		count[event.SettleFailed](r, 0)
	}
	n, least := len(told[event.BatchWritten](r))+len(told[event.BatchReturned](r))+len(told[event.MessageDied](r)), len(r.jobs)
	if split := len(told[event.WorkerPanicked](r)) > 0; n < least || n > least && !split {
		r.t.Errorf("%d batches were told to be written, returned or dead, want %d", n, least)
	}
}
