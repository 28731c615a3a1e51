package consumer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/message"
	"async-data-processor/output"
)

// hopeless is a broker on which a shard can never be consumed.
type hopeless struct {
	Queues
	shard int
	err   error
}

func (h hopeless) Consume(ctx context.Context, shard, prefetch int, deliveries chan<- *message.Delivery) error {
	if shard == h.shard {
		return h.err
	}
	return h.Queues.Consume(ctx, shard, prefetch, deliveries)
}

// TestConsumeFails: a shard that can never go on ends the Set, with its reason,
// after the other shards have drained.
func TestConsumeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		broken := errors.New("the queue is of another kind")
		r.queue(1)
		r.cfg.Queues = hopeless{r.cfg.Queues, 0, broken}
		r.cfg.Batch.Linger = 10 * time.Minute
		r.start()
		if err := r.ended(); !errors.Is(err, broken) {
			t.Errorf("it ended with %v", err)
		}
		if depth := r.memory.Depth(1); depth != r.memory.Waiting(1) {
			t.Errorf("%d envelopes of shard 1 are neither settled nor back", depth)
		}
	})
}

// slowToClose is a folder that was lost, and whose disk does not answer when it
// is closed.
type slowToClose struct {
	Folder
	answers <-chan time.Time
}

func (f slowToClose) Write(context.Context, string, *message.Batch) (string, []message.Message, error) {
	return "", nil, fmt.Errorf("write: %w", output.ErrLost)
}

func (f slowToClose) Close() error {
	<-f.answers
	return f.Folder.Close()
}

// TestReturningIsNotReady: from the moment a shard gives its output up until its
// folder is open again, it is not ready.
func TestReturningIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := true
		r.around = func(n int, f Folder) Folder {
			if n != 0 || !first {
				return f
			}
			first = false
			return slowToClose{f, time.After(time.Hour)}
		}
		r.start()
		r.checkStatus("")
		r.queue(0)
		r.after(time.Minute)
		r.checkStatus("1 shard is not open (shard 0: write: ")
		r.checkTold(1, "returning the messages to the broker", `"shard":0`)
		r.after(2 * time.Hour)
		r.checkStatus("")
		r.checkWritten(1)
		r.stop()
	})
}

// TestStopOfAnExtraShard: what is said of a shard outweighs that it was found.
func TestStopOfAnExtraShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.publish(5, 3)
		r.start()
		r.after(2 * time.Second)
		r.checkWritten(3)
		r.set.Stop(5)
		r.after(3 * lookInterval)
		r.checkFree(5)
		r.set.Start(5)
		r.after(time.Second)
		r.checkRunning(8, shards+1)
		r.stop()
	})
}
