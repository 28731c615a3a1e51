package consumer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
	"async-data-processor/output"
)

// TestExtraShardsAreDrained: what an earlier, larger number of shards has left is
// written to the folders of its shards, told, and not waited for to be ready.
func TestExtraShardsAreDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for shard := range 8 {
			if shard != 5 { // a queue that is not there
				r.publish(shard, 7)
			}
		}
		r.start()
		r.checkStatus("")
		r.checkRunning(shards, 3)
		time.Sleep(10 * time.Second)
		for shard, want := range []int{7, 7, 7, 7, 7, 0, 7, 7} {
			r.checkFiles(shard, want)
		}
		for _, shard := range []string{`"shard":3,`, `"shard":4,`, `"shard":6,`, `"shard":7,`} {
			r.checkTold(1, "found a queue beyond SHARDS_COUNT", `"level":"info","component":"message-consumer",`+shard+`"envelopes":1`)
		}
		time.Sleep(3 * lookInterval)
		synctest.Wait()
		r.checkTold(4, "drained a queue beyond SHARDS_COUNT", `"level":"info"`)
		r.publish(6, 8) // one more, with known ids among them
		time.Sleep(10 * time.Second)
		r.checkFiles(6, 8)
		r.stop()
		if n := r.told("worker history", `"shard":7`); n == 0 {
			t.Error("no history of the workers of shard 7")
		}
	})
}

// TestLaterExtraShards: a process with a larger number may start later. A shard of
// its with an unsettled envelope is not drained yet; the end of this one writes it.
func TestLaterExtraShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Batch.Linger = 5 * time.Minute
		r.start()
		time.Sleep(lookInterval / 2)
		r.publish(5, 3)
		time.Sleep(lookInterval)
		r.checkTold(1, "found a queue beyond SHARDS_COUNT", `"level":"warn"`)
		r.checkDepth(5, 1)
		r.checkFiles(5, 0)
		time.Sleep(3 * lookInterval)
		r.checkTold(0, "drained a queue", "")
		r.stop()
		r.checkDepth(5, 0)
		r.checkFiles(5, 3)
	})
}

// TestExtraShardsOfOthers: what another process still has is not called drained;
// when that is gone, this one takes over.
func TestExtraShardsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		// Another owner has the folder of 4, whose queue is empty. Of the envelopes of 5
		// it takes one at a time.
		folder := r.owner(4)
		r.publish(5, 1)
		r.publish(5, 1)
		intake, leave := context.WithCancel(t.Context())
		defer leave()
		deliveries := make(chan *message.Delivery)
		for _, shard := range []int{4, 5} {
			go func() { _ = r.larger.Consume(intake, shard, 1, deliveries) }()
		}
		held := <-deliveries

		r.start()
		time.Sleep(3 * lookInterval)
		r.checkTold(1, "standing by", `"shard":4`)
		r.checkTold(0, "drained a queue", "")
		r.checkFiles(5, 0)
		leave()
		must(t, errors.Join(folder.Close(), held.Settle(message.Outcome{})))
		time.Sleep(2 * lookInterval)
		r.checkTold(2, "drained a queue", "")
		r.checkFiles(5, 1)
		r.stop()
	})
}

// TestLookIsRetried: a look that fails comes again, with a growing pause, while
// the shards do their work.
func TestLookIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		looks := &unsteady{Queues: r.cfg.Queues, failures: 4}
		r.cfg.Queues = looks
		r.publish(0, 5)
		r.publish(4, 5)
		r.start()
		r.checkFiles(0, 5)
		r.after((1 + 2 + 4 + 8) * lookRetry)
		if got := len(r.written(4)); got != 5 || looks.looks != 5 {
			t.Errorf("%d messages of shard 4 are in files after %d looks", got, looks.looks)
		}
		r.stop()
	})
}

// unsteady fails the first looks at the queues.
type unsteady struct {
	Queues
	failures, looks int
}

func (u *unsteady) Backlogs(ctx context.Context, from int) ([]broker.Backlog, error) {
	if u.looks++; u.looks <= u.failures {
		return nil, errors.New("connection lost")
	}
	return u.Queues.Backlogs(ctx, from)
}

