package consumer

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"async-data-processor/event"
	"async-data-processor/workerpool"
)

// errOpening is why a shard is not running yet: its folder is being taken.
var errOpening = errors.New("its folder is being opened")

// Status returns the shards that the Set has started, from the first attempt to
// open them until they have stopped.
func (s *Set) Status() Status {
	s.mu.Lock()
	all := make(Status, 0, len(s.running))
	pools, folders := make([]*workerpool.Pool, 0, len(s.running)), make([]Folder, 0, len(s.running))
	for _, n := range slices.Sorted(maps.Keys(s.running)) {
		sh := s.running[n]
		lowest, highest := sh.control.bounds(s.cfg)
		all = append(all, ShardStatus{
			Shard: n, State: sh.state, Since: sh.since, Err: sh.why, Overdue: sh.overdue,
			Unsettled: int(sh.unsettled.Load()), Dead: sh.dead.Load(), Owned: sh.folder != nil,
			Pause: sh.control.Pause, WorkersMin: lowest, WorkersMax: highest,
		})
		last := &all[len(all)-1]
		last.Queued, last.Oldest, last.OldestKnown = s.ages.of(n).oldest()
		pools, folders = append(pools, sh.pool), append(folders, sh.folder)
	}
	s.mu.Unlock()
	for i, p := range pools {
		if p != nil {
			all[i].Holding, all[i].HeldBy, all[i].Held = p.Held()
			all[i].Workers = p.Workers()
		}
		if f := folders[i]; f != nil {
			all[i].IDs, all[i].IDsAge = f.Remembered()
		}
	}
	return all
}

// Owned counts the shards below n that run, or are paused.
func (s Status) Owned(n int) (owned int) {
	for _, sh := range s {
		if sh.Shard < n && (sh.State == event.ShardRunning || sh.State == event.ShardPaused) {
			owned++
		}
	}
	return owned
}

// Err returns why the output does not take everything, nil if it does: first
// shards that are not open, then batches that cannot be written, then files that
// cannot be published. A shard from n on may be opening.
func (s Status) Err(n int) error {
	var closed, holding, overdue problem
	for _, sh := range s {
		if sh.Err != nil && (sh.Shard < n || sh.Err != errOpening) {
			closed.add(1, fmt.Sprintf("shard %d", sh.Shard), sh.Err)
		}
		if sh.Holding > 0 {
			holding.add(sh.Holding, "worker "+sh.HeldBy, sh.Held)
		}
		if sh.Overdue != nil {
			overdue.add(1, fmt.Sprintf("shard %d", sh.Shard), sh.Overdue)
		}
	}
	switch {
	case closed.count > 0:
		return closed.err("shard is not open", "shards are not open")
	case holding.count > 0:
		return holding.err("worker cannot write its batch", "workers cannot write their batch")
	case overdue.count > 0:
		return overdue.err("shard has an overdue file", "shards have an overdue file")
	}
	return nil
}

// problem is a number of things in one kind of trouble, and the first of them.
type problem struct {
	count int
	first string
	why   error
}

func (p *problem) add(n int, what string, why error) {
	if p.count == 0 {
		p.first, p.why = what, why
	}
	p.count += n
}

func (p *problem) err(one, many string) error {
	if p.count == 1 {
		many = one
	}
	return fmt.Errorf("%d %s (%s: %w)", p.count, many, p.first, p.why)
}
