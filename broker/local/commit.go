package local

import (
	"errors"
	"runtime"
	"time"

	"async-data-processor/broker"
)

// maxCommit bounds the bytes of one commit, but for its last envelope: they are in
// memory two times until it ends.
const maxCommit = 16 << 20

// kick starts the goroutine that works off what waits, unless it runs, or Close has
// begun. mu is held.
func (e *Engine) kick() {
	if !e.running && e.ctx.Err() == nil {
		e.running = true
		e.work.Go(e.run)
	}
}

// run commits until nothing waits: while one commit is written, the next one
// gathers. A store that was lost is opened again first.
func (e *Engine) run() {
	for {
		runtime.Gosched() // what the others can publish now comes along
		next, lost := e.gather()
		switch {
		case lost:
			e.reopen()
		case next == nil:
			return
		default:
			e.finish(next, e.cfg.Store.Commit(&next.change))
		}
	}
}

// later has settles committed, by the next commit, or by one of their own after a
// while. mu is held.
func (e *Engine) later() {
	if e.cfg.SettleDelay == 0 {
		e.kick()
		return
	}
	if e.timer == nil && !e.closed {
		e.timer = time.AfterFunc(e.cfg.SettleDelay, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.timer = nil
			e.kick()
		})
	}
}

// commitment is what one commit is about.
type commitment struct {
	change       Change
	settles      Change // a part of it
	publications []*publication
	moves        []*move
}

// gather takes what waits for the store, or returns nil and ends run. Settles alone
// wait for their timer. lost tells that the store has to be opened first.
func (e *Engine) gather() (next *commitment, lost bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.since = time.Time{}
	lost = e.down != nil && e.broken == nil && !e.closed
	due := len(e.waiting) > 0 || len(e.moves) > 0 && (!e.resting || e.closed) || !e.change.empty() && (e.timer == nil && !e.resting || e.closed)
	if e.down != nil || !due {
		e.running = lost
		return nil, lost
	}
	b := &commitment{change: e.change, settles: e.change}
	e.change = Change{}
	n, size := 0, 0
	for len(e.moves) > 0 && size < maxCommit {
		for _, p := range e.moves[0].to {
			size += len(p.Item.Envelope.Body)
		}
		b.moves, e.moves = append(b.moves, e.moves[0]), e.moves[1:]
	}
	for ; n < len(e.waiting) && size < maxCommit; n++ {
		p := e.waiting[n]
		p.state = underWay
		size += len(p.envelope.Body)
		q := e.queue(p.envelope.Shard)
		q.given++
		b.change.Put = append(b.change.Put, Put{q.number, &Item{Seq: q.given, Envelope: p.envelope}})
	}
	b.publications = append(b.publications, e.waiting[:n]...)
	e.waiting = append(e.waiting[:0], e.waiting[n:]...)
	for _, m := range b.moves {
		m.into(e, &b.change)
	}
	e.since = time.Now()
	return b, false
}

// finish tells what became of a commit.
func (e *Engine) finish(b *commitment, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	rejected := errors.Is(err, broker.ErrRejected)
	if err != nil && !rejected && !errors.Is(err, broker.ErrUnknown) {
		err = broker.Unknown(err)
	}
	if err == nil && e.down == nil { // else the store is opened anew, and tells what is in it
		e.failed = false
		e.pause.Reset()
		for _, p := range b.change.Put {
			e.queue(p.Queue).add(p.Item)
		}
	}
	for _, p := range b.publications {
		p.resolve(err) // after add, for the publisher may use its body again
	}
	switch {
	case rejected && e.down == nil && !e.closed:
		b.again(e)
		return
	case err != nil:
		e.fail(err)
	}
	for _, m := range b.moves {
		if m.from.Queue == Dead {
			delete(e.leaving, m.from.Seq)
		}
		m.done <- err
	}
}

// again has the settles and the moves of a commit that was rejected wait for the next
// one, after a pause. mu is held.
func (b *commitment) again(e *Engine) {
	e.change.Delete = append(b.settles.Delete, e.change.Delete...)
	e.change.Returns = append(b.settles.Returns, e.change.Returns...)
	e.moves = append(b.moves, e.moves...)
	e.resting = true
	time.AfterFunc(e.pause.Next(), func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.resting = false
		e.kick()
	})
}
