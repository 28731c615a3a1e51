package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/output"
)

// resharded is a message-consumer of three shards in a bubble, over a broker
// that others use with eight.
type resharded struct {
	t      *testing.T
	memory *brokertest.Memory
	larger *brokertest.Client
	broker *looking
	plant  *plant
	dir    string
	log    works // only its log
	signal context.CancelFunc
	done   chan error
}

// looking records how the broker is looked at, and fails at first.
type looking struct {
	broker.Broker
	failures int
	looks    []int // from which shard on
}

func (l *looking) Backlogs(ctx context.Context, from int) ([]broker.Backlog, error) {
	l.looks = append(l.looks, from)
	if len(l.looks) <= l.failures {
		return nil, errors.New("connection lost")
	}
	return l.Broker.Backlogs(ctx, from)
}

func newResharded(t *testing.T, failures int) *resharded {
	r := &resharded{t: t, memory: brokertest.NewMemory(3), dir: t.TempDir(), done: make(chan error, 1)}
	r.larger = r.memory.OpenShards(8, nil)
	r.broker = &looking{Broker: r.memory, failures: failures}
	return r
}

func (r *resharded) start(linger time.Duration) {
	cfg := DefaultConfig()
	cfg.Shards, cfg.OutputDir, cfg.BatchLinger = 3, r.dir, linger
	ctx, signal := context.WithCancel(context.Background())
	r.signal = signal
	open := func(Config, event.Sink) (broker.Broker, error) { return r.broker, nil }
	capture := func(p *plant) (half, error) {
		r.plant = p
		return fakeHalf{journal: new(journal)}, nil
	}
	go func() { r.done <- run(ctx, cfg, newTeller(zerolog.New(&r.log)), open, newConsuming, capture) }()
	synctest.Wait()
}

func (r *resharded) stop() {
	r.t.Helper()
	r.signal()
	if err := <-r.done; err != nil {
		r.t.Error(err)
	}
}

// publish queues an envelope of n messages.
func (r *resharded) publish(shard, n int) {
	r.t.Helper()
	var text bytes.Buffer
	id := fmt.Sprintf("S%d", shard)
	for i := range n {
		fmt.Fprintf(&text, `{"message_id":"%s.%d","timestamp":"2019-10-12T08:10:54Z"}`+"\n", id, i)
	}
	if err := brokertest.Publish(r.t.Context(), r.larger, message.Envelope{ID: id, Shard: shard, Count: n, Body: text.Bytes()}); err != nil {
		r.t.Fatal(err)
	}
}

// written returns how many messages are in the shard's files.
func (r *resharded) written(shard int) (lines int) {
	r.t.Helper()
	paths, _ := filepath.Glob(filepath.Join(r.dir, fmt.Sprintf("shard-%d", shard), fmt.Sprintf("%d-*.ndjson", shard)))
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			r.t.Fatal(err)
		}
		lines += bytes.Count(content, []byte("\n"))
	}
	return lines
}

// told counts the lines of the log with both texts.
func (r *resharded) told(a, b string) (n int) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	for line := range strings.Lines(r.log.log.String()) {
		if strings.Contains(line, a) && strings.Contains(line, b) {
			n++
		}
	}
	return n
}

// TestLeftoversAreDrained: what an earlier, larger number of shards has left is
// written to the folders of its shards, told, and not waited for to be ready.
func TestLeftoversAreDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResharded(t, 0)
		for shard := range 8 {
			if shard != 5 { // a queue that is not there
				r.publish(shard, 7)
			}
		}
		r.start(time.Second)
		if !r.plant.isReady() || r.plant.owned.Load() != 3 {
			t.Errorf("%d shards count as owned, want 3 of 7", r.plant.owned.Load())
		}
		time.Sleep(10 * time.Second)
		for shard := range 8 {
			if got := r.written(shard); got != 7 && shard != 5 || got != 0 && shard == 5 {
				t.Errorf("%d messages of shard %d are in files", got, shard)
			}
		}
		for _, shard := range []string{`"shard":3,`, `"shard":4,`, `"shard":6,`, `"shard":7,`} {
			if n := r.told("found, draining it", `"level":"info",`+shard+`"envelopes":1`); n != 1 {
				t.Errorf("%s found: told %d times, want once", shard, n)
			}
		}
		time.Sleep(3 * lookInterval)
		synctest.Wait()
		if n := r.told(`drained; when no process`, `"level":"info"`); n != 4 {
			t.Errorf("drained: told %d times, want 4", n)
		}
		if want := []int{3, 3, 3, 3}; !slices.Equal(r.broker.looks, want) {
			t.Errorf("looked from %v on, want %v", r.broker.looks, want)
		}
		r.publish(6, 8) // one more, with known ids among them
		time.Sleep(10 * time.Second)
		if got := r.written(6); got != 8 {
			t.Errorf("%d messages of shard 6 are in files, want 8", got)
		}
		r.stop()
		if n := r.told("worker history", `"shard":7`); n == 0 {
			t.Error("no history of the workers of shard 7")
		}
	})
}

