package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/output"
)

// leave leaves the rolling file of a crashed owner, of one message, in the
// shard's folder, and returns the path under which it is to be seen.
func (r *resharded) leave(shard int) (visible string) {
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

func (r *resharded) folder(shard int) string {
	return filepath.Join(r.dir, fmt.Sprintf("shard-%d", shard))
}

// checkFree fails if somebody owns the shard's folder.
func (r *resharded) checkFree(shard int) {
	r.t.Helper()
	if owned, err := output.Owned(r.folder(shard)); owned || err != nil {
		r.t.Errorf("the folder of shard %d has an owner: %v, %v", shard, owned, err)
	}
}

const nowPublished = `"message":"unpublished file of a larger number of shards published"`

// TestUnpublishedOfMoreShards: what a crash has left in a rolling file of a shard
// that is no more, and has no queue, is published, at the start or later. The
// folder is free again, the queue untouched.
func TestUnpublishedOfMoreShards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResharded(t, 0)
		r.leave(7)
		r.leave(2) // of the number of shards: nothing special
		r.start(time.Second)
		if r.written(7) != 1 || r.written(2) != 1 {
			t.Errorf("%d and %d messages are in files, want 1 and 1", r.written(7), r.written(2))
		}
		r.leave(1000)
		time.Sleep(lookInterval + time.Second)
		if got := r.written(1000); got != 1 {
			t.Errorf("%d messages are in files that a later look finds, want 1", got)
		}
		for _, shard := range []int{7, 1000} {
			r.checkFree(shard)
			if n := r.told(nowPublished, fmt.Sprintf(`"level":"info","shard":%d,`, shard)); n != 1 {
				t.Errorf("shard %d is published: told %d times, want once", shard, n)
			}
		}
		if r.told(nowPublished, "") != 2 || r.told("draining it", "") != 0 || r.told("shard owned", `"shard":7,`) != 0 {
			t.Errorf("more than the files of two shards is taken:\n%s", &r.log.log)
		}
		r.stop()
	})
}

// TestUnpublishedWithAQueue: a shard that is drained as well is not taken twice
// at a time, and no longer looked at.
func TestUnpublishedWithAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResharded(t, 0)
		for shard := 3; shard < 8; shard++ {
			r.leave(shard)
			r.publish(shard, 7)
		}
		r.start(time.Second)
		time.Sleep(lookInterval / 2)
		for shard := 3; shard < 8; shard++ {
			if got := r.written(shard); got != 8 {
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
		r := newResharded(t, 0)
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
		r.start(time.Second)
		time.Sleep(2*lookInterval - time.Second)
		for _, shard := range []string{`"shard":4,`, `"shard":5,`} {
			if n := r.told("standing by", shard); n != 1 {
				t.Errorf("%s standing by is told %d times, want once", shard, n)
			}
		}
		if r.written(4) != 0 || r.written(5) != 0 {
			t.Error("the file of another process is published")
		}
		time.Sleep(2 * time.Second)
		if r.written(4) != 1 || r.written(5) != 0 {
			t.Errorf("%d and %d messages are in files, want that of the owner that went", r.written(4), r.written(5))
		}
		r.checkFree(4)
		r.stop()
		if r.told("cannot be published", "") != 0 {
			t.Error("a drain is told as a failure")
		}
	})
}

// TestUnpublishedIsRetried: a file that cannot be published is told, keeps no
// other one waiting, and is tried again.
func TestUnpublishedIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResharded(t, 0)
		inTheWay := r.leave(5)
		r.leave(6)
		if err := os.Mkdir(inTheWay, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(t.TempDir(), r.folder(4)); err != nil { // leads out of the output
			t.Fatal(err)
		}
		r.start(time.Second)
		if got := r.written(6); got != 1 {
			t.Errorf("%d messages are in files behind a failure, want 1", got)
		}
		if n := r.told("cannot be published, trying again", `"level":"warn","shard":5,`); n != 1 {
			t.Errorf("the failure is told %d times, want once", n)
		}
		if n := r.told("cannot be looked for, trying again", "shard-4"); n != 1 {
			t.Errorf("the folder that cannot be read is told %d times, want once", n)
		}
		if !r.plant.isReady() {
			t.Error("being ready waits for it")
		}
		if err := os.Remove(inTheWay); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookInterval + time.Second)
		if got := r.written(5); got != 1 {
			t.Errorf("%d messages are in files at the next look, want 1", got)
		}
		r.stop()
	})
}
