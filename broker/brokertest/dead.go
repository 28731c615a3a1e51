package brokertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// deadItem is a dead letter of a Memory.
type deadItem struct {
	DeadLetter
	envelope message.Envelope
	holder   *looker // nil while it is not looked at
}

// looker is a run of DeadLetters, on one connection.
type looker struct {
	client     *Client
	connection int
}

// DeadLetters implements broker.Broker.
func (c *Client) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	m := c.memory
	me, there, err := c.look(ctx)
	if err != nil {
		return err
	}
	defer m.change(func() {
		for _, item := range m.dead {
			if item.holder == me {
				item.holder = nil
			}
		}
	})
	for _, item := range there {
		m.mu.Lock()
		err := me.usable(ctx)
		mine := err == nil && item.holder == nil && slices.Contains(m.dead, item)
		if mine {
			item.holder = me
		}
		m.mu.Unlock()
		switch {
		case err != nil:
			return err
		case !mine:
			continue
		}
		verdict := decide(item.letter())
		m.change(func() { err = me.apply(ctx, item, verdict) })
		if err != nil {
			return err
		}
	}
	return nil
}

// look waits for the connection and lists what is there.
func (c *Client) look(ctx context.Context) (*looker, []*deadItem, error) {
	m := c.memory
	for {
		m.mu.Lock()
		me := &looker{c, c.connection}
		err := me.usable(ctx)
		there, changed := slices.Clone(m.dead), m.changed
		silent := m.stalled || m.loss != Nothing
		m.mu.Unlock()
		switch {
		case err == nil && !silent:
			return me, there, nil
		case errors.Is(err, broker.ErrClosed):
			return nil, nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, cmp.Or(err, context.Cause(ctx))
		}
	}
}

// usable returns why the connection cannot be used any more.
func (l *looker) usable(ctx context.Context) error {
	m := l.client.memory
	switch {
	case l.client.closed:
		return broker.ErrClosed
	case m.stopped:
		return errStopped
	case l.client.connection != l.connection:
		return errors.New("the connection was lost")
	default:
		return context.Cause(ctx)
	}
}

// apply does what was decided.
func (l *looker) apply(ctx context.Context, item *deadItem, verdict broker.Verdict) error {
	if verdict == broker.Keep {
		return nil
	}
	if err := l.usable(ctx); err != nil {
		return err
	}
	m := l.client.memory
	if verdict == broker.Replay {
		if m.blocked != "" {
			return broker.Rejected(l.client.usable())
		}
		m.save(item.envelope)
	}
	m.dead = slices.DeleteFunc(m.dead, func(o *deadItem) bool { return o == item })
	return nil
}

func (d *deadItem) letter() broker.DeadLetter {
	l := broker.DeadLetter{
		Envelope: d.envelope, Reason: d.Reason, Time: d.Time.UTC(),
		Origin: fmt.Sprintf("shard %d", d.Shard),
	}
	if l.Envelope.ID == "" {
		l.Envelope.ID = message.KeyedID("", l.Envelope.Body)
	}
	return l
}
