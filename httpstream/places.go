package httpstream

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrYielded is the cause of a context whose place another client gets.
var ErrYielded = errors.New("another client gets this place: all are taken, and this client has the most")

// Place is that of one stream.
type Place struct {
	client string
	end    context.CancelCauseFunc
	close  func()
}

// Places are those that clients have. One client may have them all, and does not keep
// others out. How many there may be is not theirs to say. The zero value has none. Its
// methods may be called concurrently.
type Places struct {
	mu sync.Mutex          // guards what follows
	of map[string][]*Place // by client, the oldest first
}

// Enter gives a client a place, and returns a context that ends when the place has to be
// left. Leave calls free, which may be called more than once.
func (s *Places) Enter(ctx context.Context, client string, free func()) (context.Context, *Place) {
	ctx, end := context.WithCancelCause(ctx)
	p := &Place{client: client, end: end, close: free}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[string][]*Place)
	}
	s.of[client] = append(s.of[client], p)
	return ctx, p
}

// Leave gives a place back. It may be called more than once.
func (s *Places) Leave(p *Place) {
	s.mu.Lock()
	rest := slices.DeleteFunc(s.of[p.client], func(q *Place) bool { return q == p })
	if s.of[p.client] = rest; len(rest) == 0 {
		delete(s.of, p.client)
	}
	s.mu.Unlock()
	p.end(nil)
	p.close()
}

// Yield takes the oldest place of the client that has the most, if that has more than
// client would have with it.
func (s *Places) Yield(client string) bool {
	s.mu.Lock()
	var most []*Place
	for _, p := range s.of {
		if len(p) > len(most) {
			most = p
		}
	}
	if len(most) <= len(s.of[client])+1 {
		s.mu.Unlock()
		return false
	}
	p := most[0]
	s.mu.Unlock()
	p.end(ErrYielded) // before it is closed: the client hears why
	s.Leave(p)
	return true
}

// Taken returns how many there are.
func (s *Places) Taken() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.of {
		n += len(p)
	}
	return n
}
