package live

import "sync"

// receiptPlaces are how many of something there may be, and how many of one client.
type receiptPlaces struct {
	limit, share int // read-only

	mu    sync.Mutex // guards what follows
	taken int
	of    map[string]int // by client; only those that have some
}

// take returns false if there is no place for the client.
func (p *receiptPlaces) take(client string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.limit || p.of[client] >= p.share {
		return false
	}
	if p.of == nil {
		p.of = make(map[string]int)
	}
	p.taken++
	p.of[client]++
	return true
}

// give gives a place back.
func (p *receiptPlaces) give(client string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.of[client]--; p.of[client] == 0 {
		delete(p.of, client)
	}
}
