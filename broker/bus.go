package broker

import (
	"context"
	"time"
)

// Bus is what processes tell and ask each other beside the entries. Nothing on it is
// durable: what is told while a process is not connected is lost to that process.
// The work with entries never depends on it. Its methods may be called concurrently.
//
// A topic is a word of lower-case letters, digits, hyphens and dots, at most MaxTopic
// bytes long. Who may use the broker may use its bus.
type Bus interface {
	// Tell sends body to all that listen to the topic now, this process included. It
	// does not wait for them. It returns an error if the body is longer than
	// MaxBusBody, or the bus is not connected.
	Tell(topic string, body []byte) error

	// Ask sends body to all that answer the topic now, this process included, and
	// calls take with each answer as it comes, one at a time. It returns nil when take
	// returns false, or when ctx ends; without a deadline that is after AskTimeout. It
	// returns an error if it could not ask.
	Ask(ctx context.Context, topic string, body []byte, take func(answer []byte) (more bool)) error

	// Listen has hear called with each body that is told to the topic, one at a time,
	// in the order of their teller, until stop is called. A listener that is slow
	// loses the oldest of what waits: missed is how many were lost since the call
	// before, as far as the bus knows. It is 0 or more with a body; it is Reconnected
	// with a nil body when the bus has been disconnected, and anything may be lost.
	// hear must not keep the body. stop does not wait for a call that runs.
	Listen(topic string, hear func(body []byte, missed int)) (stop func())

	// Answer has answer called with each body that is asked of the topic, until stop
	// is called. A nil answer is not sent. It may be called concurrently, at most
	// maxAnswers at a time: what is asked beyond that is lost.
	Answer(topic string, answer func(body []byte) []byte) (stop func())
}

const (
	// MaxBusBody bounds what is told, asked or answered, in bytes.
	MaxBusBody = 256 << 10
	// MaxTopic bounds the length of a topic, in bytes.
	MaxTopic = 100
	// AskTimeout is how long answers are waited for without another deadline.
	AskTimeout = time.Second
	// Reconnected is what Listen tells in place of a number.
	Reconnected = -1
)
