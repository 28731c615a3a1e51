// Package backoff spaces attempts that fail: each waits longer than the one
// before it, up to a limit.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the pauses between attempts. Its user is one goroutine.
type Backoff struct {
	// Min is the first pause, Max the longest; 0 < Min <= Max.
	Min, Max time.Duration
	// Jitter is the share of a pause that is left to chance, 0 to 1: the pause is
	// between 1-Jitter and 1 of its length. Many processes that lose one server
	// then do not come back at the same moment.
	Jitter float64

	next time.Duration // 0 before the first pause
}

// Next returns the next pause. Each is twice as long as the one before it.
func (b *Backoff) Next() time.Duration {
	pause := max(b.next, b.Min)
	b.next = min(2*pause, b.Max)
	return pause - time.Duration(b.Jitter*rand.Float64()*float64(pause))
}

// Reset starts again with Min, after an attempt that has succeeded.
func (b *Backoff) Reset() { b.next = 0 }

// Sleep waits for d. It returns false at once when ctx ends.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