// leave leaves the rolling file of a crashed owner, of one message, in the
// shard's folder, and returns the path under which it is to be seen.
func (r *rig) leave(shard int) (visible string) {
	r.t.Helper()
	folder, stem := r.folder(shard), fmt.Sprintf("%d-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E", shard)
	must(r.t, os.MkdirAll(folder, 0o755))
	line := fmt.Sprintf(`{"message_id":"L%d.0","timestamp":"2019-10-12T08:10:54Z"}`+"\n", shard)
	must(r.t, os.WriteFile(filepath.Join(folder, "."+stem+".rolling"), []byte(line), 0o644))
	return filepath.Join(folder, stem+".ndjson")
}

// owner is another process that owns the shard's folder.
func (r *rig) owner(shard int) *output.Shard {
	r.t.Helper()
	dir, err := output.Open(r.dir, output.Window{IDs: 10, Age: time.Hour}, output.Roll{})
	must(r.t, err)
	r.t.Cleanup(func() { dir.Close() })
	f, err := dir.Shard(r.t.Context(), shard, nil)
	must(r.t, err)
	return f
}

// checkFree fails if a process owns the shard's folder.
func (r *rig) checkFree(shard int) {
	r.t.Helper()
	if owned, err := output.Owned(r.folder(shard)); owned || err != nil {
		r.t.Errorf("the folder of shard %d has an owner: %v, %v", shard, owned, err)
	}
}

const nowPublished = `"message":"published the open file of a shard beyond SHARDS_COUNT"`

// TestUnpublishedOfMoreShards: what a crash has left in a rolling file of a shard
// that is no more, and has no queue, is published, at the start or later. The
// folder is free again, the queue untouched.
func TestUnpublishedOfMoreShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.leave(7)
		r.leave(2) // of the number of shards: nothing special
		r.start()
		r.checkFiles(7, 1)
		r.checkFiles(2, 1)
		r.leave(1000)
		time.Sleep(lookInterval + time.Second)
		r.checkFiles(1000, 1)
		for _, shard := range []int{7, 1000} {
			r.checkFree(shard)
			r.checkTold(1, nowPublished, fmt.Sprintf(`"level":"info","component":"message-consumer","shard":%d,`, shard))
		}
		r.checkTold(2, nowPublished, "")
		r.checkTold(0, "draining it", "")
		r.checkTold(0, "shard owned", `"shard":7,`)
		r.stop()
	})
}

// TestUnpublishedWithAQueue: a shard that is drained as well is not taken twice
// at a time, and no longer looked at.
func TestUnpublishedWithAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for shard := 3; shard < 8; shard++ {
			r.leave(shard)
			r.publish(shard, 7)
		}
		r.start()
		time.Sleep(lookInterval / 2)
		for shard := 3; shard < 8; shard++ {
			r.checkFiles(shard, 8)
		}
		before := r.told(nowPublished, "")
		r.leave(5)
		time.Sleep(2 * lookInterval)
		r.checkTold(0, "standing by", "")
		r.checkTold(before, nowPublished, "") // a shard that is owned is not taken for its file
		r.stop()
	})
}

// TestUnpublishedOfAnotherOwner: the file of a process that lives is its own; when
// that has gone this one looks after what it has left. It does not hold up a
// drain.
func TestUnpublishedOfAnotherOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first, second := r.owner(4), r.owner(5)
		defer second.Close()
		time.AfterFunc(2*lookInterval, func() { first.Close() })
		r.leave(4)
		r.leave(5)
		r.start()
		time.Sleep(2*lookInterval - time.Second)
		for _, shard := range []string{`"shard":4,`, `"shard":5,`} {
			r.checkTold(1, "standing by", shard)
		}
		r.checkFiles(4, 0)
		time.Sleep(2 * time.Second)
		r.checkFiles(4, 1)
		r.checkFiles(5, 0)
		r.checkFree(4)
		r.stop()
		r.checkTold(0, "cannot publish", "")
	})
}

// TestUnpublishedIsRetried: a file that cannot be published is told, keeps no
// other one waiting, and is tried again.
func TestUnpublishedIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		inTheWay := r.leave(5)
		r.leave(6)
		must(t, os.Mkdir(inTheWay, 0o755))
		if err := os.Symlink(t.TempDir(), r.folder(4)); err != nil { // leads out of the output
			t.Fatal(err)
		}
		r.start()
		r.checkFiles(6, 1)
		r.checkTold(1, "cannot publish the open file of a shard", `"level":"warn","component":"message-consumer","shard":5,`)
		r.checkTold(1, "cannot look for files beyond SHARDS_COUNT", "shard-4")
		r.checkStatus("")
		must(t, os.Remove(inTheWay))
		time.Sleep(lookInterval + time.Second)
		r.checkFiles(5, 1)
		r.stop()
	})
}