// TestLaterLeftovers: a process with a larger number may start later. What is in
// hand of its shards is not drained yet, and is written when this one stops.
func TestLaterLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResharded(t, 0)
		r.start(5 * time.Minute)
		time.Sleep(lookInterval / 2)
		r.publish(5, 3)
		time.Sleep(lookInterval)
		if n := r.told("found, draining it", `"level":"warn"`); n != 1 {
			t.Errorf("found: told %d times, want once", n)
		}
		if depth := r.memory.Depth(5); depth != 1 || r.written(5) != 0 {
			t.Fatalf("%d envelopes and %d messages in files while the batch fills", depth, r.written(5))
		}
		time.Sleep(3 * lookInterval)
		if r.told("drained", "") != 0 {
			t.Error("drained while an envelope is in hand")
		}
		r.stop()
		if depth := r.memory.Depth(5); depth != 0 || r.written(5) != 3 {
			t.Errorf("%d envelopes and %d messages in files after the drain", depth, r.written(5))
		}
	})
}

// TestOthersLeftovers: what another process still has is not called drained;
// when that is gone, this one takes over.
func TestOthersLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResharded(t, 0)
		// The folder of 4, whose queue is empty, and the envelopes of 5, of which
		// it takes one at a time.
		dir, err := output.Open(r.dir, output.Window{IDs: 10, Age: time.Hour}, output.Roll{})
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		folder, err := dir.Shard(t.Context(), 4, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.publish(5, 1)
		r.publish(5, 1)
		intake, leave := context.WithCancel(t.Context())
		defer leave()
		deliveries := make(chan *message.Delivery)
		for _, shard := range []int{4, 5} {
			go func() { _ = r.larger.Consume(intake, shard, 1, deliveries) }()
		}
		held := <-deliveries

		r.start(time.Second)
		time.Sleep(3 * lookInterval)
		if n := r.told("standing by", `"shard":4`); n != 1 {
			t.Errorf("standing by for the folder: told %d times, want once", n)
		}
		if r.told("drained", "") != 0 || r.written(5) != 0 {
			t.Error("drained while others have the shards")
		}
		leave()
		if err := errors.Join(folder.Close(), held.Settle(message.Outcome{})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookInterval)
		if n := r.told("drained", ""); n != 2 || r.written(5) != 1 {
			t.Errorf("drained: told %d times, want 2; %d messages of shard 5 in files, want 1", n, r.written(5))
		}
		r.stop()
	})
}

// TestLookIsRetried: a look that fails comes again, with a growing pause, while
// the shards do their work.
func TestLookIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResharded(t, 4)
		r.publish(0, 5)
		r.publish(4, 5)
		r.start(time.Second)
		if got := r.written(0); got != 5 {
			t.Errorf("%d messages of shard 0 are in files while the look fails", got)
		}
		time.Sleep((1 + 2 + 4 + 8) * lookRetry)
		synctest.Wait()
		if got := r.written(4); got != 5 {
			t.Errorf("%d messages of shard 4 are in files after %d looks", got, len(r.broker.looks))
		}
		if want := slices.Repeat([]int{3}, 5); !slices.Equal(r.broker.looks, want) {
			t.Errorf("looked from %v on, want %v", r.broker.looks, want)
		}
		r.stop()
	})
}
