package live

import (
	"errors"
	"strings"

	"async-data-processor/message"
)

// Topics of the bus.
const (
	tapInterestTopic = "tail.interest" // an interest is told
	lastTopic        = "tail.last"     // a lastWanted is asked, a lastFound is the answer
)

// entriesTopic is where the entries for a node with viewers are told. It is made of a
// ULID alone, so that no body makes an owner tell anything to another topic.
func entriesTopic(hub string) string { return "tail.entries." + strings.ToLower(hub) }

// Bounds of what others tell.
const (
	maxEntries = 2 * MaxLast
	// maxStep bounds by how much a count may rise from a body to the next one.
	maxStep = 1 << 40
)

// tapInterest is what a node with viewers tells the owners. It makes a tap, or renews it.
type tapInterest struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	Seq  uint64 `json:"seq"` // rises with each of a hub
	// Hub and Tap are ULIDs: they name what listens, and which of its taps it is.
	Hub string `json:"hub"`
	Tap string `json:"tap"`
	// End tells that there are no viewers any more.
	End bool `json:"end,omitempty"`
	// Rate is how many entries a second are wanted at most; 0 for all.
	Rate   int    `json:"rate"`
	Filter Filter `json:"filter"`
}

// tapEntries is what an owner tells of a tap. The counts are those since the tap began,
// so a body tells of those before it that were lost.
type tapEntries struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	Seq  uint64 `json:"seq"` // rises with each of a tap
	Tap  string `json:"tap"`
	// Began is higher of a tap that began later, of all taps of the node.
	Began uint64 `json:"began"`
	// Seen are the messages that the filter was asked about; Matched those that match, or
	// that the owner had no time to ask about; Sampled those of them that Rate leaves out.
	Seen    uint64 `json:"seen"`
	Matched uint64 `json:"matched"`
	Sampled uint64 `json:"sampled"`
	// End tells that the node tells nothing more.
	End     bool      `json:"end,omitempty"`
	Entries []Message `json:"entries,omitempty"`
}

// lastWanted asks for the newest messages in the files that were begun before the tap.
type lastWanted struct {
	tapInterest
	N int `json:"n,omitempty"`
}

// lastFound is an owner's answer, the oldest first.
type lastFound struct {
	V       int       `json:"v"`
	Node    string    `json:"node"`
	Entries []Message `json:"entries"`
}

var errTapBody = errors.New("a body of a tail that is out of its bounds")

// check returns the filter of what another process has told. Nothing of it is trusted.
func (i *tapInterest) check() (*filter, error) {
	if !isULID(i.Hub) || !isULID(i.Tap) || i.Node == "" || len(i.Node) > maxNode || i.Rate < 0 || i.Rate > MaxRate {
		return nil, errTapBody
	}
	return i.Filter.compile()
}

func (e *tapEntries) check() error {
	if e.Node == "" || len(e.Node) > maxNode || len(e.Entries) > maxEntries {
		return errTapBody
	}
	return checkMessages(e.Entries)
}

func checkMessages(all []Message) error {
	for i := range all {
		if m := &all[i]; m.Shard < 0 || m.Shard >= maxShards || m.At.IsZero() {
			return errTapBody
		}
	}
	return nil
}

func isULID(s string) bool {
	_, ok := message.TimeOf(s)
	return ok && s == strings.ToUpper(s)
}
