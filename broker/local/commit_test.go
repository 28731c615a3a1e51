package local_test

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"async-data-processor/broker/local"
	"async-data-processor/event"
	"async-data-processor/message"
)

// counting is a store that is never busy, and keeps nothing.
type counting struct{ commits, puts int }

func (s *counting) Recover(context.Context) (map[int]local.Contents, error) { return nil, nil }
func (s *counting) Read(int, uint64, int) ([]local.Item, error)             { return nil, nil }
func (s *counting) HandOut(int, uint64)                                     {}
func (s *counting) Close() error                                            { return nil }

func (s *counting) Commit(c *local.Change) error {
	s.commits++
	s.puts += len(c.Put)
	return nil
}

// TestCommitsTogether: publishers who wait for each commit share the next one, even
// if a commit takes no time.
func TestCommitsTogether(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that the order is the scheduler's
	const publishers, each = 16, 100
	store := new(counting)
	engine := local.New(local.Config{Store: store})
	if err := engine.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := engine.Client(1, func(event.Event) {})
	var publishing sync.WaitGroup
	for range publishers {
		publishing.Go(func() {
			for range each {
				client.Publish(t.Context(), []message.Envelope{{ID: message.NewID(), Body: []byte("{}\n"), Count: 1}}, func(_ int, err error) {
					if err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	publishing.Wait()
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	if store.puts != publishers*each || store.commits > store.puts/8 {
		t.Errorf("%d commits of %d envelopes, want %d envelopes and 8 or more a commit", store.commits, store.puts, publishers*each)
	}
}
