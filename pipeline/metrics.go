package pipeline

import (
	"context"
	"time"

	"async-data-processor/consumer"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/publisher"
	"async-data-processor/server"
	"async-data-processor/telemetry"
	"async-data-processor/telemetry/metrics"
)

// state is what a scrape reads of the process, which may have a server later.
func (p *process) state(serves bool, out *room, log *telemetry.Log) metrics.State {
	s := metrics.State{Broker: p.broker.Ready, Dropped: func() uint64 {
		if p.cfg.LostLines == nil {
			return log.Dropped()
		}
		return log.Dropped() + p.cfg.LostLines()
	}}
	if serves {
		s.Intake = func() bool { return p.intake.Paused() }
	}
	jobState(p, &s)
	if p.consumer == nil {
		return s
	}
	s.Shards = func() []metrics.Shard { return measured(p.consumer.Status()) }
	s.Output = func() (int64, error) {
		err := p.consumer.Status().Err(p.cfg.Shards)
		if err == nil {
			err = out.err()
		}
		return out.reserve.Seen(), err
	}
	return s
}

// measured is the status of shards as metrics take it.
func measured(status consumer.Status) []metrics.Shard {
	shards := make([]metrics.Shard, len(status))
	for i, sh := range status {
		shards[i] = metrics.Shard{
			Shard: sh.Shard, State: string(sh.State), Owned: sh.Owned, Paused: sh.Pause != nil,
			Queued: sh.Queued, Unsettled: sh.Unsettled, Oldest: sh.Oldest, Known: sh.OldestKnown,
			IDs: sh.IDs, IDsAge: sh.IDsAge,
			Workers: map[string]int{
				string(event.Idle): sh.Workers.Idle, string(event.Busy): sh.Workers.Busy,
				string(event.Holding): sh.Workers.Holding, "timed-out": sh.Workers.TimedOut,
			},
		}
	}
	return shards
}

// accepting counts what a publisher accepts, and has it remembered and shown.
type accepting struct {
	server.Submitter
	counted  *metrics.Metrics
	remember func(id string, shards []message.ShardCount)
	shown    shown
}

func (a accepting) Submit(ctx context.Context, s message.Submission) ([]message.ShardCount, error) {
	shards, err := a.Submitter.Submit(ctx, s)
	a.note(s.ID, s.Messages, shards, err)
	return shards, err
}

func (a accepting) Start(ctx context.Context, s message.Submission, done func([]message.ShardCount, error)) {
	id, messages := s.ID, a.shown.copies(s.Messages) // the submission may be gone when it is done
	a.Submitter.Start(ctx, s, func(shards []message.ShardCount, err error) {
		a.note(id, messages, shards, err)
		done(shards, err)
	})
}

func (a accepting) note(id string, messages []message.Message, shards []message.ShardCount, err error) {
	if err == nil {
		for _, sh := range shards {
			a.counted.Accepted(sh.Shard, sh.Messages)
		}
		a.remember(id, shards)
		a.shown.show(messages)
	}
}

// timed counts how long a broker takes to confirm.
type timed struct {
	publisher.Broker
	counted *metrics.Metrics
}

func (t timed) Publish(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	began := time.Now()
	t.Broker.Publish(ctx, envelopes, done)
	t.counted.Published(time.Since(began))
}
