package jetstream

import (
	"time"

	"async-data-processor/broker/conn"
)

// timing holds the package's waits, so that tests can shorten them.
type timing struct {
	conn.Pauses
	dial      time.Duration
	handshake time.Duration
	write     time.Duration
	rpc       time.Duration
	heartbeat time.Duration
	ackWait   time.Duration
	pin       time.Duration
	pull      time.Duration
	probe     time.Duration
	blocked   time.Duration
	look      time.Duration
	gone      time.Duration
}

var defaultTiming = timing{
	Pauses: conn.PausesUpTo(3 * time.Second),
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
	// A client that is silent for so long loses its unsettled deliveries and its
	// place as the shard's only consumer, which a standby takes over then. It is the
	// delay after the loss of a machine, and of what was on the way to a connection.
	// Both are renewed three times in it, however long a batch takes.
	ackWait: 6 * time.Second,
	pin:     6 * time.Second,
	// A pull request ends after this and is renewed, which also keeps the pin.
	pull: 2 * time.Second,
	// While the server refuses publishes, how often the stream is looked at...
	probe: time.Second,
	// ...and when a refusal that does not show in it is taken to be over.
	blocked: 5 * time.Second,
	// How often an operator's changes are looked for.
	look: time.Minute,
	// Twice within this nothing is subscribed where a consumer shows that it is there.
	gone: 200 * time.Millisecond,
}
