package workerpool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/message"
)

var (
	errAbandoned = errors.New("the batch was abandoned")
	errDiskFull  = errors.New("the disk is full")
)

// output is a Writer in memory that keeps the contract: it asks for the right
// to a batch, and only then makes the batch visible. What happens on the way
// is up to the test.
type output struct {
	// before and after happen ahead of asking for the right and behind having
	// it; nil does nothing, an error ends the attempt.
	before, after func(call) error
	// known is how many messages of a batch are in a file already; nil for none.
	known   func(b *message.Batch) int
	journal *journal

	mu       sync.Mutex // guards what follows
	attempts map[string]int
	writers  map[string]string // by batch, the worker that writes it now
	peak     int               // of len(writers)
	visible  []string          // the ids in files
	files    int
	wrong    []string // breaches of what the pool promises
}

// fileSize is the most messages of a file.
const fileSize = 5

// call is one attempt to write a batch.
type call struct {
	ctx     context.Context
	worker  string
	batch   string
	ids     []string
	attempt int // counted from 1, by batch
	at      time.Time
}

func (o *output) Write(ctx context.Context, worker string, b *message.Batch) (file string, fresh []message.Message, err error) {
	c := o.enter(call{ctx: ctx, worker: worker, batch: nameOf(b), ids: idsOf(b), at: time.Now()})
	defer o.leave(c)
	if o.before != nil {
		if err := o.before(c); err != nil {
			return "", nil, err
		}
	}
	if !b.BeginPublish() {
		o.journal.add("refused " + c.batch)
		return "", nil, errAbandoned
	}
	if o.after != nil {
		if err := o.after(c); err != nil {
			return "", nil, err
		}
	}
	fresh = b.Messages
	if o.known != nil {
		fresh = fresh[o.known(b):]
	}
	o.mu.Lock()
	o.visible = append(o.visible, c.ids...)
	for n := len(fresh); n > 0; n -= fileSize {
		o.files++
	}
	o.mu.Unlock()
	o.journal.add("wrote " + c.batch)
	if len(fresh) == 0 {
		return "", nil, nil
	}
	return fileOf(worker, c.batch), fresh, nil
}

func (o *output) enter(c call) call {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.attempts == nil {
		o.attempts, o.writers = make(map[string]int), make(map[string]string)
	}
	if other, ok := o.writers[c.batch]; ok {
		o.wrong = append(o.wrong, fmt.Sprintf("%s is written by %s and %s at once", c.batch, other, c.worker))
	}
	o.writers[c.batch] = c.worker
	o.peak = max(o.peak, len(o.writers))
	o.attempts[c.batch]++
	c.attempt = o.attempts[c.batch]
	return c
}

func (o *output) leave(c call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.writers, c.batch)
}

// forget starts the peak anew.
func (o *output) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.peak = len(o.writers)
}

// checkPeak asserts how many batches were written at once.
func (o *output) checkPeak(t *testing.T, want int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.peak != want {
		t.Errorf("%d batches were written at once, want %d", o.peak, want)
	}
}

// takes is a step that needs d, unless the attempt is cancelled.
func takes(d time.Duration) func(call) error {
	return func(c call) error {
		select {
		case <-time.After(d):
			return nil
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
}

// hangs is a step that needs d and cannot be interrupted, like a system call.
func hangs(d time.Duration) func(call) error {
	return func(call) error {
		time.Sleep(d)
		return nil
	}
}

// first makes a step happen to the first attempt of a batch only.
func first(step func(call) error) func(call) error {
	return func(c call) error {
		if c.attempt > 1 {
			return nil
		}
		return step(c)
	}
}

// only makes a step happen to some batches only.
func only(step func(call) error, batches ...string) func(call) error {
	return func(c call) error {
		if !slices.Contains(batches, c.batch) {
			return nil
		}
		return step(c)
	}
}

// poison makes a step happen to batches with one of the messages.
func poison(step func(call) error, ids ...string) func(call) error {
	return func(c call) error {
		for _, id := range ids {
			if slices.Contains(c.ids, id) {
				return step(c)
			}
		}
		return nil
	}
}

// inTurn is one step after another, until one fails.
func inTurn(steps ...func(call) error) func(call) error {
	return func(c call) error {
		for _, step := range steps {
			if err := step(c); err != nil {
				return err
			}
		}
		return nil
	}
}

func boom(call) error { panic("boom") }

// journal is what happened to batches, in order.
type journal struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// of returns what happened to one batch.
func (j *journal) of(batch string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var lines []string
	for _, line := range j.lines {
		if what, of, _ := strings.Cut(line, " "); of == batch {
			lines = append(lines, what)
		}
	}
	return lines
}
