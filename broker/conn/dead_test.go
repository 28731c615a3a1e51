package conn

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
)

// TestMove publishes dead letters that fail at first, and gives up when the delivery
// is gone or the consumer has ended.
func TestMove(t *testing.T) {
	for _, tc := range []struct {
		name        string
		fails       int // attempts at the second letter
		stale       time.Duration
		ended       time.Duration
		want        error
		took        time.Duration // at most
		returned    bool
		dead        int
		returnFails bool
	}{
		{"at once", 0, time.Hour, time.Hour, nil, 0, false, 2, false},
		{"for long", 20, time.Hour, time.Hour, nil, 2 * time.Minute, false, 2, false},
		{"though the consumer has ended", 3, time.Hour, 0, nil, broker.PublishTimeout, false, 2, false},
		{"until the consumer has ended", 1 << 30, time.Hour, time.Minute, broker.ErrRejected, time.Minute + 5*time.Second, true, 1, false},
		{"until it is stale", 1 << 30, time.Minute, time.Hour, broker.ErrStale, time.Minute + 5*time.Second, true, 1, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, nil)
				began, fails, returned := time.Now(), tc.fails, false
				after := func(d time.Duration) func() bool { return func() bool { return time.Since(began) >= d } }
				dying := Dying[*fake, string]{
					Client: r.Client, Shard: 2, ID: "E",
					Letters: func(yield func(string, string) bool) {
						_ = yield("one", "first") && yield("two", "second")
					},
					Publish: func(_ context.Context, s *fake, letter string) error {
						if letter == "two" && fails > 0 {
							fails--
							return broker.Rejected(errors.New("full"))
						}
						return nil
					},
					Stale: after(tc.stale), Ended: after(tc.ended),
					Return: func() error {
						returned = true
						if tc.returnFails {
							return broker.ErrStale
						}
						return nil
					},
				}
				err := dying.Move()
				if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) || returned != tc.returned {
					t.Errorf("%v, given back: %v; want %v, %v", err, returned, tc.want, tc.returned)
				}
				if took := time.Since(began); took > tc.took {
					t.Errorf("it took %v, want at most %v", took, tc.took)
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				dead := slices.DeleteFunc(slices.Clone(r.events), func(e event.Event) bool {
					d, ok := e.(event.DeadLettered)
					return !ok || d.Shard != 2 || d.Envelope != "E"
				})
				if len(dead) != tc.dead {
					t.Errorf("%d dead letters are told, want %d", len(dead), tc.dead)
				}
				failed := slices.ContainsFunc(r.events, func(e event.Event) bool {
					f, ok := e.(event.DeadLetterFailed)
					return ok && f.Envelope == "E" && f.Shard == 2 && f.Retry > 0 && errors.Is(f.Err, broker.ErrRejected)
				})
				if failed != (tc.fails > 0) {
					t.Errorf("a failure is told: %v", failed)
				}
			})
		})
	}
}

// TestMoveClosed gives up when the client is closed.
func TestMoveClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, errDown)
		never := func() bool { return false }
		dying := Dying[*fake, string]{
			Client: r.Client, Letters: func(yield func(string, string) bool) { yield("one", "first") },
			Publish: func(context.Context, *fake, string) error { return nil },
			Stale:   never, Ended: never, Return: func() error { return nil },
		}
		time.AfterFunc(time.Minute, func() { _ = r.Close() })
		if err := dying.Move(); !errors.Is(err, broker.ErrRejected) {
			t.Errorf("%v, want ErrRejected", err)
		}
	})
}
