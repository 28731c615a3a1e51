package bus

import (
	"slices"
	"sync"

	"async-data-processor/broker"
)

// Receivers are those who listen and answer in a client. What comes in never waits for
// them. Their goroutines run only while there is something to receive.
type Receivers struct {
	mu      sync.Mutex // guards what follows
	topics  map[Key]*topic
	closed  bool
	changed chan struct{} // closed, and replaced, when there is a key more or less
	done    chan struct{} // closed by Close
}

// topic is the receivers of one key.
type topic struct {
	begun     bool // messages of the key come in
	receivers []*receiver
}

// NewReceivers returns none.
func NewReceivers() *Receivers {
	return &Receivers{topics: map[Key]*topic{}, changed: make(chan struct{}), done: make(chan struct{})}
}

// Listen is that of broker.Bus.
func (r *Receivers) Listen(name string, hear func(body []byte, missed int)) (stop func()) {
	return r.add(Key{Tell, name}, &receiver{atOnce: 1, call: func(it item, missed int) { hear(it.body, missed) }})
}

// Answer is that of broker.Bus.
func (r *Receivers) Answer(name string, answer func(body []byte) []byte) (stop func()) {
	return r.add(Key{Ask, name}, &receiver{atOnce: broker.MaxAnswers, call: func(it item, missed int) {
		if missed == broker.Reconnected {
			return
		}
		a := answer(it.body)
		if a == nil || len(a) > broker.MaxBusBody {
			return
		}
		select {
		case <-r.done: // a closed client says nothing
		default:
			it.reply(a)
		}
	}})
}

func (r *Receivers) add(k Key, one *receiver) (stop func()) {
	if !valid(k.Topic) {
		return func() {} // nothing can be sent to it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return func() {}
	}
	t := r.topics[k]
	if t == nil {
		t = &topic{}
		r.topics[k] = t
		r.change()
	}
	t.receivers = append(t.receivers, one)
	if t.begun {
		one.begin()
	}
	return func() { r.remove(k, t, one) }
}

// remove may be called more than once.
func (r *Receivers) remove(k Key, t *topic, one *receiver) {
	one.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	// A copy, for Deliver may go through the old one.
	t.receivers = slices.DeleteFunc(slices.Clone(t.receivers), func(other *receiver) bool { return other == one })
	if len(t.receivers) == 0 && r.topics[k] == t {
		delete(r.topics, k)
		r.change()
	}
}

// change wakes up who waits for it. mu is held.
func (r *Receivers) change() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Wanted returns the keys that have receivers, and a channel that is closed when that
// changes.
func (r *Receivers) Wanted() (map[Key]bool, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make(map[Key]bool, len(r.topics))
	for k := range r.topics {
		keys[k] = true
	}
	return keys, r.changed
}

// Begin notes that messages of the key come in, and tells its receivers unless they
// know.
func (r *Receivers) Begin(k Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.topics[k]
	if t == nil || t.begun {
		return
	}
	t.begun = true
	for _, one := range t.receivers {
		one.begin()
	}
}

// End notes that no messages come in any more, of any key.
func (r *Receivers) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.topics {
		t.begun = false
	}
}

// Deliver hands a message to those who receive its key. reply answers a question; it
// may be called concurrently, and not at all. The body is not changed any more.
func (r *Receivers) Deliver(k Key, body []byte, reply func(answer []byte)) {
	if len(body) > broker.MaxBusBody {
		return // not ours
	}
	r.mu.Lock()
	var all []*receiver
	if t := r.topics[k]; t != nil && t.begun {
		all = t.receivers
	}
	r.mu.Unlock()
	for _, one := range all {
		one.add(item{body, reply})
	}
}

// Check returns why the client cannot send a message.
func (r *Receivers) Check(topic string, body []byte) error {
	select {
	case <-r.done:
		return broker.ErrClosed
	default:
		return check(topic, body)
	}
}

// Close stops all receivers, for good.
func (r *Receivers) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	close(r.done)
	for k, t := range r.topics {
		for _, one := range t.receivers {
			one.stop()
		}
		delete(r.topics, k)
	}
	r.change()
}

// receiver is a function, and what waits for it.
type receiver struct {
	call   func(it item, missed int)
	atOnce int // calls, at most

	mu      sync.Mutex // guards what follows
	queue   queue
	calling int // goroutines
	stopped bool
}

func (r *receiver) begin() { r.change(func() { r.queue.begin() }) }

func (r *receiver) add(it item) { r.change(func() { r.queue.add(it) }) }

func (r *receiver) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped, r.queue = true, queue{}
}

func (r *receiver) change(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return
	}
	do()
	if r.calling < r.atOnce {
		r.calling++
		go r.run()
	}
}

// run calls until nothing waits.
func (r *receiver) run() {
	for {
		it, missed, ok := r.next()
		if !ok {
			return
		}
		r.call(it, missed)
	}
}

// next takes the oldest. If there is none, the goroutine ends.
func (r *receiver) next() (it item, missed int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch q := &r.queue; {
	case q.empty():
		r.calling--
		return item{}, 0, false
	case q.begun:
		q.begun = false
		return item{}, broker.Reconnected, true
	default:
		missed, q.missed = q.missed, 0
		return q.pop(), missed, true
	}
}
