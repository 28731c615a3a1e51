package jobs

import (
	"context"
	"sync"

	"async-data-processor/jobs/frame"
)

const (
	// maxQueued bounds what waits in a queue, in bytes: a runner that keeps to
	// MaxUnacknowledged never waits for room.
	maxQueued = frame.MaxUnacknowledged + 256<<10
	// minQueued is what a frame counts for, at least.
	minQueued = 256
)

// queue is the frames that wait for one goroutine, in their order.
type queue struct {
	filled, emptied chan struct{} // each holds one wake-up

	mu     sync.Mutex // guards what follows
	frames []frame.Frame
	bytes  int
}

func weight(f frame.Frame) int { return max(minQueued, len(f.Data)+len(f.Why)) }

// put adds a frame, whatever waits.
func (q *queue) put(f frame.Frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.frames = append(q.frames, f)
	q.bytes += weight(f)
	wake(q.filled)
}

// putIf is put that waits for room. It returns false if ctx ends before.
func (q *queue) putIf(ctx context.Context, f frame.Frame) bool {
	for {
		q.mu.Lock()
		room := q.bytes < maxQueued
		q.mu.Unlock()
		if room {
			q.put(f)
			return true
		}
		select {
		case <-q.emptied:
		case <-ctx.Done():
			return false
		}
	}
}

// next returns the first frame, once there is one. Parts of one log that follow each other
// are one frame, as each costs the database a transaction. It returns false if ctx ends.
func (q *queue) next(ctx context.Context) (frame.Frame, bool) {
	for {
		q.mu.Lock()
		if len(q.frames) > 0 {
			f := q.first()
			q.mu.Unlock()
			wake(q.emptied)
			return f, true
		}
		q.mu.Unlock()
		select {
		case <-q.filled:
		case <-ctx.Done():
			return frame.Frame{}, false
		}
	}
}

// first takes the first frame. mu is held.
func (q *queue) first() frame.Frame {
	f, n := q.frames[0], 1
	q.bytes -= weight(f)
	for ; n < len(q.frames); n++ {
		g := q.frames[n]
		if g.Type != frame.Log || f.Type != frame.Log || g.Run != f.Run || g.Attempt != f.Attempt || f.Cut > 0 ||
			g.Offset != f.Offset+int64(len(f.Data)) || len(f.Data)+len(g.Data) > frame.MaxLogPart {
			break
		}
		q.bytes -= weight(g)
		f.Data, f.Cut = append(f.Data, g.Data...), g.Cut
	}
	if q.frames = q.frames[n:]; len(q.frames) == 0 {
		q.frames = nil
	}
	return f
}
