package consumer

import (
	"bytes"
	"iter"
	"slices"
	"time"

	"async-data-processor/message"
	"async-data-processor/output"
)

// Known is what a shard that this process owns knows of a submission.
type Known struct {
	Shard int
	output.Known
	Memory output.Memory
	Pause  *Pause // nil unless the shard is paused
}

// Known returns what the shards know of a submission whose number of messages is count.
// Only shards that this process owns are in the answer, in their order. shards are those
// that are asked for, nil for all.
func (s *Set) Known(submission string, count int, shards []int) (all []Known) {
	now := time.Now()
	s.mu.Lock()
	folders, paused := make(map[int]Folder, len(s.running)), make(map[int]*Pause)
	for n, sh := range s.running {
		if sh.folder != nil && sh.purpose == toConsume && (shards == nil || slices.Contains(shards, n)) {
			folders[n] = sh.folder
			if sh.control.paused(now) {
				paused[n] = sh.control.Pause
			}
		}
	}
	s.mu.Unlock()
	all = make([]Known, 0, len(folders))
	for n, f := range folders {
		k := Known{Shard: n, Pause: paused[n]}
		k.Known, k.Memory = f.Known(submission, count)
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b Known) int { return a.Shard - b.Shard })
	return all
}

// died counts the messages of a delivery that are dead letters now, and tells who watches
// of them.
func (sh *shard) died(d *message.Delivery, o message.Outcome) {
	watch := sh.set.cfg.Watch
	tells := watch != nil && watch.Watched()
	for line, reason := range deadOf(d, o) {
		sh.dead.Add(1)
		if tells {
			watch.Dead(sh.n, line, reason)
		}
	}
}

// deadOf yields the lines of a delivery that are dead letters, and why each is.
func deadOf(d *message.Delivery, o message.Outcome) iter.Seq2[[]byte, string] {
	return func(yield func([]byte, string) bool) {
		for _, dead := range o.Dead {
			if !yield(dead.Line, dead.Reason) {
				return
			}
		}
		switch {
		case len(o.Dead) > 0: // else it is the whole envelope
		case d.Foreign:
			yield(d.Body, o.Reason)
		default:
			for line := range bytes.SplitSeq(d.Body, []byte{'\n'}) {
				if len(line) > 0 && !yield(line, o.Reason) {
					return
				}
			}
		}
	}
}
