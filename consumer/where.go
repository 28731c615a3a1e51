package consumer

import (
	"bytes"
	"slices"
	"time"

	"async-data-processor/message"
	"async-data-processor/output"
	"async-data-processor/workerpool"
)

// Place is what a shard that this process owns knows of a message.
type Place struct {
	Shard int
	// Written tells that it is durable, since At.
	Written bool
	At      time.Time
	// Received tells that it was received and its delivery is not settled. Worker is who
	// has it, since Since; empty while it is in a batch that gathers.
	Received bool
	Worker   string
	Since    time.Time
	Memory   output.Memory
	// Sibling tells that another message of its submission is durable.
	Sibling bool
}

// Where looks for a message in the shards that a Set owns, in their order. It reads what
// was received and is not settled.
func Where(s *Set, id []byte) (all []Place) {
	type owned struct {
		n      int
		age    *age
		pool   *workerpool.Pool
		folder Folder
	}
	s.mu.Lock()
	shards := make([]owned, 0, len(s.running))
	for n, sh := range s.running {
		if sh.folder != nil && sh.purpose == toConsume {
			shards = append(shards, owned{n, sh.age, sh.pool, sh.folder})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(shards, func(a, b owned) int { return a.n - b.n })
	submission, _, _ := bytes.Cut(id, []byte{'.'})
	count, _ := message.CountOf(string(id))
	for _, sh := range shards {
		p := Place{Shard: sh.n}
		// In the way of a message, so that one which goes on meanwhile is found.
		p.Received = sh.age.holds(id)
		if p.Received && sh.pool != nil {
			p.Worker, p.Since, _ = sh.pool.Holder(id)
		}
		var known output.Known
		p.At, p.Written = sh.folder.Written(id)
		known, p.Memory = sh.folder.Known(string(submission), count)
		p.Sibling = known.Bits != nil
		all = append(all, p)
	}
	return all
}

// has tells whether an envelope has a message.
func has(e *message.Envelope, id []byte) bool {
	if e.Foreign {
		const keyed = 26 // the length of a KeyedID
		return e.ID == string(id) || e.ID == "" && len(id) == keyed && string(id) == message.KeyedID("", e.Body)
	}
	for line := range bytes.SplitSeq(e.Body, []byte{'\n'}) {
		if bytes.Equal(message.Message{Line: line}.RawID(), id) {
			return true
		}
	}
	return false
}
