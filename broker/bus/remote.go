package bus

import (
	"context"
	"strconv"
	"sync"

	"async-data-processor/broker"
)

// Wire is a connection of a broker that carries the bus.
type Wire interface {
	// Send sends to all that receive the key. id is that of a question, else empty; an
	// answer brings it back. Send does not keep the body.
	Send(k Key, id string, body []byte) error
	// Bind has messages of the key come in: all that are sent once it has returned.
	Bind(k Key) error
	// Unbind ends that.
	Unbind(k Key) error
	// Gone is closed when the connection is over.
	Gone() <-chan struct{}
}

// Remote is the bus of a client over one connection after the other. It implements
// broker.Bus.
type Remote struct {
	*Receivers
	connect func(ctx context.Context) (Wire, error)

	mu   sync.Mutex // guards what follows
	last uint64
	asks map[string]*Answers // by the id of the question
}

var _ broker.Bus = (*Remote)(nil)

// NewRemote returns a bus. connect begins to connect, once, and waits for the connection
// that is up until ctx is done; its error says why there is none.
func NewRemote(connect func(ctx context.Context) (Wire, error)) *Remote {
	return &Remote{Receivers: NewReceivers(), connect: connect, asks: map[string]*Answers{}}
}

// now is done: connect does not wait with it.
var now = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Tell implements broker.Bus.
func (r *Remote) Tell(topic string, body []byte) error {
	if err := r.Check(topic, body); err != nil {
		return err
	}
	w, err := r.connect(now)
	if err != nil {
		return err
	}
	return w.Send(Key{Tell, topic}, "", body)
}

// Ask implements broker.Bus.
func (r *Remote) Ask(ctx context.Context, topic string, body []byte, take func(answer []byte) (more bool)) error {
	if err := r.Check(topic, body); err != nil {
		return err
	}
	return r.Gather(ctx, take, func(ctx context.Context, a *Answers) (lost <-chan struct{}, end func(), err error) {
		w, err := r.connect(ctx)
		if err != nil {
			return nil, nil, err
		}
		id := r.expect(a)
		end = func() { r.forget(id) }
		return w.Gone(), end, w.Send(Key{Ask, topic}, id, body)
	})
}

func (r *Remote) expect(a *Answers) (id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	id = strconv.FormatUint(r.last, 10)
	r.asks[id] = a
	return id
}

func (r *Remote) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.asks, id)
}

// Answered takes an answer. One that is not waited for is dropped.
func (r *Remote) Answered(id string, body []byte) {
	r.mu.Lock()
	a := r.asks[id]
	r.mu.Unlock()
	if a != nil {
		a.Add(body)
	}
}

// isUp waits for a connection to be that of the bus; false if it is over before.
func (r *Remote) isUp(w Wire) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-w.Gone():
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err := r.connect(ctx)
	return err == nil
}

// Listen implements broker.Bus.
func (r *Remote) Listen(topic string, hear func(body []byte, missed int)) (stop func()) {
	_, _ = r.connect(now) // it may take a while
	return r.Receivers.Listen(topic, hear)
}

// Answer implements broker.Bus.
func (r *Remote) Answer(topic string, answer func(body []byte) []byte) (stop func()) {
	_, _ = r.connect(now)
	return r.Receivers.Answer(topic, answer)
}

// Serve has what is received come in over a connection, until that is over or an
// error ends it. It has one caller at a time. Who hears that the bus begins may tell and
// ask at once: so it begins when connect returns the connection.
func (r *Remote) Serve(w Wire) error {
	defer r.End()
	if !r.isUp(w) {
		return nil
	}
	bound := map[Key]bool{}
	for {
		wanted, changed := r.Wanted()
		for k := range bound {
			if !wanted[k] {
				if err := w.Unbind(k); err != nil {
					return err
				}
				delete(bound, k)
			}
		}
		for k := range wanted {
			if !bound[k] {
				if err := w.Bind(k); err != nil {
					return err
				}
				bound[k] = true
			}
			r.Begin(k)
		}
		select {
		case <-changed:
		case <-w.Gone():
			return nil
		}
	}
}
