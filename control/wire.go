package control

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
)

// Topics of the bus.
const (
	nodesTopic    = "nodes"          // a Beat is told
	snapshotTopic = "nodes.snapshot" // a Part is the answer
	workersTopic  = "nodes.workers"  // a workersPart is the answer
)

// Bounds of what others tell.
const (
	maxName   = 128
	maxText   = 256
	maxRoles  = 8
	maxShards = 2048 // of a consumer, those beyond its number included
)

// Kind is why a node tells a Beat.
type Kind string

const (
	// Hello asks all others for a beat.
	Hello Kind = "hello"
	// Still tells that the node is still there.
	Still Kind = "beat"
	// Goodbye is the last that a node tells.
	Goodbye Kind = "goodbye"
)

// Beat is what a node tells all others about itself.
type Beat struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	// Seq rises by one with each body of the node.
	Seq      uint64    `json:"seq"`
	Kind     Kind      `json:"kind"`
	Info     Info      `json:"info"`
	Draining bool      `json:"draining,omitempty"`
	Consumer *Consumer `json:"consumer,omitempty"` // nil of a node that consumes nothing
	Intake   *Intake   `json:"intake,omitempty"`   // nil as long as no command has set it
}

// Info is what does not change about a node.
type Info struct {
	Roles   []string `json:"roles"`
	Version string   `json:"version"`
	Host    string   `json:"host"`
	PID     int      `json:"pid"`
	// Address is where it serves HTTP, Broker the broker's URL without credentials.
	Address string    `json:"address"`
	Started time.Time `json:"started"`
	Broker  string    `json:"broker"`
}

// Consumer is what a node's message-consumer has at a moment.
type Consumer struct {
	// Shards is the number of shards that it was told. Consumers with different
	// numbers do not share shards.
	Shards int `json:"shards"`
	// Works tells that its output takes entries.
	Works bool `json:"works"`
	// Runs are the shards that it writes. Waits are those that it would write if their
	// folder had no other owner.
	Runs  Shards `json:"runs,omitempty"`
	Waits Shards `json:"waits,omitempty"`

	// sought are those of Runs for which a process waits that this node does not hear.
	sought Shards
}

// Has tells whether the consumer runs the shard or waits for it.
func (c *Consumer) Has(shard int) bool { return c.Runs.Has(shard) || c.Waits.Has(shard) }

// Runs tells whether a node in that state of a shard owns it.
func Runs(state event.ShardState) bool {
	switch state {
	case event.ShardOpening, event.ShardStandby, event.ShardRetrying, event.ShardStopped:
		return false
	}
	return true
}

// equal tells whether both say the same; the other may be nil.
func (c *Consumer) equal(o *Consumer) bool {
	return o != nil && c.Shards == o.Shards && c.Works == o.Works && slices.Equal(c.Runs, o.Runs) && slices.Equal(c.Waits, o.Waits)
}

// Shards are numbers of shards, ascending. In JSON they are a text of ranges: "0-3,7".
type Shards []uint16

// Add adds a shard that is higher than all before it. One from maxShards on is left out.
func (s *Shards) Add(shard int) {
	if shard < maxShards {
		*s = append(*s, uint16(shard))
	}
}

// Has tells whether the shard is one of them.
func (s Shards) Has(shard int) bool {
	if shard < 0 || shard >= maxShards {
		return false
	}
	_, found := slices.BinarySearch(s, uint16(shard))
	return found
}

// String returns them as ranges.
func (s Shards) String() string {
	var text []byte
	for i := 0; i < len(s); {
		last := i
		for last+1 < len(s) && s[last+1] == s[last]+1 {
			last++
		}
		text = broker.AppendRange(text, int(s[i]), int(s[last]))
		i = last + 1
	}
	return string(text)
}

// MarshalText implements encoding.TextMarshaler.
func (s Shards) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It refuses numbers that are not in
// order, or from maxShards on.
func (s *Shards) UnmarshalText(text []byte) error {
	*s = nil
	if !broker.ReadRanges(string(text), maxShards, s.Add) {
		return fmt.Errorf("%.100q are not ranges of shards in order", text)
	}
	return nil
}

// parseBeat reads what another process has told. Nothing of it is trusted: a beat that
// it returns is within the bounds.
func parseBeat(body []byte) (b Beat, err error) {
	if err := broker.ReadBody(body, &b); err != nil {
		return Beat{}, err
	}
	i := b.Info
	for _, text := range append([]string{i.Version, i.Host, i.Address, i.Broker}, i.Roles...) {
		if len(text) > maxText {
			return Beat{}, fmt.Errorf("a text of %d bytes in a beat, the limit is %d", len(text), maxText)
		}
	}
	if b.Node == "" || len(b.Node) > maxName || len(i.Roles) > maxRoles {
		return Beat{}, errors.New("a beat without a node's name, or with too long a one, or too many roles")
	}
	if c := b.Consumer; c != nil && (c.Shards < 1 || c.Shards > maxShards) {
		return Beat{}, fmt.Errorf("a beat of %d shards", c.Shards)
	}
	return b, b.Intake.check()
}

// ServerRole is that of a node which takes submissions.
const ServerRole = "server"
