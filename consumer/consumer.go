// Package consumer owns shards: it takes the messages of their queues and has
// them written to files.
//
// A Set knows which shards it should own: those it was told to Start, those
// beyond the number of shards that have a queue, and those in which a crash has
// left an open file. It compares them with the shards that run, and starts and
// stops shards until both agree. Each running shard is a state machine:
//
//	           ┌──────── retry ────────┐
//	           ▼                       │
//	start ─▶ opening ──────────────▶ retrying       the folder cannot be taken
//	           │  │
//	           │  └─▶ standby ─┐                    another process owns it
//	           ▼               ▼
//	         running ◀─────────┘                    consumed and written
//	           │   │ ▲
//	           │   │ └─ resume ── paused ◀─ pause   owned, and nothing consumed
//	           │   │
//	           │   └─▶ returning ─▶ opening         messages go back to the broker
//	           ▼
//	         stopped                                by Stop, by the drain, or it failed
//
// While a shard runs, its messages go through the stages:
//
//	Queues ──envelopes──▶ open ──messages──▶ batcher ──batches──▶ workerpool ──▶ folder
//	  ▲                                                                            │
//	  └──────────────────────── settle, after the file is durable ─────────────────┘
package consumer

import (
	"context"
	"errors"
	"time"

	"async-data-processor/batcher"
	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/output"
	"async-data-processor/workerpool"
)

// ErrOutputFailed is returned when the output has failed for longer than
// Config.ErrorTimeout, and not for lack of space. The messages that were not
// written are back at the broker.
var ErrOutputFailed = errors.New("the output has failed for too long")

// Config sets up a Set.
type Config struct {
	// Shards is the number of shards. Those from this number on are owned only
	// for what is left there.
	Shards int
	// Queues is where the messages come from.
	Queues Queues
	// Prefetch is how many envelopes of a shard are unsettled at most.
	Prefetch int
	// Batch is the shape of batches.
	Batch batcher.Config
	// WorkersMin and WorkersMax bound the workers of a shard.
	WorkersMin, WorkersMax int
	// WorkerTimeout is how long an attempt to write a batch may take.
	WorkerTimeout time.Duration
	// Dir is where the files go.
	Dir *output.Dir
	// Open takes a shard's folder; Dir.Shard by default.
	Open func(ctx context.Context, shard int, onStandby func()) (Folder, error)
	// RollInterval is how old an open file may get, 0 if files do not roll.
	RollInterval time.Duration
	// ErrorTimeout is how long the output of a shard may fail, other than for
	// lack of space, before the Set ends with ErrOutputFailed.
	ErrorTimeout time.Duration
	// Rules are for entries that other programs publish. Default message.Strict.
	Rules *message.Rules
	// Events is told what happens.
	Events event.Sink
	// Watch is told of the messages themselves while it asks for them; nil for nothing.
	Watch Watch
	// OnWritten is told how long messages took from their acceptance until they were
	// durable. It is called concurrently, and must not block. Default: nothing is told.
	OnWritten func(wait time.Duration, messages int)
}

// Watch is what looks at messages as they are written. Its methods are called
// concurrently, and must not block.
type Watch interface {
	// Watched tells whether Written is to be called; it costs an atomic load.
	Watched() bool
	// Written is told of messages of a shard that are durable and known as written. It
	// must not keep them. w.Messages are those that were not in a file before.
	Written(shard int, w workerpool.Written)
	// Dead is told, while Watched, of a message that the dead-letter queue has taken. It
	// must not keep the line, which has no id if another program published it.
	Dead(shard int, line []byte, reason string)
}

// Queues is the view of a broker that a Set needs.
type Queues interface {
	Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error
	Backlogs(ctx context.Context, from int) ([]broker.Backlog, error)
	Depths(ctx context.Context, shards []int) ([]broker.Backlog, error)
}

// Folder is a shard's folder that this process owns.
type Folder interface {
	workerpool.Writer
	RemovedTemps() int
	Rebuilt() output.Rebuilt
	// Remembered returns how many ids of written messages are remembered, and for how
	// long the oldest is.
	Remembered() (ids int, oldest time.Duration)
	// Known returns which messages of a submission are durable, and how far back that
	// is remembered.
	Known(submission string, count int) (output.Known, output.Memory)
	// Written tells whether a message is durable, and since when.
	Written(id []byte) (at time.Time, known bool)
	// Roll publishes the open file if it is due.
	Roll(ctx context.Context) error
	// RollErr returns why acknowledged messages are in no visible file yet.
	RollErr() error
	// Flush publishes the open file, however young it is.
	Flush(ctx context.Context) error
	// Sought tells whether another process waits for the folder, which could write the
	// shard.
	Sought() bool
	// Held fails with output.ErrLost once the folder is another's.
	Held() error
	// Control and SetControl read and replace what commands have set.
	Control() ([]byte, error)
	SetControl(ctx context.Context, content []byte) error
	Close() error
}

// Status is what a Set has at a moment, in the order of the shards.
type Status []ShardStatus

// ShardStatus is a shard that a Set has started.
type ShardStatus struct {
	Shard int
	State event.ShardState
	// Since is when it came to this state.
	Since time.Time
	// Err is why it is not running; nil while it runs or stands by.
	Err error
	// Holding is how many workers keep a batch that the output does not take.
	// HeldBy is one of them, and Held the reason.
	Holding int
	HeldBy  string
	Held    error
	// Overdue is why the open file is not published although it is due.
	Overdue error
	// Unsettled is how many envelopes were received and not settled.
	Unsettled int
	// Dead is how many messages became dead letters, also those that came to no worker.
	Dead int64
	// Pause is nil unless a pause is set. The shard may still be on its way to
	// event.ShardPaused.
	Pause *Pause
	// WorkersMin and WorkersMax bound its workers.
	WorkersMin, WorkersMax int
	// Owned tells that this process has the shard's folder.
	Owned bool
	// Queued is how many envelopes wait in its queue, as the broker told last; -1 while
	// that is not known.
	Queued int
	// Oldest is when the oldest message was accepted that waits in the queue or was
	// received, and is in no file. It is zero if there is none. OldestKnown tells whether
	// that is known: of a queue from which nothing was received yet it is not.
	Oldest      time.Time
	OldestKnown bool
	// IDs is how many ids of written messages are remembered, and IDsAge for how long
	// the oldest is.
	IDs    int
	IDsAge time.Duration
	// Workers is how many workers it has.
	Workers workerpool.Workers
}
