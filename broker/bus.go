package broker

import (
	"context"
	"time"
)

// Bus is what processes tell and ask each other beside the entries. Nothing on it is
// durable: what is told while a process is not connected is lost to that process.
// The work with entries never depends on it. Its methods may be called concurrently.
// They keep no body, and Close of the broker ends them all.
//
// A topic is words of lower-case letters, digits and hyphens with a dot between them,
// at most MaxTopic bytes together. Who may use the broker may use its bus.
type Bus interface {
	// Tell sends body to all that listen to the topic now, this process included. It
	// does not wait for them. It returns an error if the topic is not valid, the body
	// is longer than MaxBusBody, or the bus is not connected.
	Tell(topic string, body []byte) error

	// Ask sends body to all that answer the topic now, this process included, and
	// calls take with each answer as it comes, one at a time. It returns nil when take
	// returns false, or when ctx ends; without a deadline that is after AskTimeout.
	// It waits for the connection that long, too. It returns an error if it could not
	// ask, for the reasons of Tell, or if the connection was lost meanwhile. While take
	// runs, answers wait for it as bodies do for a listener.
	Ask(ctx context.Context, topic string, body []byte, take func(answer []byte) (more bool)) error

	// Listen has hear called with each body that is told to the topic, one at a time,
	// in the order of their teller, until stop is called. It does not wait for the
	// connection.
	//
	// missed is Reconnected, with a nil body, when the bus begins to listen: once after
	// Listen, and once after each loss of the connection. What was told before may be
	// lost; what is told from then on is heard. Else it is how many were lost since the
	// call before: at most 1,000 bodies and 8 MiB wait for a listener, and the oldest go.
	// What the broker drops on the way is not counted, so number what must not be missed.
	//
	// hear must neither keep nor change the body. stop does not wait for a call that runs.
	Listen(topic string, hear func(body []byte, missed int)) (stop func())

	// Answer has answer called with each body that is asked of the topic, until stop
	// is called. It may be called concurrently, at most MaxAnswers at a time. Questions wait
	// for it as bodies do for a listener. An answer that is nil, or longer than
	// MaxBusBody, is not sent. answer must neither keep nor change the body.
	Answer(topic string, answer func(body []byte) []byte) (stop func())
}

const (
	// MaxBusBody bounds what is told, asked or answered, in bytes.
	MaxBusBody = 256 << 10
	// MaxTopic bounds the length of a topic, in bytes.
	MaxTopic = 100
	// MaxAnswers bounds the concurrent calls of one answer function.
	MaxAnswers = 16
	// AskTimeout is how long answers are waited for without another deadline.
	AskTimeout = time.Second
	// Reconnected is what Listen tells in place of a number.
	Reconnected = -1
)
