// Package workerpool keeps an elastic number of workers alive on one shard.
// Workers write batches; a supervisor starts one more when batches wait, and
// retires one when there has been nothing for it to do. Each worker that ever
// lived has a line in the history.
//
// A batch is settled once: acknowledged after it is durable, returned if its
// worker was given up. One whose writing panics is split, until the messages
// that do it are dead letters and the others are written. That the output fails
// is no fault of a batch: its worker keeps it and tries again, as long as the
// policy allows.
package workerpool

import (
	"context"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
)

// Writer makes batches durable.
type Writer interface {
	// Write makes durable, as the worker's, what of the batch is not yet. It
	// returns those messages, the others being duplicates, and the name of a file
	// that has some of them, once all are durable; without any there is no file.
	//
	// After an error nothing of the attempt is visible, and it may be tried again: what
	// becomes visible of it later all the same is known to be written. A panic leaves
	// nothing visible either. Write asks b.BeginPublish before it makes anything
	// visible. It may be called concurrently, once at a time per batch.
	Write(ctx context.Context, worker string, b *message.Batch) (file string, written []message.Message, err error)
}

// Written is a batch that has become durable.
type Written struct {
	Worker string // its id
	// File has some of the messages, as Writer.Write has returned it.
	File string
	// Batch must not be kept, nor Messages, which are those that were not in a file before.
	Batch    *message.Batch
	Messages []message.Message
	At       time.Time
}

// Config sets up a Pool.
type Config struct {
	Shard int
	// After is the number of the last worker of an earlier pool on the shard.
	After int
	// Min and Max bound the number of workers; 1 <= Min <= Max <= MaxWorkers. See
	// Pool.Resize.
	Min, Max int
	// Timeout is how long one attempt to write a batch may take before its
	// worker is given up. It doubles with each that does, up to timeoutMax, until
	// a batch is written again: of a disk that is slow and no more, the broker
	// would otherwise get every batch back until it took them for poison.
	Timeout time.Duration
	Writer  Writer
	// OnRetry is asked each time a batch could not be written. failingFor is how
	// long ago its first attempt failed. An error ends the attempts: it is why the
	// batch goes back to the broker. OnRetry is called concurrently and must not
	// block. Without it there is no end of attempts.
	OnRetry func(err error, failingFor time.Duration) (giveUp error)
	// OnWritten is told of each batch that has become durable, before it is settled. It
	// is called concurrently, and must not block. Without it nothing is told.
	OnWritten func(Written)
	// Events is told of workers and batches.
	Events event.Sink
}

// MaxWorkers bounds the number of workers of a pool.
const MaxWorkers = 32

const (
	// lookInterval is how often the supervisor looks for waiting batches while
	// every worker is busy, for nothing else would tell it.
	lookInterval = 100 * time.Millisecond
	// idleTimeout is how long a pool above its minimum has a worker to spare
	// before it retires one. It is long against the gaps of a steady load, so
	// that the pool does not flap.
	idleTimeout = 10 * time.Second
	// timeoutMax is well under the half hour after which RabbitMQ takes an
	// unacknowledged delivery back.
	timeoutMax = 10 * time.Minute
	// holdMin and holdMax bound the wait before a held batch is tried again.
	holdMin = 100 * time.Millisecond
	holdMax = 5 * time.Second
)

// Load is what the policy knows of a pool.
type Load struct {
	// Workers counts the workers that can take a batch now or later, Busy
	// those of them that have one.
	Workers, Busy int
	// Waiting tells that a batch waits for a worker.
	Waiting bool
	// Spare is how long there has been a worker without a batch, 0 if there is none.
	Spare time.Duration
}

// Ideal is the policy: how many workers a pool should have, given its load and
// bounds. It moves one step at a time.
func Ideal(l Load, lowest, highest int) int {
	switch {
	case l.Workers < lowest:
		return lowest
	case l.Workers > highest:
		return highest
	case l.Workers < highest && l.Waiting && l.Busy >= l.Workers:
		return l.Workers + 1
	case l.Workers > lowest && l.Spare >= idleTimeout:
		return l.Workers - 1
	}
	return l.Workers
}
