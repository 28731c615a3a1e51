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
		if n := r.set.Status().Running(shards); n != 3 {
			t.Errorf("%d shards count as running, want 3 of 7", n)
		}
		time.Sleep(10 * time.Second)
		for shard := range 8 {
			if got := len(r.written(shard)); got != 7 && shard != 5 || got != 0 && shard == 5 {
				t.Errorf("%d messages of shard %d are in files", got, shard)
			}
		}
		for _, shard := range []string{`"shard":3,`, `"shard":4,`, `"shard":6,`, `"shard":7,`} {
			if n := r.told("found a queue beyond SHARDS_COUNT", `"level":"info",`+shard+`"envelopes":1`); n != 1 {
				t.Errorf("%s found: told %d times, want once", shard, n)
			}
		}
		time.Sleep(3 * lookInterval)
		synctest.Wait()
		if n := r.told("drained a queue beyond SHARDS_COUNT", `"level":"info"`); n != 4 {
			t.Errorf("drained: told %d times, want 4", n)
		}
		r.publish(6, 8) // one more, with known ids among them
		time.Sleep(10 * time.Second)
		if got := len(r.written(6)); got != 8 {
			t.Errorf("%d messages of shard 6 are in files, want 8", got)
		}
		r.stop()
		if n := r.told("worker history", `"shard":7`); n == 0 {
			t.Error("no history of the workers of shard 7")
		}
	})
}

// TestLaterExtraShards: a process with a larger number may start later. What is in
// hand of its shards is not drained yet, and is written when this one stops.
func TestLaterExtraShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Batch.Linger = 5 * time.Minute
		r.start()
		time.Sleep(lookInterval / 2)
		r.publish(5, 3)
		time.Sleep(lookInterval)
		if n := r.told("found a queue beyond SHARDS_COUNT", `"level":"warn"`); n != 1 {
			t.Errorf("found: told %d times, want once", n)
		}
		if depth := r.memory.Depth(5); depth != 1 || len(r.written(5)) != 0 {
			t.Fatalf("%d envelopes and %d messages in files while the batch fills", depth, len(r.written(5)))
		}
		time.Sleep(3 * lookInterval)
		if r.told("drained a queue", "") != 0 {
			t.Error("drained while an envelope is unsettled")
		}
		r.stop()
		if depth := r.memory.Depth(5); depth != 0 || len(r.written(5)) != 3 {
			t.Errorf("%d envelopes and %d messages in files after the drain", depth, len(r.written(5)))
		}
	})
}

