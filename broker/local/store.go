package local

import (
	"context"
	"time"

	"async-data-processor/message"
)

// Dead is the number of the queue of dead letters, beside those of the shards.
const Dead = -1

// Store keeps the queues of an Engine. The engine calls one of Recover, Commit and
// Close at a time, and any number of the others at the same time as these.
type Store interface {
	// Recover opens the store, again if it was open, and returns what is in it by
	// queue. Until it has succeeded, all calls but Close fail. It is called first,
	// and after a Commit or a Read that has failed otherwise. An error may pass unless it
	// wraps ErrDamaged. It may give up when ctx ends.
	Recover(ctx context.Context) (map[int]Contents, error)
	// Commit makes all of the change durable, or nothing. If its error wraps
	// broker.ErrRejected, nothing of the change is in the store, which is as it was
	// and may be used; else the change may be there, and the store has to be opened
	// again.
	Commit(c *Change) error
	// Read returns the next items of the queue after a sequence number, ascending:
	// at most limit, and no more once they have readBytes. The items are the caller's.
	Read(queue int, after uint64, limit int) ([]Item, error)
	// HandOut notes that the items of a shard up to a sequence number may have been
	// handed out. When it is opened the next time, each of them that is still there
	// counts as returned once more. The note need not survive a loss of power.
	HandOut(shard int, upTo uint64)
	// Close ends the use of the store in order.
	Close() error
}

// readBytes bounds what one Read holds, but for its last item.
const readBytes = 1 << 20

// Item is an envelope in a queue, or a dead letter.
type Item struct {
	// Seq is its place in the queue; an engine never uses one twice.
	Seq uint64
	// Returns is how often it came back. It is not a part of a store's Read, but
	// of its Contents.
	Returns int
	// Envelope is what was published. In the queue of dead letters, its Shard is
	// where it came from.
	Envelope message.Envelope
	// Reason and Time are those of a dead letter.
	Reason string
	Time   time.Time
}

// Contents is what a queue of a store holds.
type Contents struct {
	// Given is the last sequence number that was used, First and Last are those of
	// the items that are there; 0 if none is.
	Given, First, Last uint64
	// Depth is how many items there are.
	Depth int
	// Returns is how often items came back, by sequence number, if at all.
	Returns map[uint64]int
}

// Change is what one commit does.
type Change struct {
	// Put are new items, ascending in each queue.
	Put []Put
	// Delete are items that go, with what is known of their returns.
	Delete []Place
	// Returns sets how often items came back; they are there.
	Returns []Return
}

// Put is a new item of a queue.
type Put struct {
	Queue int
	Item  *Item
}

// Place is an item of a queue.
type Place struct {
	Queue int
	Seq   uint64
	// Returned tells that the store counts its returns.
	Returned bool
}

// Return sets how often an item came back.
type Return struct {
	Place
	N int
}

func (c *Change) empty() bool { return len(c.Put)+len(c.Delete)+len(c.Returns) == 0 }
