package pipeline

import (
	"context"
	"net/http"
	"sync"
	"time"

	"async-data-processor/consumer"
	"async-data-processor/control"
	"async-data-processor/live"
	"async-data-processor/message"
	"async-data-processor/server"
	"async-data-processor/workerpool"
)

// followers is what of this process tells those who wait what becomes of their
// submissions. It lasts until the consumer has ended, whose last files it tells.
type followers struct {
	*live.Receipts
	tail    *live.Tail // nil if it is off
	locator *live.Locator
	lasting
}

// run lasts until ctx ends.
func (f *followers) run(ctx context.Context) {
	var all sync.WaitGroup
	if f.tail != nil {
		all.Go(func() { f.tail.Run(ctx) })
	}
	all.Go(func() { f.locator.Run(ctx) })
	f.Run(ctx)
	all.Wait()
}

// follow gives the process its receipts, and its tail. They know its set and its node
// once these are there.
func (p parts) follow(process *process) {
	c := live.ReceiptConfig{
		Bus: process.broker, Skips: &process.skips, DeadLetters: process.broker, Shards: process.cfg.Shards, Server: p.server,
		Node:    func() string { return process.node.ID() },
		Servers: func() []string { return process.node.Others(control.ServerRole) },
	}
	if p.consumer {
		c.Owned = func(submission string, count int, shards []int) []live.Owned {
			return whatIsOwned(process.set.Known(submission, count, shards), time.Now())
		}
	}
	receipts := live.NewReceipts(c)
	process.receipts = &followers{Receipts: receipts, tail: p.newTail(process), locator: p.newLocator(process, receipts)}
}

// receiptRoutes tell what became of submissions, to those who may submit or view.
func (p *process) receiptRoutes() []server.Route {
	h := live.NewReceiptHandler(live.ReceiptHTTP{
		Receipts: p.receipts.Receipts, Path: server.ReceiptPath, Wait: server.PreferWait, Client: server.ClientKey,
	})
	const path = server.ReceiptPath + "*"
	return []server.Route{
		{Method: http.MethodGet, Path: path, For: server.Clients, Handler: h},
		{Method: http.MethodHead, Path: path, For: server.Clients, Handler: h},
	}
}

// whatIsOwned is what a consumer knows of a submission, as its receipt has it.
func whatIsOwned(known []consumer.Known, now time.Time) []live.Owned {
	all := make([]live.Owned, len(known))
	for i, k := range known {
		all[i] = live.Owned{Shard: k.Shard, Bits: k.Bits, First: k.First, Last: k.Last, Until: k.Until, Forgot: k.Memory.Forgot}
		if k.Memory.Forgot {
			all[i].Since = now.Add(-k.Memory.Since)
		}
		if p := pauseOf(k.Pause); p != nil {
			all[i].Pause = &live.Pause{Reason: p.Why, Until: p.Until}
		}
	}
	return all
}

// watch has the receipts told of what a consumer writes.
type watch struct{ *live.Receipts }

// Written implements consumer.Watch.
func (w watch) Written(_ int, b workerpool.Written) { w.Receipts.Written(b.Messages) }

// Dead implements consumer.Watch.
func (w watch) Dead(shard int, line []byte, reason string) {
	w.Receipts.Dead(shard, message.Message{Line: line}.RawID(), reason)
}

// watches are several that watch a consumer.
type watches []consumer.Watch

// Watched implements consumer.Watch.
func (w watches) Watched() bool {
	for _, one := range w {
		if one.Watched() {
			return true
		}
	}
	return false
}

// Written implements consumer.Watch.
func (w watches) Written(shard int, b workerpool.Written) {
	for _, one := range w {
		if one.Watched() {
			one.Written(shard, b)
		}
	}
}

// Dead implements consumer.Watch.
func (w watches) Dead(shard int, line []byte, reason string) {
	for _, one := range w {
		if one.Watched() {
			one.Dead(shard, line, reason)
		}
	}
}

// waiter lets requests wait for what becomes of their submissions.
type waiter struct{ *live.Receipts }

// Await implements server.Waiter.
func (w waiter) Await(id, client string, told func(server.Progress)) (server.Waiting, bool) {
	one, ok := w.Receipts.Await(id, client, func(p live.Progress) { told(server.Progress(p)) })
	return waiting{one}, ok
}

type waiting struct{ *live.Waiting }

// Progress implements server.Waiting.
func (w waiting) Progress() server.Progress { return server.Progress(w.Waiting.Progress()) }

var _ server.Waiter = waiter{}
