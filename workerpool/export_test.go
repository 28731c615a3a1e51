package workerpool

// What the tests need to know of the pool's pace.
const (
	LookInterval = lookInterval
	IdleTimeout  = idleTimeout
	HoldMin      = holdMin
	HoldMax      = holdMax
)

// Bounds returns the bounds of the number of workers.
func (p *Pool) Bounds() (lowest, highest int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lowest, p.highest
}
