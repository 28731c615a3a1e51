package conn

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
)

// fake is a session of a broker that is there or not.
type fake struct {
	*Life
	hangs bool          // Leave waits for Cut
	cut   chan struct{} // closed by Cut
	once  sync.Once
	role  string
}

func (f *fake) Prepare() error { return nil }
func (f *fake) Over() bool     { return f.Ended() }
func (f *fake) Cut()           { f.once.Do(func() { close(f.cut) }) }

func (f *fake) Leave() {
	if f.hangs {
		<-f.cut
	}
}

// rig is a client and the broker that it connects to.
type rig struct {
	*Client[*fake]

	mu     sync.Mutex // guards what follows
	down   error      // why there is no connection
	hangs  bool
	events []event.Event
}

var errDown = errors.New("connection refused")

const shards = 3

func newRig(t *testing.T, down error) *rig { return startRig(t, &rig{down: down}) }

func startRig(t *testing.T, r *rig) *rig {
	pauses := PausesUpTo(5 * time.Second)
	pauses.Cancelled = 500 * time.Millisecond
	r.Client = New(Config[*fake]{
		Name: "fake://host", Shards: shards, Pauses: pauses, Dial: r.dial,
		Events: func(e event.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
	})
	r.Publishing.Start()
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func (r *rig) dial(_ context.Context, role string) (*fake, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down != nil {
		r.mu.Unlock()
		time.Sleep(time.Millisecond) // so that there is a time before the answer
		r.mu.Lock()
		return nil, cmp.Or(r.down, errDown)
	}
	return &fake{Life: NewLife(), hangs: r.hangs, cut: make(chan struct{}), role: role}, nil
}

func (r *rig) set(down error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

// states returns the states of a role's connection as told, repeated ones once.
func (r *rig) states(role string) (states []event.ConnectionState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		c, ok := e.(event.Connection)
		if ok && c.Role == role && (len(states) == 0 || states[len(states)-1] != c.State) {
			states = append(states, c.State)
		}
	}
	return states
}

func (r *rig) ready() error { return r.Ready(func(*fake) error { return nil }) }

func (r *rig) session(t *testing.T, l *Link[*fake]) *fake {
	t.Helper()
	s, err := l.Current()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// saysThat checks that an error is there and has all texts.
func saysThat(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want an error that says %q", err, text)
		}
	}
}

// TestConnects goes through the states of a connection, and what is told of them.
func TestConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, errDown)
		saysThat(t, r.ready(), "connecting", "fake://host")
		time.Sleep(time.Minute)
		saysThat(t, r.ready(), "cannot connect to broker, trying again", errDown.Error())
		r.set(nil)
		time.Sleep(time.Minute)
		if err := r.ready(); err != nil {
			t.Errorf("connected, but not ready: %v", err)
		}
		r.set(errDown)
		r.session(t, r.Publishing).Fail(errors.New("reset by peer"))
		synctest.Wait()
		saysThat(t, r.ready(), "broker connection lost, connecting again")
		time.Sleep(time.Minute)
		saysThat(t, r.ready(), "broker connection lost, connecting again", errDown.Error())
		r.set(nil)
		time.Sleep(time.Minute)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := r.ready(); !errors.Is(err, broker.ErrClosed) {
			t.Errorf("after Close: %v, want ErrClosed", err)
		}
		want := []event.ConnectionState{event.Unreachable, event.Connected, event.Lost, event.Connected}
		if got := r.states(Publish); !equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
		if got := r.states(Consume); len(got) > 0 {
			t.Errorf("told %v of a connection that nothing needs", got)
		}
	})
}

func equal[T comparable](x, y []T) bool {
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			return false
		}
	}
	return len(x) == len(y)
}

// TestAwait waits for a session, its context or the end of the client.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, errDown)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := r.Publishing.Await(ctx); !errors.Is(err, errDown) {
			t.Errorf("%v, want why there is no connection", err)
		}
		time.AfterFunc(time.Hour, func() { r.set(nil) })
		if s, err := r.Publishing.Await(t.Context()); err != nil || s.role != Publish {
			t.Errorf("%+v, %v", s, err)
		}
		err := make(chan error)
		go func() {
			r.set(errDown)
			err <- r.With(t.Context(), r.Consuming, func(context.Context, *fake) error { return nil })
		}()
		time.Sleep(time.Minute)
		go r.Close()
		if err := <-err; !errors.Is(err, errDown) && !errors.Is(err, broker.ErrClosed) {
			t.Errorf("%v, want why there is no connection, or ErrClosed", err)
		}
	})
}

