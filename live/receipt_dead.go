package live

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// The dead-letter queue is the truth about what is dead: RabbitMQ moves to it what came
// back too often without a word to the owner, and what owners tell is lost with them.
const (
	// lookAfter is how long a message is pending before it is looked for there.
	lookAfter = time.Second
	// lookEvery is the least time between two looks of a process. A look that has taken
	// long has the next one wait ten times as long.
	lookEvery = 3 * time.Second
	// lookTimeout, lookLetters and lookBytes bound a look.
	lookTimeout = 2 * time.Second
	lookLetters = 10_000
	lookBytes   = 64 << 20
)

var errEnough = errors.New("the look at the dead letters has seen enough")

// look is what the dead-letter queue had at a moment.
type look struct {
	began time.Time
	whole bool // it has seen all
	dead  map[string]deadSets
}

// looks is when this process looks at the dead-letter queue, and what it has seen last.
// It is guarded by mu of the Receipts.
type looks struct {
	wanted, running bool
	next            time.Time // no look before that
	last            *look     // nil if there is none, or it is too old
}

// fresh tells whether what was seen last counts as known.
func (l *looks) fresh(now time.Time) bool { return l.last != nil && now.Before(l.stale()) }

// stale is when the last look does not count any more: a moment after there may be
// another one.
func (l *looks) stale() time.Time { return l.next.Add(lookEvery) }

// want asks for a look if the last one is too old, and tells whether one waits to begin.
func (l *looks) want(now time.Time) bool {
	l.wanted = l.wanted || !now.Before(l.next)
	return l.wanted && !l.running
}

// begin tells whether a look has to begin.
func (l *looks) begin(now time.Time) bool {
	if !l.wanted || l.running || now.Before(l.next) {
		return false
	}
	l.wanted, l.running = false, true
	return true
}

// end takes what a look has seen; nil if it failed.
func (l *looks) end(now time.Time, began time.Time, seen *look) {
	l.running, l.next = false, now.Add(lookEvery)
	if seen != nil {
		l.last, l.next = seen, now.Add(max(lookEvery, 10*now.Sub(began)))
	}
}

// expire forgets what was seen too long ago, and returns when that will be.
func (l *looks) expire(now time.Time) time.Time {
	if l.last == nil || l.running {
		return time.Time{}
	}
	if l.fresh(now) {
		return l.stale()
	}
	l.last = nil
	return time.Time{}
}

// look looks at the dead-letter queue, and tells those who watch what it has seen.
func (r *Receipts) look(ctx context.Context) {
	began := time.Now()
	seen := r.seen(ctx, began)
	servers := r.servers()
	now := time.Now()
	r.mu.Lock()
	r.looks.end(now, began, seen)
	if seen != nil {
		for _, e := range r.entries {
			r.judge(e, e.found(seen), servers, now)
		}
	}
	calls := r.calls()
	r.mu.Unlock()
	r.wake()
	for _, call := range calls {
		call()
	}
}

// seen looks, within the bounds. It returns nil if nothing could be seen.
func (r *Receipts) seen(ctx context.Context, began time.Time) *look {
	l := &look{began: began, dead: make(map[string]deadSets)}
	var letters int
	letters, l.whole = lookAt(ctx, r.cfg.DeadLetters, func(d *broker.DeadLetter) bool {
		l.add(d)
		return false
	})
	if letters == 0 && !l.whole {
		return nil
	}
	return l
}

// lookAt has take called with the dead letters until that is enough, or until a bound of a
// look is met. It returns how many there were, and whether these are all.
func lookAt(ctx context.Context, queue broker.DeadLetters, take func(*broker.DeadLetter) (enough bool)) (letters int, whole bool) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	late := time.AfterFunc(lookTimeout, func() { stop(errEnough) })
	defer late.Stop()
	room := lookBytes
	err := queue.DeadLetters(ctx, func(d broker.DeadLetter) broker.Verdict {
		letters++
		room -= len(d.Envelope.Body)
		enough := room >= 0 && take(&d)
		if enough || letters >= lookLetters || room <= 0 {
			stop(errEnough)
		}
		return broker.Keep
	})
	return letters, err == nil
}

// add takes the messages of a dead letter that have ids of ours.
func (l *look) add(d *broker.DeadLetter) {
	if d.Envelope.Foreign {
		return
	}
	shard := d.Envelope.Shard
	if shard < 0 || shard >= maxShards {
		shard = -1
	}
	for line := range bytes.SplitSeq(d.Envelope.Body, []byte{'\n'}) {
		id, index := split(message.Message{Line: line}.RawID())
		count, err := countOf(string(id))
		i, err2 := strconv.Atoi(string(index))
		if err != nil || err2 != nil || i < 0 || i >= count {
			continue
		}
		sets := l.dead[string(id)]
		set := sets.set(shard, broker.Clip(d.Reason, maxReason), l.began)
		set.bits.add(i)
		if set.when.Equal(l.began) || d.Time.After(set.when) {
			set.when = d.Time
		}
		l.dead[string(id)] = sets
	}
}
