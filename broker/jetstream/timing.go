package jetstream

import (
	"errors"
	"math/rand/v2"
	"time"
)

// timing holds the package's waits, so that tests can shorten them.
type timing struct {
	dial      time.Duration
	handshake time.Duration
	write     time.Duration
	rpc       time.Duration
	heartbeat time.Duration
	minDelay  time.Duration
	maxDelay  time.Duration
	refused   time.Duration
	close     time.Duration
	ackWait   time.Duration
	pin       time.Duration
	pull      time.Duration
	probe     time.Duration
	blocked   time.Duration
}

var defaultTiming = timing{
	// A server in reach accepts within milliseconds; a lost SYN is repeated after 1 s.
	dial: 2 * time.Second,
	// TLS and login, for each server of the URL in turn. A stopped process
	// accepts and is silent, and another server may be waiting behind it.
	handshake: 3 * time.Second,
	// A socket that takes no byte for so long is as good as broken.
	write: 3 * time.Second,
	// An answer of the server's administration, which a cluster may have to agree on.
	rpc: 5 * time.Second,
	// The client gives up when three of them passed without an answer.
	heartbeat: 2 * time.Second,
	// Waits between attempts: at random up to a bound that doubles from the
	// first to the second. The latter leaves time for a handshake within the
	// ten seconds in which a process has to be ready again.
	minDelay: 100 * time.Millisecond,
	maxDelay: 3 * time.Second,
	// Wrong password or configuration of a stream: somebody has to act first.
	refused: 15 * time.Second,
	// The part of the drain that a silent broker may take.
	close: 3 * time.Second,
	// Who is silent for so long loses its unsettled deliveries and its place as
	// the shard's only consumer, which a standby takes over then at the latest:
	// the delay after a kill -9, and of what was on the way to a connection that
	// is lost. Both are renewed three times in it, however long a batch takes.
	ackWait: 6 * time.Second,
	pin:     6 * time.Second,
	// A pull request ends after this and is renewed, which also keeps the pin.
	pull: 2 * time.Second,
	// While the server refuses publishes, how often the stream is looked at...
	probe: time.Second,
	// ...and when a refusal that does not show in it is taken to be over.
	blocked: 5 * time.Second,
}

// delay is the wait after the given number of failures in a row: at random, so
// that many clients do not come back at once.
func (t timing) delay(failures int, err error) time.Duration {
	if errors.As(err, new(refusal)) {
		return t.refused/2 + rand.N(t.refused/2)
	}
	bound := t.maxDelay
	if failures < 30 {
		bound = min(bound, t.minDelay<<failures)
	}
	return rand.N(bound) + 1
}
