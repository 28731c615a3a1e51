package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"async-data-processor/consumer"
	"async-data-processor/live"
	"async-data-processor/message"
	"async-data-processor/server"
	"async-data-processor/shard"
	"async-data-processor/workerpool"
)

// checkLive returns what is wrong with the settings of the live tail.
func (c Config) checkLive() error {
	var errs []error
	if c.Live != "on" && c.Live != "off" {
		errs = append(errs, fmt.Errorf("--live is %q, want on or off", c.Live))
	}
	if !slices.Contains([]string{string(live.PayloadFull), string(live.PayloadNone)}, c.LivePayload) {
		errs = append(errs, fmt.Errorf("--live-payload is %q, want full or none", c.LivePayload))
	}
	if _, err := live.NewMask(c.LiveRedact); err != nil {
		errs = append(errs, fmt.Errorf("--live-redact: %w", err))
	}
	return errors.Join(errs...)
}

// newTail returns the live tail of a process, nil if it is off.
func (p parts) newTail(process *process) *live.Tail {
	if process.cfg.Live == "off" {
		return nil
	}
	c := live.TailConfig{
		Bus: process.broker, Skips: &process.skips, Redact: process.cfg.LiveRedact, Payload: live.Payload(process.cfg.LivePayload),
		Node: func() string { return process.node.ID() },
		Consumers: func() int {
			n := len(process.node.Others("message-consumer"))
			if p.consumer {
				n++
			}
			return n
		},
	}
	if p.consumer {
		c.Owned = func() (shards []int) {
			for _, sh := range process.set.Status() {
				if sh.Owned {
					shards = append(shards, sh.Shard)
				}
			}
			return shards
		}
		c.Newest = func(ctx context.Context, shard int, until time.Time, take func(live.FileLine) bool) error {
			return process.output.Last(ctx, shard, until, func(worker, file string, at time.Time, line []byte) bool {
				return take(live.FileLine{Worker: worker, File: file, At: at, Text: line})
			})
		}
	}
	return live.NewTail(c)
}

// tailRoutes show the tail, if it is not turned off.
func (p *process) tailRoutes() []server.Route {
	if p.receipts.tail == nil {
		return nil
	}
	h := live.NewTailHandler(p.receipts.tail, server.ClientKey)
	return []server.Route{{
		Method: http.MethodGet, Path: live.TailPath, For: server.Viewers, Handler: h,
		Socket:   func(s *server.Socket, r *http.Request) { h.ServeSocket(s, r) },
		Protocol: live.TailProtocol,
	}}
}

// watches are those that watch the consumer.
func (f *followers) watches() watches {
	all := watches{watch{f.Receipts}}
	if f.tail != nil {
		all = append(all, tapped{f.tail})
	}
	return all
}

// tapped has a tail shown what a consumer writes.
type tapped struct{ *live.Tail }

var _ consumer.Watch = tapped{}

// Watched implements consumer.Watch.
func (t tapped) Watched() bool {
	return t.Tail.Watched(live.StageWritten) || t.Tail.Watched(live.StageDead)
}

// Written implements consumer.Watch.
func (t tapped) Written(shard int, w workerpool.Written) {
	t.Pass(live.Passed{Stage: live.StageWritten, Shard: shard, Worker: w.Worker, File: w.File, At: w.At, Messages: w.Messages})
}

// Dead implements consumer.Watch.
func (t tapped) Dead(shard int, line []byte, reason string) {
	if t.Tail.Watched(live.StageDead) {
		t.Pass(live.Passed{Stage: live.StageDead, Shard: shard, At: time.Now(), Reason: reason, Messages: []message.Message{{Line: line}}})
	}
}

// shown has a tail shown what the broker has confirmed.
type shown struct {
	tail   *live.Tail // nil if it is off
	shards int
}

func (s shown) watched() bool { return s.tail != nil && s.tail.Watched(live.StageAccepted) }

// copies returns what show is to have of messages that are gone then; nil without a viewer.
func (s shown) copies(messages []message.Message) []message.Message {
	if !s.watched() {
		return nil
	}
	all := slices.Clone(messages)
	for i := range all {
		all[i].Line = bytes.Clone(all[i].Line)
	}
	return all
}

func (s shown) show(messages []message.Message) {
	if len(messages) == 0 || !s.watched() {
		return
	}
	of := make(map[int][]message.Message)
	for _, m := range messages {
		n := shard.Of(m.Time, s.shards)
		of[n] = append(of[n], m)
	}
	now := time.Now()
	for n, messages := range of {
		s.tail.Pass(live.Passed{Stage: live.StageAccepted, Shard: n, At: now, Messages: messages})
	}
}
