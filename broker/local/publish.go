package local

import (
	"context"
	"slices"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// publication is an envelope that is being published.
type publication struct {
	envelope message.Envelope
	index    int // in its call of Publish
	outcomes chan<- outcome
	state    publicationState // guarded by Engine.mu
}

type outcome struct {
	index int
	err   error
}

// publicationState says whose the outcome of a publication is.
type publicationState uint8

const (
	waiting   publicationState = iota // it may be taken back
	underWay                          // a commit has it
	abandoned                         // its caller has decided; a commit may have it
	resolved                          // its outcome is in outcomes
)

// resolve sets the outcome, unless the caller did not wait for it. Engine.mu is held.
func (p *publication) resolve(err error) {
	if p.state != abandoned {
		p.state = resolved
		p.outcomes <- outcome{p.index, err} // it has room for all
	}
}

// Publish implements broker.Queues.
func (c *Client) Publish(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	outcomes := make(chan outcome, len(envelopes))
	mine := c.submit(ctx, envelopes, outcomes)
	for left := len(envelopes); left > 0; left-- {
		select {
		case o := <-outcomes:
			done(o.index, o.err)
			continue
		case <-ctx.Done():
		}
		c.abandon(mine, context.Cause(ctx))
		for range left {
			o := <-outcomes
			done(o.index, o.err)
		}
		return
	}
}

// submit has the envelopes wait for the next commit. What cannot be published is
// resolved at once.
func (c *Client) submit(ctx context.Context, envelopes []message.Envelope, outcomes chan<- outcome) []publication {
	e := c.engine
	refused := context.Cause(ctx)
	if refused == nil && e.cfg.Admit != nil {
		refused = e.cfg.Admit()
	}
	mine := make([]publication, len(envelopes))
	e.mu.Lock()
	defer e.mu.Unlock()
	if refused == nil {
		refused = c.usable()
	}
	for i := range envelopes {
		p := &mine[i]
		*p = publication{envelope: envelopes[i], index: i, outcomes: outcomes}
		if refused != nil {
			p.resolve(broker.Rejected(refused))
		} else if err := broker.Check(&p.envelope, c.shards); err != nil {
			p.resolve(err)
		} else {
			e.waiting = append(e.waiting, p)
			e.kick()
		}
	}
	return mine
}

// Enqueue publishes an envelope as it is, without the bounds that Publish has.
func (e *Engine) Enqueue(envelope message.Envelope) error {
	outcomes := make(chan outcome, 1)
	e.mu.Lock()
	p := &publication{envelope: envelope, outcomes: outcomes}
	if err := e.usable(); err != nil {
		p.resolve(broker.Rejected(err))
	} else {
		e.waiting = append(e.waiting, p)
		e.kick()
	}
	e.mu.Unlock()
	return (<-outcomes).err
}

// abandon resolves what is not resolved yet: its caller has no more time.
func (c *Client) abandon(mine []publication, cause error) {
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range mine {
		p := &mine[i]
		switch p.state {
		case waiting:
			e.waiting = slices.DeleteFunc(e.waiting, func(w *publication) bool { return w == p })
			p.resolve(broker.Rejected(cause))
		case underWay:
			p.resolve(broker.Unknown(cause))
			p.state = abandoned
		}
	}
}
