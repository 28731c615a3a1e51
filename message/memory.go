package message

import (
	"slices"
	"sync"
)

// maxKept is the longest buffer of lines that is kept for another submission.
// Few need a longer one, and those should not stay in memory.
const maxKept = 1 << 20

// memory is where the messages of a submission are. It is used again once the
// submission was recycled.
type memory struct {
	head     []byte // what an entry's opening brace becomes, but for its index and what follows
	lines    []byte // one after the other
	messages []Message
}

var memories = sync.Pool{New: func() any { return new(memory) }}

// reserve makes room for n more bytes of lines. The messages move with them.
func (m *memory) reserve(n int) {
	if cap(m.lines)-len(m.lines) >= n {
		return
	}
	m.lines = slices.Grow(m.lines, n)
	clear(m.messages[len(m.messages):cap(m.messages)]) // they refer to what others had
	start := 0
	for i := range m.messages {
		end := start + len(m.messages[i].Line)
		m.messages[i].Line = m.lines[start:end:end]
		start = end
	}
}

// Recycle lets another submission have the memory of this one. It is called at
// most once, when nothing refers to the messages any more, and may be left out.
func (s *Submission) Recycle() {
	if s.memory != nil {
		s.memory.giveBack()
	}
	s.Messages, s.memory = nil, nil
}

func (m *memory) giveBack() {
	if cap(m.lines) > maxKept {
		return
	}
	m.lines, m.messages = m.lines[:0], m.messages[:0]
	memories.Put(m)
}
