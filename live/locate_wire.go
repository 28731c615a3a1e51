package live

import (
	"errors"
	"fmt"

	"async-data-processor/broker"
)

// whereTopic is the topic of the bus where a message is asked for.
const whereTopic = "where"

// Bounds of what others ask and answer.
const (
	maxMessageID    = 255
	maxFileName     = 255
	maxWorker       = 64
	maxWhereAnswers = 2000
)

// whereQuestion asks for a message.
type whereQuestion struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	ID   string `json:"id"`
}

// whereAnswer is what a node knows of a message. Times are Unix times in milliseconds of
// its clock.
type whereAnswer struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	// Owns are the shards for which it answers. Of those that are not in Forgot it
	// remembers all that was ever written.
	Owns   string        `json:"owns,omitempty"`
	Forgot []shardMemory `json:"forgot,omitempty"`
	// Place is where it is, if it is there. Sibling tells that another message of its
	// submission is durable.
	Place   *wherePlace `json:"place,omitempty"`
	Sibling bool        `json:"sibling,omitempty"`
	// Sought tells that the node is a server. Accepted is when that server has accepted
	// the submission, 0 if it does not remember it; Shards which have its messages.
	Sought   bool   `json:"sought,omitempty"`
	Accepted int64  `json:"at,omitempty"`
	Shards   string `json:"shards,omitempty"`
}

// wherePlace is where a message is: in hand, or written.
type wherePlace struct {
	Shard  int           `json:"n"`
	State  LocationState `json:"state"`
	Worker string        `json:"worker,omitempty"`
	// Since is when the worker took it, or when it was written; 0 if that is not known.
	Since int64  `json:"since,omitempty"`
	File  string `json:"file,omitempty"`
	Line  int    `json:"line,omitempty"`
	// Why tells why there is no file, or that it is hidden.
	Why string `json:"why,omitempty"`
}

// parseWhereQuestion reads what another process asks.
func parseWhereQuestion(body []byte) (q whereQuestion, err error) {
	if err := broker.ReadBody(body, &q); err != nil {
		return whereQuestion{}, err
	}
	if len(q.Node) > maxNode || !isMessageID(q.ID) {
		return whereQuestion{}, errors.New("a question for what is no message")
	}
	return q, nil
}

// parseWhereAnswer reads what another process answers. Nothing of it is trusted: what it
// returns is within the bounds.
func parseWhereAnswer(body []byte) (a whereAnswer, owns bitset, err error) {
	if err := broker.ReadBody(body, &a); err != nil {
		return whereAnswer{}, nil, err
	}
	owns, err = parseBits(a.Owns, maxShards)
	shards, err2 := parseBits(a.Shards, maxShards)
	if err := errors.Join(err, err2); err != nil {
		return whereAnswer{}, nil, err
	}
	if a.Node == "" || !isPlain(a.Node, maxNode) || !isMillis(a.Accepted) || len(shards) > 0 && a.Accepted == 0 {
		return whereAnswer{}, nil, errBounds
	}
	for _, m := range a.Forgot {
		if m.Shard < 0 || m.Shard >= maxShards || !isMillis(m.Since) {
			return whereAnswer{}, nil, fmt.Errorf("an answer for shard %d since %d", m.Shard, m.Since)
		}
	}
	if p := a.Place; p != nil {
		if p.Shard < 0 || !owns.has(p.Shard) || p.State != WhereInHand && p.State != WhereWritten ||
			!isPlain(p.Worker, maxWorker) || !isMillis(p.Since) || !isPlain(p.File, maxFileName) || p.Line < 0 || (p.File == "") != (p.Line == 0) {
			return whereAnswer{}, nil, errBounds
		}
		p.Why = broker.Clip(p.Why, maxReason)
	}
	return a, owns, nil
}
