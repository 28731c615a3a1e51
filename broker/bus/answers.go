package bus

import (
	"context"
	"errors"
	"sync"

	"async-data-processor/broker"
)

// Answers are what comes back for one question.
type Answers struct {
	some chan struct{} // of one: there may be answers

	mu    sync.Mutex // guards what follows
	queue queue
}

var errLost = errors.New("bus: the connection was lost before all answers can have come")

// Add takes an answer. It never waits; of too many the oldest go.
func (a *Answers) Add(body []byte) {
	if len(body) > broker.MaxBusBody {
		return // not ours
	}
	a.mu.Lock()
	a.queue.add(item{body: body})
	a.mu.Unlock()
	select {
	case a.some <- struct{}{}:
	default:
	}
}

func (a *Answers) next() (body []byte, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.queue.empty() {
		return nil, false
	}
	return a.queue.pop().body, true
}

// Gather asks, and calls take with each answer, as broker.Bus says. ask sends the
// question; lost is closed when no answer can come any more. It may be nil, as may end,
// which is called when no answer is waited for any more.
func (r *Receivers) Gather(
	ctx context.Context, take func(answer []byte) (more bool),
	ask func(ctx context.Context, a *Answers) (lost <-chan struct{}, end func(), err error),
) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, broker.AskTimeout)
		defer cancel()
	}
	a := &Answers{some: make(chan struct{}, 1)}
	lost, end, err := ask(ctx, a)
	if end != nil {
		defer end()
	}
	if err != nil {
		return err
	}
	for {
		for ctx.Err() == nil {
			body, ok := a.next()
			if !ok {
				break
			}
			if !take(body) {
				return nil
			}
		}
		select {
		case <-a.some:
		case <-ctx.Done():
			return nil
		case <-lost:
			return errLost
		case <-r.done:
			return broker.ErrClosed
		}
	}
}