// TestExtraShardsOfOthers: what another process still has is not called drained;
// when that is gone, this one takes over.
func TestExtraShardsOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		// Another owner has the folder of 4, whose queue is empty. Of the envelopes of 5
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

		r.start()
		time.Sleep(3 * lookInterval)
		if n := r.told("standing by", `"shard":4`); n != 1 {
			t.Errorf("standing by for the folder: told %d times, want once", n)
		}
		if r.told("drained a queue", "") != 0 || len(r.written(5)) != 0 {
			t.Error("drained while others have the shards")
		}
		leave()
		if err := errors.Join(folder.Close(), held.Settle(message.Outcome{})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookInterval)
		if n := r.told("drained a queue", ""); n != 2 || len(r.written(5)) != 1 {
			t.Errorf("drained: told %d times, want 2; %d messages of shard 5 in files, want 1", n, len(r.written(5)))
		}
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
		if got := len(r.written(0)); got != 5 {
			t.Errorf("%d messages of shard 0 are in files while the look fails", got)
		}
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
	if err := os.MkdirAll(folder, 0o755); err != nil {
		r.t.Fatal(err)
	}
	line := fmt.Sprintf(`{"message_id":"L%d.0","timestamp":"2019-10-12T08:10:54Z"}`+"\n", shard)
	if err := os.WriteFile(filepath.Join(folder, "."+stem+".rolling"), []byte(line), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return filepath.Join(folder, stem+".ndjson")
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
		if len(r.written(7)) != 1 || len(r.written(2)) != 1 {
			t.Errorf("%d and %d messages are in files, want 1 and 1", len(r.written(7)), len(r.written(2)))
		}
		r.leave(1000)
		time.Sleep(lookInterval + time.Second)
		if got := len(r.written(1000)); got != 1 {
			t.Errorf("%d messages are in files that a later look finds, want 1", got)
		}
		for _, shard := range []int{7, 1000} {
			r.checkFree(shard)
			if n := r.told(nowPublished, fmt.Sprintf(`"level":"info","shard":%d,`, shard)); n != 1 {
				t.Errorf("shard %d is published: told %d times, want once", shard, n)
			}
		}
		if r.told(nowPublished, "") != 2 || r.told("draining it", "") != 0 || r.told("shard owned", `"shard":7,`) != 0 {
			t.Errorf("more than the files of two shards is taken:\n%s", &r.log)
		}
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
			if got := len(r.written(shard)); got != 8 {
				t.Errorf("%d messages of shard %d are in files, want 8", got, shard)
			}
		}
		before := r.told(nowPublished, "")
		r.leave(5)
		time.Sleep(2 * lookInterval)
		if n := r.told("standing by", ""); n != 0 {
			t.Errorf("it stands by for itself, %d times", n)
		}
		if after := r.told(nowPublished, ""); after != before {
			t.Error("a shard that is owned is taken for its file")
		}
		r.stop()
	})
}

// TestUnpublishedOfAnotherOwner: the file of a process that lives is its own; when
// that has gone this one looks after what it has left. It does not hold up a
// drain.
func TestUnpublishedOfAnotherOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		dir, err := output.Open(r.dir, output.Window{IDs: 10, Age: time.Hour}, output.Roll{Bytes: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		for _, shard := range []int{4, 5} {
			f, err := dir.Shard(t.Context(), shard, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			r.leave(shard)
			if shard == 4 {
				time.AfterFunc(2*lookInterval, func() { f.Close() })
			}
		}
		r.start()
		time.Sleep(2*lookInterval - time.Second)
		for _, shard := range []string{`"shard":4,`, `"shard":5,`} {
			if n := r.told("standing by", shard); n != 1 {
				t.Errorf("%s standing by is told %d times, want once", shard, n)
			}
		}
		if len(r.written(4)) != 0 || len(r.written(5)) != 0 {
			t.Error("the file of another process is published")
		}
		time.Sleep(2 * time.Second)
		if len(r.written(4)) != 1 || len(r.written(5)) != 0 {
			t.Errorf("%d and %d messages are in files, want that of the owner that went", len(r.written(4)), len(r.written(5)))
		}
		r.checkFree(4)
		r.stop()
		if r.told("cannot publish", "") != 0 {
			t.Error("a drain is told as a failure")
		}
	})
}

// TestUnpublishedIsRetried: a file that cannot be published is told, keeps no
// other one waiting, and is tried again.
func TestUnpublishedIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		inTheWay := r.leave(5)
		r.leave(6)
		if err := os.Mkdir(inTheWay, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(t.TempDir(), r.folder(4)); err != nil { // leads out of the output
			t.Fatal(err)
		}
		r.start()
		if got := len(r.written(6)); got != 1 {
			t.Errorf("%d messages are in files behind a failure, want 1", got)
		}
		if n := r.told("cannot publish the open file of a shard", `"level":"warn","shard":5,`); n != 1 {
			t.Errorf("the failure is told %d times, want once", n)
		}
		if n := r.told("cannot look for files beyond SHARDS_COUNT", "shard-4"); n != 1 {
			t.Errorf("the folder that cannot be read is told %d times, want once", n)
		}
		r.checkStatus("")
		if err := os.Remove(inTheWay); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookInterval + time.Second)
		if got := len(r.written(5)); got != 1 {
			t.Errorf("%d messages are in files at the next look, want 1", got)
		}
		r.stop()
	})
}
