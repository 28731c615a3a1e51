package bus

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"async-data-processor/broker"
)

func TestKeys(t *testing.T) {
	for topic, want := range map[string]bool{
		"beat": true, "shard.3.state": true, "a-b": true, strings.Repeat("a", broker.MaxTopic): true,
		"": false, ".": false, "a..b": false, ".a": false, "a.": false, "A": false, "a b": false, "*": false, "a.>": false,
		"#": false, "a\x00": false, "é": false, strings.Repeat("a", broker.MaxTopic+1): false,
	} {
		if err := check(topic, nil); (err == nil) != want {
			t.Errorf("%q: %v", topic, err)
		}
		if k, ok := ParseKey("tell." + topic); ok != want || ok && k != (Key{Tell, topic}) {
			t.Errorf("%q: %v, %v", topic, k, ok)
		}
	}
	for _, s := range []string{"", "tell", "tell.", "other.a", ".a", "ask.A"} {
		if k, ok := ParseKey(s); ok {
			t.Errorf("%q is the key %v", s, k)
		}
	}
}

// TestSlow: what waits for a receiver is bounded, by number and by bytes. The oldest
// go, and the receiver hears how many.
func TestSlow(t *testing.T) {
	for _, c := range []struct {
		name                string
		size, tells, missed int
	}{
		{"by number", 1, maxWaiting + 7, 7},
		{"by bytes", broker.MaxBusBody, maxWaitingBytes/broker.MaxBusBody + 3, 3},
		{"not at all", 1, maxWaiting, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := NewReceivers()
				hold := make(chan struct{})
				var missed []int
				defer r.Listen("a", func(_ []byte, n int) {
					missed = append(missed, n)
					<-hold
				})()
				k := Key{Tell, "a"}
				r.Begin(k)
				synctest.Wait() // it has heard that it begins
				for range c.tells {
					r.Deliver(k, make([]byte, c.size), nil)
				}
				close(hold)
				synctest.Wait()
				if len(missed) != 1+c.tells-c.missed || missed[0] != broker.Reconnected || missed[1] != c.missed {
					t.Fatalf("%d calls, %v first; want %d, and %d missed", len(missed)-1, missed[:2], c.tells-c.missed, c.missed)
				}
				for _, n := range missed[2:] {
					if n != 0 {
						t.Fatalf("%d missed in the end", n)
					}
				}
			})
		})
	}
}

// TestBegin: a listener hears that it begins before anything else, once, also after a
// loss, and nothing between.
func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewReceivers()
		var heard []string
		hear := func(body []byte, missed int) {
			if missed == broker.Reconnected {
				body = []byte("begin")
			}
			heard = append(heard, string(body))
		}
		k := Key{Tell, "a"}
		tell := func(body string) {
			r.Deliver(k, []byte(body), nil)
			synctest.Wait()
		}
		stop := r.Listen("a", hear)
		tell("early")
		r.Begin(k)
		tell("1")
		r.Begin(k)
		tell("2")
		r.End()
		tell("lost")
		r.Begin(k)
		tell("3")
		stop()
		stop()
		tell("late")
		if got := strings.Join(heard, " "); got != "begin 1 2 begin 3" {
			t.Error(got)
		}
		if keys, _ := r.Wanted(); len(keys) != 0 {
			t.Error("still wanted:", keys)
		}
	})
}

// lateWire is a connection that is made before the client uses it.
type lateWire struct {
	Wire
	gone chan struct{}
}

func (w lateWire) Bind(Key) error        { return nil }
func (w lateWire) Gone() <-chan struct{} { return w.gone }

// TestBeginsWhenUp: who hears that the bus begins can tell and ask at once.
func TestBeginsWhenUp(t *testing.T) {
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			up, w := make(chan struct{}), lateWire{gone: make(chan struct{})}
			r := NewRemote(func(ctx context.Context) (Wire, error) {
				select {
				case <-up:
					return w, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			})
			begun := false
			defer r.Listen("a", func([]byte, int) { begun = true })()
			served := make(chan error)
			go func() { served <- r.Serve(w) }()
			synctest.Wait()
			if begun {
				t.Error("it begins before the connection is up")
			}
			if !lost {
				close(up)
				synctest.Wait()
				if !begun {
					t.Error("it does not begin")
				}
			}
			close(w.gone)
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}