// TestClose waits for calls, and for a session that leaves, but not for ever.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, hangs := range []bool{false, true} {
			r := startRig(t, &rig{hangs: hangs})
			r.Consuming.Start()
			synctest.Wait()
			took := time.Second // of a call
			if hangs {
				took = time.Hour
			}
			if !r.Enter() {
				t.Fatal("it does not take a call")
			}
			time.AfterFunc(took, r.Leave)
			began := time.Now()
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				_ = r.Close()
			}()
			_ = r.Close()
			<-closed
			want := time.Second
			if limit := r.cfg.Pauses.Close; hangs {
				want = 2 * limit // for the call, and for the session
			}
			if took := time.Since(began); took != want {
				t.Errorf("hangs %v: it took %v, want %v", hangs, took, want)
			}
			if r.Enter() {
				t.Error("it takes a call after Close")
			}
			time.Sleep(2 * time.Hour)
		}
	})
}

// TestConsume subscribes again after each kind of loss, and tells about it.
func TestConsume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		outcomes, subscribed := make(chan error), make(chan *fake)
		done := make(chan error)
		go func() {
			done <- r.Consume(ctx, 1, 5, func(intake context.Context, s *fake) error {
				subscribed <- s
				r.Subscribed(1)
				select {
				case err := <-outcomes:
					return err
				case <-intake.Done():
					return nil
				}
			})
		}()
		s := <-subscribed
		synctest.Wait()
		if err := r.ready(); err != nil {
			t.Errorf("subscribed, but not ready: %v", err)
		}

		began := time.Now()
		outcomes <- ErrCancelled
		<-subscribed
		if took := time.Since(began); took != r.cfg.Pauses.Cancelled {
			t.Errorf("a cancelled consumer subscribes again after %v, want %v", took, r.cfg.Pauses.Cancelled)
		}

		outcomes <- Refused(errors.New("other arguments"))
		synctest.Wait()
		saysThat(t, r.ready(), "shard 1 is not consumed, trying again", "other arguments")
		began = time.Now()
		<-subscribed
		if took := time.Since(began); took < r.cfg.Pauses.Refused/2 || took > r.cfg.Pauses.Refused {
			t.Errorf("after a refusal it subscribes again after %v, want about %v", took, r.cfg.Pauses.Refused)
		}

		lost := errors.New("reset by peer")
		s.Fail(lost)
		outcomes <- lost
		if again := <-subscribed; again == s || again.role != Consume {
			t.Error("it subscribes to the session that was lost")
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("after its context: %v", err)
		}
		want := []event.ConnectionState{event.Connected, event.Cancelled, event.Unsubscribed, event.Lost, event.Connected}
		if got := r.states(Consume); !equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
	})
}

// TestReadyInOrder: of several shards that are not consumed, the lowest is named.
// One beyond the number of shards does not count.
func TestReadyInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.Consuming.Start()
		synctest.Wait()
		r.Unsubscribed(shards, event.Unsubscribed, errDown, 0)
		if err := r.ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		for _, shard := range []int{2, 0, 1} {
			r.Unsubscribed(shard, event.Unsubscribed, errDown, 0)
		}
		for shard := range shards {
			saysThat(t, r.ready(), "shard "+string(rune('0'+shard)))
			r.Subscribed(shard)
		}
		if err := r.ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		blocked := errors.New("blocked")
		r.Unsubscribed(0, event.Unsubscribed, errDown, 0)
		if err := r.Ready(func(*fake) error { return blocked }); err != blocked {
			t.Errorf("%v, want what publishing meets first", err)
		}
	})
}

// TestBusIsNoMatterOfReadiness: the connection of the bus is made when it is needed, told
// of once, and Ready does not ask for it.
func TestBusIsNoMatterOfReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		synctest.Wait()
		if got := r.states(Bus); len(got) > 0 {
			t.Errorf("told %v of a bus that is not used", got)
		}
		r.set(errDown)
		r.Bus.Start()
		time.Sleep(time.Hour)
		if err := r.ready(); err != nil {
			t.Errorf("not ready without a bus: %v", err)
		}
		r.set(nil)
		time.Sleep(time.Minute)
		r.session(t, r.Bus)
		var told []event.ConnectionState
		r.mu.Lock()
		for _, e := range r.events {
			if c := e.(event.Connection); c.Role == Bus {
				told = append(told, c.State)
			}
		}
		r.mu.Unlock()
		if want := []event.ConnectionState{event.Unreachable, event.Connected}; !equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLookingIsNoMatterOfReadiness: a client that only looks at queues, as a server does for
// whoever asks it about the system, is as ready as before.
func TestLookingIsNoMatterOfReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		time.Sleep(time.Minute)
		r.set(errDown)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := r.With(ctx, r.Consuming, func(context.Context, *fake) error { return nil })
		saysThat(t, err, errDown.Error())
		if err := r.ready(); err != nil {
			t.Errorf("not ready after a look at queues: %v", err)
		}
	})
}
