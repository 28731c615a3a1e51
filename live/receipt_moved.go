package live

import (
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// movedTopic tells of submissions whose messages may be in other shards than before.
const movedTopic = "receipts.moved"

// moved is a submission one of whose messages went to another shard.
type moved struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	ID   string `json:"id"`
}

// Moved tells all nodes that a message of the submission may have gone to another shard
// than it was accepted for. Its receipt is then asked of all shards. If that is lost, the
// receipt may stay pending where a server remembers the shards.
func (r *Receipts) Moved(id string) {
	_ = r.cfg.Bus.Tell(movedTopic, broker.Body(moved{broker.BusVersion, r.cfg.Node(), id}))
}

// movements hears what Moved tells, here or elsewhere.
type movements struct{ *Receipts }

func (r movements) hear(body []byte, missed int) {
	if missed == broker.Reconnected {
		return
	}
	var m moved
	err := broker.ReadBody(body, &m)
	if _, ours := message.CountOf(m.ID); err == nil && (!ours || len(m.ID) != replyLen) {
		err = errBounds
	}
	r.cfg.Skips.Add(err)
	if err != nil {
		return
	}
	if r.memory != nil {
		r.memory.forgetShards(m.ID)
	}
	r.mu.Lock()
	if e := r.entries[m.ID]; e != nil && !e.done && e.shards != nil {
		e.shards = nil
		r.untell(e, time.Now())
	}
	r.mu.Unlock()
}
