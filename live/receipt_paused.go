package live

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"async-data-processor/broker"
)

// Pause is why the owner of a shard consumes nothing of it, for now.
type Pause struct {
	Reason string
	Until  time.Time // when it ends by itself; zero for never
}

// PausedShards are shards with one pause.
type PausedShards struct {
	Shards []int     `json:"shards"`
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"`
}

// pausedShards is PausedShards on the bus: Shards as ranges, Until as a Unix time in
// milliseconds, 0 for never.
type pausedShards struct {
	Shards string `json:"shards"`
	Reason string `json:"why,omitempty"`
	Until  int64  `json:"until,omitempty"`
}

// maxPauses bounds the different pauses that an answer or a receipt tells of. Further
// ones share the last.
const maxPauses = 16

// pauses gathers shards by their pause.
type pauses []pauseSet

type pauseSet struct {
	Pause
	shards bitset
}

func (p *pauses) add(shard int, why Pause) {
	i := slices.IndexFunc(*p, func(s pauseSet) bool { return s.Pause == why })
	if i < 0 && len(*p) < maxPauses {
		*p = append(*p, pauseSet{Pause: why})
		i = len(*p) - 1
	}
	if i < 0 {
		i = maxPauses - 1
		(*p)[i].Pause = Pause{Reason: "several reasons"}
	}
	(*p)[i].shards.add(shard)
}

// pausedOf tells which of the shards that a process owns are paused.
func pausedOf(owns []Owned) (told []pausedShards) {
	var all pauses
	for _, w := range owns {
		if w.Pause != nil && w.Shard < maxShards {
			all.add(w.Shard, Pause{broker.Clip(w.Pause.Reason, maxReason), w.Pause.Until})
		}
	}
	for _, p := range all {
		one := pausedShards{Shards: p.shards.String(), Reason: p.Reason}
		if !p.Until.IsZero() {
			one.Until = p.Until.UnixMilli()
		}
		told = append(told, one)
	}
	return told
}

// checkPaused bounds what an answer says of paused shards.
func checkPaused(told []pausedShards) error {
	if len(told) > maxPauses {
		return fmt.Errorf("an answer with %d pauses", len(told))
	}
	for _, p := range told {
		if _, err := parseBits(p.Shards, maxShards); err != nil || !isMillis(p.Until) {
			return fmt.Errorf("an answer with a pause of %.40q until %d", p.Shards, p.Until)
		}
	}
	return nil
}

// pausesTold takes which shards of an owner are paused.
func (s *shardsKnown) pausesTold(owns bitset, told []pausedShards) {
	if len(told) == 0 && len(s.pauses) == 0 {
		return
	}
	now := maps.Clone(s.pauses)
	if now == nil {
		now = make(map[int]Pause)
	}
	maps.DeleteFunc(now, func(n int, _ Pause) bool { return owns.has(n) })
	for _, p := range told {
		why := Pause{Reason: broker.Clip(p.Reason, maxReason)}
		if p.Until > 0 {
			why.Until = stamp(time.UnixMilli(p.Until))
		}
		shards, _ := parseBits(p.Shards, maxShards) // it was read before
		for n := range shards.all() {
			if owns.has(n) {
				now[n] = why
			}
		}
	}
	if !maps.Equal(now, s.pauses) {
		s.pauses = now
		s.pauseChanges++
	}
}

// paused returns the shards that may have pending messages of the submission and are
// paused, but for those whose owner is silent.
func (e *entry) paused(s *shardsKnown, silent []int, now time.Time) (told []PausedShards) {
	if len(s.pauses) == 0 {
		return nil
	}
	var all pauses
	for n := range e.needed(s.number).all() {
		p, is := s.pauses[n]
		if is && (p.Until.IsZero() || now.Before(p.Until)) && !slices.Contains(silent, n) {
			all.add(n, p)
		}
	}
	for _, p := range all {
		told = append(told, PausedShards{slices.Collect(p.shards.all()), p.Reason, p.Until})
	}
	return told
}

// why is a pause in words, for people.
func (p *PausedShards) why() string {
	text := "paused"
	if !p.Until.IsZero() {
		text += " until " + p.Until.Format(time.RFC3339)
	}
	if p.Reason != "" {
		text += ": " + oneLine(p.Reason)
	}
	return text
}

// numbers are those of shards, as people read them.
func numbers(shards []int) string { return strings.Trim(fmt.Sprint(shards), "[]") }
