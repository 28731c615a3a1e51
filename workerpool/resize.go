package workerpool

import "fmt"

// Resize changes the bounds of the number of workers; 1 <= lowest <= highest <=
// MaxWorkers. While batches wait, the pool grows at once. A worker that has a batch
// finishes it before it ends.
func (p *Pool) Resize(lowest, highest int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lowest, p.highest = lowest, highest
	// The places never get fewer: writes that hang may have them all.
	for ; p.places < 2*highest; p.places++ {
		<-p.writes
	}
	p.crowded.Store(p.workers > highest)
	p.count(0, 0)
}

// leave tells whether the worker that asks is one too many. Then it must end.
func (p *Pool) leave() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.workers-p.leaving <= p.highest {
		p.crowded.Store(false)
		return false
	}
	p.leaving++
	return true
}

// stuck is why a worker waits for a place.
func (p *Pool) stuck() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Errorf("all %d write slots are stuck: the disk does not respond", p.places)
}
