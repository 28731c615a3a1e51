package message

import "sync"

// maxKept is the longest buffer of lines that is kept for another submission.
// Few need a longer one, and those should not stay in memory.
const maxKept = 1 << 20

// memory holds the messages of a submission. After Recycle it is used again.
type memory struct {
	head     []byte // what an entry's opening brace becomes, but for its index and what follows
	lines    []byte // those of the messages, at least of the last ones
	messages []Message
}

var memories = sync.Pool{New: func() any { return new(memory) }}

// reserve makes room for n more bytes of lines. Those there are stay where they
// are.
func (m *memory) reserve(n int) {
	if cap(m.lines)-len(m.lines) < n {
		m.lines = make([]byte, 0, max(n, 2*cap(m.lines)))
	}
}

// Recycle gives the memory of this submission to another one. It is called at most
// once, when nothing refers to the messages any more, and may be left out.
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
