// Package bus is the part of broker.Bus that all engines share: who listens and who
// answers in a client, what waits for them, and who waits for answers.
//
//	bus.go        limits, and the keys under which messages travel
//	queue.go      what waits for one receiver, bounded
//	receivers.go  Receivers: those who listen and answer in a client
//	answers.go    Answers: what comes back for one question
//	remote.go     Remote: the bus over the connections of a broker
package bus

import (
	"fmt"
	"strings"

	"async-data-processor/broker"
)

// Kind is what a message is.
type Kind string

const (
	// Tell is a message without an answer.
	Tell Kind = "tell"
	// Ask is a question.
	Ask Kind = "ask"
)

// Key is where a message goes to.
type Key struct {
	Kind  Kind
	Topic string
}

// String is the key on the wire.
func (k Key) String() string { return string(k.Kind) + "." + k.Topic }

// ParseKey reads what String wrote; false if that was another program.
func ParseKey(s string) (Key, bool) {
	kind, topic, _ := strings.Cut(s, ".")
	k := Key{Kind(kind), topic}
	return k, (k.Kind == Tell || k.Kind == Ask) && valid(topic)
}

func check(topic string, body []byte) error {
	if !valid(topic) {
		return fmt.Errorf("bus: %q is not a topic: want words of a-z, 0-9 and - with dots between, at most %d bytes",
			topic[:min(len(topic), broker.MaxTopic)], broker.MaxTopic)
	}
	if len(body) > broker.MaxBusBody {
		return fmt.Errorf("bus: a message of %d bytes to %s: want at most %d", len(body), topic, broker.MaxBusBody)
	}
	return nil
}

func valid(topic string) bool {
	if len(topic) > broker.MaxTopic {
		return false
	}
	for word := range strings.SplitSeq(topic, ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}
