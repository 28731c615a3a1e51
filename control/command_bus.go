package control

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"async-data-processor/broker"
)

// hear takes a command that another process tells. Nothing of it is trusted.
func (c *Commands) hear(body []byte, _ int) {
	var cmd Command
	if broker.ReadBody(body, &cmd) != nil || cmd.Node == c.cfg.Node || cmd.Target == intakeTarget || len(cmd.Node) > maxOutcomeText || cmd.ID == "" {
		return
	}
	shards, err := cmd.shards(c.cfg.Shards)
	if err != nil || c.cfg.Check(cmd) != nil {
		return
	}
	c.mu.Lock()
	if r := c.records[cmd.ID]; r == nil {
		c.remember(cmd, shards)
	} else if !r.same(cmd) {
		shards = nil // the first one counts
	}
	c.mu.Unlock()
	c.apply(cmd, shards)
	c.tellAgain(cmd, shards)
}

// tellAgain tells the outcomes of this process that another one has missed.
func (c *Commands) tellAgain(cmd Command, shards []int) {
	var missed []Outcome
	c.mu.Lock()
	if r := c.records[cmd.ID]; r != nil {
		for _, n := range shards {
			if o, known := r.outcomes[n]; known && o.Node == c.cfg.Node && (len(cmd.Left) == 0 || cmd.Left.Has(n)) {
				missed = append(missed, o)
			}
		}
	}
	c.mu.Unlock()
	for _, o := range missed {
		c.tell(outcomeTopic, o)
	}
}

// apply applies the command to the shards that this process owns, on goroutines of their
// own. One that is being applied is not applied twice.
func (c *Commands) apply(cmd Command, shards []int) {
	if c.cfg.Apply == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.records[cmd.ID]; r != nil {
		shards = slices.DeleteFunc(slices.Clone(shards), func(n int) bool { _, done := r.outcomes[n]; return done })
	}
	for _, n := range shards {
		key := fmt.Sprint(n, " ", cmd.ID)
		if c.applying[key] || len(c.applying) >= maxApplying {
			continue // it is told again
		}
		c.applying[key] = true
		go func(ctx context.Context) {
			c.applyTo(ctx, n, cmd)
			c.mu.Lock()
			delete(c.applying, key)
			c.mu.Unlock()
		}(c.ctx)
	}
}

// applyTo applies the command to a shard, and tells the outcome if it is owned here.
func (c *Commands) applyTo(ctx context.Context, shard int, cmd Command) {
	o, err := c.cfg.Apply(ctx, shard, cmd)
	if errors.Is(err, ErrNotOwned) || ctx.Err() != nil {
		return
	}
	o.V, o.Node, o.ID, o.Shard = broker.BusVersion, c.cfg.Node, cmd.ID, shard
	if err != nil {
		o.Error = broker.Clip(err.Error(), maxOutcomeText)
	}
	c.settle(o)
	c.tell(outcomeTopic, o)
}

const maxOutcomeText = 500

// hearOutcome takes an outcome that the owner of a shard tells.
func (c *Commands) hearOutcome(body []byte, _ int) {
	var o Outcome
	if broker.ReadBody(body, &o) != nil || o.Node == c.cfg.Node {
		return
	}
	for _, text := range []*string{&o.Before, &o.After, &o.Error, &o.Node} {
		*text = broker.Clip(*text, maxOutcomeText)
	}
	c.settle(o)
}

// settle notes an outcome. The first one of a shard counts.
func (c *Commands) settle(o Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records[o.ID]
	if r == nil || !slices.Contains(r.shards, o.Shard) {
		return
	}
	if _, known := r.outcomes[o.Shard]; known {
		return
	}
	r.outcomes[o.Shard] = o
	if len(r.outcomes) == len(r.shards) {
		close(r.done)
	}
}
