package live

import (
	"errors"
	"fmt"
	"strings"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// Topics of the bus. The second one is followed by a word of the node that asks.
const (
	interestTopic = "receipts"
	answerTopic   = "receipts.to."
)

// Bounds of what others tell.
const (
	maxNode    = 128
	maxReason  = 200
	maxShards  = 2048 // as for the nodes of a system
	replyLen   = 26   // of a ULID
	maxAsked   = 4096 // ids in a body
	maxMillis  = 253402300799999
	maxReasons = 16 // of a submission; further ones share the last
)

// errBounds: what an answer says of a submission is out of bounds.
var errBounds = errors.New("out of bounds")

// interest asks what became of submissions, and to be told of changes for leaseTime.
type interest struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	// To is the last word of the topic for the answers.
	To  string  `json:"to"`
	IDs []asked `json:"ids"`
}

// asked is a submission. Shards are those that have its messages, as ranges; empty if
// that is not known. Seek asks servers whether they remember it.
type asked struct {
	ID     string `json:"id"`
	Shards string `json:"shards,omitempty"`
	Seek   bool   `json:"seek,omitempty"`
}

// answer tells what a node knows of submissions.
type answer struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	// Owns are the shards for which it answers. Of those that are not in Forgot it
	// remembers all that was ever written. Paused are those that are paused.
	Owns   string         `json:"owns,omitempty"`
	Forgot []shardMemory  `json:"forgot,omitempty"`
	Paused []pausedShards `json:"paused,omitempty"`
	IDs    []idState      `json:"ids"`
}

// shardMemory tells since when a shard remembers all that was written. Times are Unix
// times in milliseconds of the node's clock.
type shardMemory struct {
	Shard int   `json:"n"`
	Since int64 `json:"since"`
}

// idState is what is known of a submission: all that is written in the shards that the
// node owns, and some that became dead letters just now.
type idState struct {
	ID      string      `json:"id"`
	Written []written   `json:"w,omitempty"`
	Dead    []deadState `json:"d,omitempty"`
	// Sought tells that the node is a server, and has looked whether it remembers it.
	// Accepted is when that server has accepted it, Shards which have its messages.
	Sought   bool   `json:"sought,omitempty"`
	Accepted int64  `json:"at,omitempty"`
	Shards   string `json:"shards,omitempty"`
}

// written are messages in files. Until is when the first of them may be forgotten.
type written struct {
	Shard int    `json:"n"`
	Bits  string `json:"bits"`
	First int64  `json:"first"`
	Last  int64  `json:"last"`
	Until int64  `json:"until"`
}

type deadState struct {
	Shard  int    `json:"n"`
	Bits   string `json:"bits"`
	Reason string `json:"why"`
}

// parseInterest reads what another process asks. Nothing of it is trusted: what it
// returns is within the bounds.
func parseInterest(body []byte) (in interest, err error) {
	if err := broker.ReadBody(body, &in); err != nil {
		return interest{}, err
	}
	if len(in.Node) > maxNode || len(in.IDs) > maxAsked || len(in.To) != replyLen ||
		strings.Trim(in.To, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return interest{}, errors.New("an interest without a node to answer, or in too many submissions")
	}
	for _, a := range in.IDs {
		if _, err := countOf(a.ID); err != nil {
			return interest{}, err
		}
		if _, err := parseBits(a.Shards, maxShards); err != nil {
			return interest{}, err
		}
	}
	return in, nil
}

// parseAnswer reads the frame of an answer. What it says of a submission is read when
// that is watched (see entry.learn).
func parseAnswer(body []byte) (a answer, err error) {
	if err := broker.ReadBody(body, &a); err != nil {
		return answer{}, err
	}
	if a.Node == "" || len(a.Node) > maxNode {
		return answer{}, errors.New("an answer without a node's name, or with too long a one")
	}
	for _, m := range a.Forgot {
		if m.Shard < 0 || m.Shard >= maxShards || !isMillis(m.Since) {
			return answer{}, fmt.Errorf("an answer for shard %d since %d", m.Shard, m.Since)
		}
	}
	if err := checkPaused(a.Paused); err != nil {
		return answer{}, err
	}
	return a, nil
}

func isMillis(ms int64) bool { return ms >= 0 && ms <= maxMillis }

// countOf is the number of messages of a submission, from its id.
func countOf(id string) (int, error) {
	count, ok := message.CountOf(id)
	if !ok || len(id) != replyLen { // else it is the id of a message
		return 0, ErrNoID
	}
	return count, nil
}

// wakeUp puts a wake-up into a channel that holds one.
func wakeUp(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
