package conn

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/event"
)

// Dying is a delivery on its way to the dead letters; its letters are of type L.
type Dying[S Session, L any] struct {
	Client *Client[S]
	Shard  int
	ID     string // of the envelope
	// Letters yields the dead letters, each with its reason.
	Letters iter.Seq2[L, string]
	// Publish makes one of them durable.
	Publish func(ctx context.Context, s S, letter L) error
	// Stale tells whether the delivery is the broker's again.
	Stale func() bool
	// Ended tells whether its consumer has ended.
	Ended func() bool
	// Return gives the delivery back.
	Return func() error
}

// Move publishes the letters, one after the other. It gives the delivery back if one
// of them cannot be published. After nil the delivery is to be acknowledged: first
// there, then away from here, so that it is twice there at worst.
func (d *Dying[S, L]) Move() error {
	for letter, reason := range d.Letters {
		if err := d.publishDeadLetter(letter); err != nil {
			err = fmt.Errorf("dead-lettering: %w", err)
			if d.Return() != nil {
				return Stale(err, nil)
			}
			return err
		}
		d.Client.Send(event.DeadLettered{Shard: d.Shard, Envelope: d.ID, Err: errors.New(reason)})
	}
	return nil
}

// publishDeadLetter tries for as long as the consumer goes on, and at least for as
// long as a publish may take: an envelope that is given back comes again at once,
// up to its delivery limit.
func (d *Dying[S, L]) publishDeadLetter(letter L) error {
	c, began := d.Client, time.Now()
	for attempts := c.cfg.Pauses.attempts(); ; {
		err := c.Publish(context.Background(), func(ctx context.Context, s S) error { return d.Publish(ctx, s, letter) })
		if err == nil || d.Stale() || c.ctx.Err() != nil || d.Ended() && time.Since(began) > broker.PublishTimeout {
			return err
		}
		pause := attempts.failed(err)
		c.Send(event.DeadLetterFailed{Shard: d.Shard, Envelope: d.ID, Err: err, Retry: pause})
		if !backoff.Sleep(c.ctx, pause) || d.Stale() {
			return err
		}
	}
}

// Publish hands a session to publish with, within the time of a publish.
func (c *Client[S]) Publish(ctx context.Context, publish func(ctx context.Context, s S) error) error {
	ctx, cancel := context.WithTimeout(ctx, broker.PublishTimeout)
	defer cancel()
	s, err := c.Publishing.Await(ctx)
	if err != nil {
		return broker.Rejected(err)
	}
	return publish(ctx, s)
}
