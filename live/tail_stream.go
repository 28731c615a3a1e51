package live

import (
	"time"
)

const (
	// maxRingBytes bounds the entries of a ring together, beside their number: MaxLast.
	maxRingBytes = 1 << 20
	// maxSources bounds the nodes that a stream remembers.
	maxSources = 1000
	// itemBytes is what an item takes beside its texts.
	itemBytes = 256
)

// stream is the messages that match a filter, in the order in which their owners have
// told them. It is guarded by Tail.mu.
type stream struct {
	epoch  string // a ULID
	filter *filter
	// seq is the number of the last message that matches, those that are not here included.
	seq  uint64
	seen uint64
	// pending are those since the last item.
	pending counts
	ring    []item // the newest last
	bytes   int    // of the ring
	cut     bool   // the ring has lost some
	sources map[string]*source

	viewers map[*Viewer]struct{}
	left    time.Time // since when there is none
	asked   int       // the rate that was asked for last
}

// source is a node that tells of the stream.
type source struct {
	began, seq             uint64
	seen, matched, sampled uint64
	heard                  time.Time
	ended, gone            bool // it said so; it is silent
}

// item is a message with what came before it and is not here.
type item struct {
	seq     uint64
	before  counts
	message Message
	size    int
}

// counts are messages that match and are not shown.
type counts struct {
	slow, ring, node, sampled uint64
	again                     uint64 // were shown already, so they count for nothing
	// unknown tells that there may be others.
	unknown bool
}

func (c counts) total() uint64 { return c.slow + c.ring + c.node + c.sampled + c.again }

func (c *counts) add(o counts) {
	c.slow += o.slow
	c.ring += o.ring
	c.node += o.node
	c.sampled += o.sampled
	c.again += o.again
	c.unknown = c.unknown || o.unknown
}

// clip leaves at most so many.
func (c *counts) clip(most uint64) {
	for _, n := range []*uint64{&c.sampled, &c.node, &c.again, &c.ring, &c.slow} {
		if over := c.total(); over > most {
			*n -= min(*n, over-most)
		}
	}
}

// take takes what a node has told. What it told before and was lost on the way is missed.
func (s *stream) take(e *tapEntries, now time.Time) error {
	src := s.sources[e.Node]
	if src == nil {
		if !s.room() {
			return errTapBody
		}
		src = new(source)
		s.sources[e.Node] = src
	}
	if e.Began < src.began || e.Began == src.began && e.Seq <= src.seq {
		return nil // late, or twice
	}
	old := *src
	if e.Began > src.began {
		// What the earlier tap has told last may be lost.
		if src.began > 0 && !src.ended && !src.gone {
			s.skip(counts{unknown: true})
		}
		old = source{}
	}
	seen, matched, sampled := e.Seen-old.seen, e.Matched-old.matched, e.Sampled-old.sampled
	here := uint64(len(e.Entries))
	if seen > maxStep || matched > seen || sampled > matched || here > matched-sampled {
		return errTapBody
	}
	*src = source{began: e.Began, seq: e.Seq, seen: e.Seen, matched: e.Matched, sampled: e.Sampled, heard: now, ended: e.End}
	s.seen += seen
	if c := (counts{node: matched - sampled - here, sampled: sampled}); c.total() > 0 {
		s.skip(c)
	}
	for i := range e.Entries {
		s.add(e.Entries[i], now)
	}
	return nil
}

// room makes room for another source, and returns false if all are there.
func (s *stream) room() bool {
	if len(s.sources) < maxSources {
		return true
	}
	for node, src := range s.sources {
		if src.gone || src.ended {
			delete(s.sources, node)
			return true
		}
	}
	return false
}

// miss notes which nodes are silent.
func (s *stream) miss(now time.Time) {
	for _, src := range s.sources {
		if !src.gone && !src.ended && now.Sub(src.heard) >= goneAfter {
			src.gone = true
			s.skip(counts{unknown: true})
		}
	}
}

// skip counts messages that match and are not here.
func (s *stream) skip(c counts) {
	s.seq += c.total()
	s.pending.add(c)
	for v := range s.viewers {
		v.skip(c)
	}
}

// add takes a message.
func (s *stream) add(m Message, now time.Time) {
	s.seq++
	it := item{s.seq, s.pending, m, itemBytes + len(m.ID) + len(m.Worker) + len(m.File) + len(m.Reason) + len(m.Entry)}
	s.pending = counts{}
	s.ring = append(s.ring, it)
	s.bytes += it.size
	for len(s.ring) > MaxLast || s.bytes > maxRingBytes {
		s.bytes -= s.ring[0].size
		s.ring[0] = item{} // it can go
		s.ring, s.cut = s.ring[1:], true
	}
	for v := range s.viewers {
		v.push(it, now)
	}
}

// after returns what came after a place: items, and what is behind the last of them.
func (s *stream) after(seq uint64) (items []item, rest counts) {
	for i, it := range s.ring {
		if it.seq > seq {
			items = append(items, s.ring[i:]...)
			break
		}
	}
	at := seq
	for i := range items {
		items[i].before.fill(items[i].seq-1-at, i == 0)
		at = items[i].seq
	}
	rest = s.pending
	rest.fill(s.seq-at, len(items) == 0)
	return items, rest
}

// fill makes them so many: those that the ring has lost are added to the first.
func (c *counts) fill(number uint64, first bool) {
	c.clip(number)
	if first {
		c.ring += number - c.total()
	}
}

// rate is how many entries a second its viewers want at most, 0 for all. Without viewers
// it stays.
func (s *stream) rate() int {
	if len(s.viewers) > 0 {
		s.asked = 1
	}
	for v := range s.viewers {
		if v.query.Rate == 0 {
			s.asked = 0
			break
		}
		s.asked = max(s.asked, v.query.Rate)
	}
	return s.asked
}
