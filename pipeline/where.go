package pipeline

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"async-data-processor/consumer"
	"async-data-processor/control"
	"async-data-processor/event"
	"async-data-processor/live"
	"async-data-processor/server"
)

// Location is what GET /api/v1/messages/<id> shows.
type Location = live.Location

// States of a Location that was not found.
const (
	NotKnown    = live.WhereNotKnown
	NotAnswered = live.WhereUnknown
)

// MessagePath is in front of the id in the path of that request.
const MessagePath = live.MessagePath

// newLocator returns what finds out where a message is.
func (p parts) newLocator(process *process, receipts *live.Receipts) *live.Locator {
	c := live.LocatorConfig{
		Bus: process.broker, Skips: &process.skips, DeadLetters: process.broker, Shards: process.cfg.Shards, Receipts: receipts,
		Node:    func() string { return process.node.ID() },
		Servers: func() []string { return process.node.Others(control.ServerRole) },
		Queues:  func(shards []int) (int, string) { return queuesOf(process.node.System().Shards, shards) },
	}
	if p.consumer {
		c.Look = func(id []byte) []live.Place { return placesOf(consumer.Where(process.set, id), time.Now()) }
		c.Find = func(ctx context.Context, shard int, id []byte, at time.Time) (live.InFile, error) {
			found, err := process.output.Find(ctx, shard, id, at)
			return live.InFile(found), err
		}
	}
	return live.NewLocator(c)
}

// locationRoutes tell where a message is.
func (p *process) locationRoutes() []server.Route {
	h := live.NewLocationHandler(p.receipts.locator, server.ClientKey)
	return []server.Route{{Method: http.MethodGet, Path: live.MessagePath + "*", For: server.Viewers, Handler: h}}
}

// placesOf is what a consumer knows of a message, as a locator has it.
func placesOf(places []consumer.Place, now time.Time) []live.Place {
	all := make([]live.Place, len(places))
	for i, p := range places {
		all[i] = live.Place{
			Shard: p.Shard, Written: p.Written, At: p.At, Received: p.Received, Worker: p.Worker, Since: p.Since, Sibling: p.Sibling, Forgot: p.Memory.Forgot,
		}
		if p.Memory.Forgot {
			all[i].Memory = now.Add(-p.Memory.Since)
		}
	}
	return all
}

// maxTroubles bounds the shards that a sentence names.
const maxTroubles = 3

// queuesOf returns how many envelopes wait in the queues of some shards, nil for all; -1 if
// that is not known. trouble says which of them do not run, and why.
func queuesOf(all []control.ShardView, of []int) (envelopes int, trouble string) {
	var troubles []string
	for i := range all {
		v := &all[i]
		if of != nil && !slices.Contains(of, v.Shard) {
			continue
		}
		if v.Queued == nil {
			envelopes = -1
		} else if envelopes >= 0 {
			envelopes += *v.Queued
		}
		if text := troubleOf(v); text != "" {
			troubles = append(troubles, text)
		}
	}
	if more := len(troubles) - maxTroubles; more > 0 {
		troubles = append(troubles[:maxTroubles], fmt.Sprintf("so it is with %d more shards", more))
	}
	return envelopes, strings.Join(troubles, "; ")
}

// troubleOf says why a shard does not advance; "" if it does.
func troubleOf(v *control.ShardView) string {
	switch {
	case v.Part != nil && v.Part.Pause != nil:
		p := v.Part.Pause
		text := fmt.Sprintf("shard %d is paused since %s", v.Shard, p.Since.UTC().Format(time.RFC3339))
		if !p.Until.IsZero() {
			text += " until " + p.Until.UTC().Format(time.RFC3339)
		}
		if p.By != "" {
			text += " by " + p.By
		}
		if p.Why != "" {
			text += ": " + p.Why
		}
		return text
	case v.State == control.ShardUnowned:
		return fmt.Sprintf("no message-consumer owns shard %d", v.Shard)
	case v.State == control.ShardUnknown:
		return fmt.Sprintf("the owner of shard %d does not answer", v.Shard)
	case v.State != event.ShardRunning && v.Part != nil && v.Part.Why != "":
		return fmt.Sprintf("shard %d is %s: %s", v.Shard, v.State, v.Part.Why)
	case v.State != event.ShardRunning:
		return fmt.Sprintf("shard %d is %s", v.Shard, v.State)
	case v.Part != nil && v.Part.Held > 0:
		return fmt.Sprintf("the output does not take what the workers of shard %d have", v.Shard)
	}
	return ""
}
