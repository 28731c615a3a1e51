package bus

import (
	"context"
	"sync"

	"async-data-processor/broker"
)

// Answers are what comes back for one question.
type Answers struct {
	some chan struct{} // of one: there may be answers

	mu    sync.Mutex // guards what follows
	queue queue
}

// NewAnswers returns none.
func NewAnswers() *Answers { return &Answers{some: make(chan struct{}, 1)} }

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

// Each calls take with each answer until it returns false, ctx ends, or lost is
// closed; only of that it tells.
func (a *Answers) Each(ctx context.Context, lost <-chan struct{}, take func([]byte) bool) (complete bool) {
	for {
		for ctx.Err() == nil {
			body, ok := a.next()
			if !ok {
				break
			}
			if !take(body) {
				return true
			}
		}
		select {
		case <-a.some:
		case <-ctx.Done():
			return true
		case <-lost:
			return false
		}
	}
}

// WithTimeout bounds the time of a question without a deadline.
func WithTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, broker.AskTimeout)
}
