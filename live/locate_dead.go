package live

import (
	"bytes"
	"context"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// deadPlace is a dead letter that has a message.
type deadPlace struct {
	shard  int // -1 if that is not known
	at     time.Time
	reason string
}

// letterLooks look at the dead-letter queue, one after the other. Who comes while one runs
// shares the next one.
type letterLooks struct {
	queue broker.DeadLetters
	turn  chan struct{} // held by the look that runs, and for a while after it

	mu   sync.Mutex // guards next
	next *letterLook
}

// letterLook is a look for some messages.
type letterLook struct {
	found map[string]*deadPlace // by id; nil for those that were not found; guarded by mu until it begins
	whole bool                  // it has seen all letters
	done  chan struct{}         // closed at its end
}

// deadFound is what a look has found of a message: nothing if place is nil. looked tells
// that all dead letters were seen.
type deadFound struct {
	place  *deadPlace
	looked bool
}

// find looks for a message.
func (l *letterLooks) find(ctx context.Context, id string) deadFound {
	if l.queue == nil {
		return deadFound{looked: true}
	}
	l.mu.Lock()
	one := l.next
	if one == nil {
		one = &letterLook{found: make(map[string]*deadPlace), done: make(chan struct{})}
		l.next = one
		go l.run(one)
	}
	one.found[id] = nil
	l.mu.Unlock()
	select {
	case <-one.done:
		return deadFound{one.found[id], one.whole}
	case <-ctx.Done():
		return deadFound{}
	}
}

// run looks when it has the turn. It keeps the turn for three times as long again: RabbitMQ
// shows the dead letters to one at a time, and others want to see them, too.
func (l *letterLooks) run(one *letterLook) {
	l.turn <- struct{}{}
	l.mu.Lock()
	l.next = nil
	l.mu.Unlock()
	began := time.Now()
	missing := len(one.found)
	_, one.whole = lookAt(context.Background(), l.queue, func(d *broker.DeadLetter) bool {
		missing -= one.add(d)
		return missing == 0
	})
	close(one.done)
	time.AfterFunc(3*time.Since(began), func() { <-l.turn })
}

// add takes those messages of a dead letter that are looked for, and returns how many are
// found for the first time.
func (l *letterLook) add(d *broker.DeadLetter) (n int) {
	take := func(id []byte) {
		known, wanted := l.found[string(id)]
		if !wanted {
			return
		}
		if known == nil {
			n++
		}
		l.found[string(id)] = &deadPlace{d.Envelope.Shard, d.Time, broker.Clip(d.Reason, maxReason)}
	}
	take([]byte(d.Envelope.ID)) // of an envelope of ours it is no id of a message
	if !d.Envelope.Foreign {
		for line := range bytes.SplitSeq(d.Envelope.Body, []byte{'\n'}) {
			take(message.Message{Line: line}.RawID())
		}
	}
	return n
}
