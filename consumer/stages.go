package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"async-data-processor/batcher"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/workerpool"
)

// consume runs the stages on a folder, each until the one before it is finished. It
// ends when intake does, when the output is given up, or when work ends.
func (sh *shard) consume(work, intake context.Context, f Folder) (err error) {
	cfg := sh.set.cfg
	receiving, stopReceiving := context.WithCancelCause(intake)
	defer stopReceiving(nil)
	writing, stopWriting := context.WithCancelCause(work)
	defer stopWriting(nil)
	giveUp := func(why error) {
		if sh.stopping.Err() == nil && sh.set.failed.Err() == nil {
			sh.enter(event.ShardReturning, why, 0)
		}
		stopReceiving(why) // first: what is returned does not come here again
		stopWriting(why)
	}
	var (
		envelopes = make(chan *message.Delivery)
		opened    = make(chan batcher.Opened)
		// Room for one, so that a worker finds its next batch ready. With more,
		// batches would wait in line instead of going on filling.
		batches = make(chan *message.Batch, 1)
	)
	pool := workerpool.New(workerpool.Config{
		Shard: sh.n, After: sh.set.lastWorker(sh.n),
		Min: cfg.WorkersMin, Max: cfg.WorkersMax, Timeout: cfg.WorkerTimeout,
		Writer:    recovering{f, &sh.outage},
		OnRetry:   sh.policy(giveUp),
		OnWritten: sh.onWritten,
		Events:    cfg.Events,
	}, batches)
	sh.set.use(sh, pool, giveUp)
	// Another shard's output can never go on, so the process ends. Batches that
	// are kept would only hold up the drain of the shards that can still write.
	defer context.AfterFunc(sh.set.failed, func() {
		if workers, _, _ := pool.Held(); workers > 0 {
			giveUp(context.Cause(sh.set.failed))
		}
	})()

	var stages, deadLetters sync.WaitGroup
	stages.Go(func() {
		defer close(envelopes)
		sh.consumes.Store(true)
		err = cfg.Queues.Consume(receiving, sh.n, cfg.Prefetch, envelopes)
	})
	stages.Go(func() {
		defer close(opened)
		sh.unpack(envelopes, opened, &deadLetters)
	})
	batch := cfg.Batch
	batch.Flush = sh.flushes
	stages.Go(func() { batcher.Run(batch, opened, batches) })
	stages.Go(func() { pool.Run(writing) })
	rolling, stopRolling := context.WithCancel(writing)
	var roller sync.WaitGroup
	roller.Go(func() { sh.roll(rolling, f, giveUp) })
	stages.Wait()
	stopRolling()
	roller.Wait()
	deadLetters.Wait()
	sh.set.retire(sh)
	why := context.Cause(writing)
	if why == nil && intake.Err() == nil {
		why = context.Cause(receiving) // with nothing to write, it may end between the steps of giveUp
	}
	if why != context.Cause(work) {
		err = errors.Join(err, why)
	}
	return err
}

// end closes the folder, and returns why the stages could not finish.
func (sh *shard) end(f Folder, err error) error {
	closed := closeFolder(f)
	if errors.Is(err, ErrOutputFailed) { // which says all there is to say, in one line
		if waiting(f) {
			err = fmt.Errorf("%w; %s", err, publishedLater)
		}
		return err
	}
	if err = errors.Join(err, closed); err != nil {
		err = fmt.Errorf("shard %d: %w", sh.n, err)
	}
	return err
}

// unpack opens envelopes. Lines that can never be written become dead letters,
// the envelope's others go on. An envelope that cannot be opened becomes a dead
// letter as a whole.
func (sh *shard) unpack(envelopes <-chan *message.Delivery, opened chan<- batcher.Opened, deadLetters *sync.WaitGroup) {
	var now *received
	var settle message.Settler
	for d := range envelopes {
		if r := sh.arrivals.receive(); r != now {
			now, settle = r, sh.settle(r, deadLetters)
		}
		sh.unsettled.Add(1)
		d.Ticket = sh.age.receive(acceptedAt(&d.Envelope), d.ID)
		sh.age.slot(d.Ticket).delivery.Store(d)
		d.OnSettle(settle)
		if d.Redelivered {
			sh.set.cfg.Events.Send(event.Redelivered{Shard: sh.n})
		}
		messages, dead, err := sh.set.cfg.Rules.Open(d.Envelope)
		if err != nil {
			sh.undecodable(d, err.Error())
			_ = d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: err.Error()}) // settle tells its error
			continue
		}
		d.Expect(len(messages) + len(dead))
		if len(dead) > 0 {
			for _, line := range dead {
				sh.undecodable(d, line.Reason)
			}
			_ = d.Resolve(len(dead), message.Outcome{Kind: message.DeadLetter, Reason: dead[0].Reason, Dead: dead})
		}
		if len(messages) > 0 {
			opened <- batcher.Opened{Delivery: d, Messages: messages}
		}
	}
}

func (sh *shard) undecodable(d *message.Delivery, why string) {
	sh.set.cfg.Events.Send(event.EnvelopeUndecodable{Shard: sh.n, Envelope: d.ID, Err: errors.New(why)})
}

// settle returns what settles the deliveries that r counts. Dead letters are
// settled on a goroutine of their own: publishing them takes seconds while the
// broker takes none. The prefetch bounds how many wait.
func (sh *shard) settle(r *received, deadLetters *sync.WaitGroup) message.Settler {
	settled := func(d *message.Delivery) { // or it could not be: either way it is forgotten
		sh.unsettled.Add(-1)
		sh.age.settled(d.Ticket)
		r.unsettled.Add(-1)
	}
	return func(d *message.Delivery, o message.Outcome, tell func(message.Outcome) error) error {
		if o.Kind == message.Return {
			r.returned.Store(true)
			sh.age.returning(d.Ticket, d.ID)
		}
		if o.Kind != message.DeadLetter {
			defer settled(d)
			return tell(o)
		}
		deadLetters.Go(func() {
			defer settled(d)
			if err := tell(o); err != nil {
				sh.set.cfg.Events.Send(event.DeadLetterFailed{Shard: sh.n, Envelope: d.ID, Err: err})
			} else {
				sh.died(d, o)
			}
		})
		return nil
	}
}
