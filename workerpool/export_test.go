package workerpool

// What the tests need to know of the pool's pace.
const (
	LookInterval = lookInterval
	IdleTimeout  = idleTimeout
	HoldMin      = holdMin
	HoldMax      = holdMax
)
