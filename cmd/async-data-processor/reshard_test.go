package main

import (
	"fmt"
	"strings"
	"testing"

	"async-data-processor/faults/rig"
)

// TestResharded: with another number of shards, smaller or larger, everything
// that was queued before is written, each message once and to the folder of the
// shard that it was queued for.
func TestResharded(t *testing.T) {
	rig.OnEach(t, func(t *testing.T, b rig.Broker, e rig.Engine) {
		if e.Name == "listener" {
			return // JetStream, as others
		}
		testResharded(t, b, 8, 3)
		testResharded(t, b, 3, 8)
	})
}

func testResharded(t *testing.T, b rig.Broker, before, after int) {
	ids := queued(t, b, before)
	dir := t.TempDir()
	settings := []string{"DATA_OUTPUT_DIR=" + dir, fmt.Sprint("SHARDS_COUNT=", after)}
	var consumer *rig.Process
	if b.Consumer == "" {
		consumer, _ = b.Launch(t, settings...)
	} else {
		consumer = b.LaunchConsumer(t, settings...)
	}
	for n := after; n < before; n++ {
		consumer.Await("the old queue", func(l rig.Line) bool {
			return strings.HasPrefix(l.Message, "queue of a larger number of shards found") && l.Shard == n
		})
	}
	rig.Eventually(t, "every accepted message in a file", func() error {
		if n, example := rig.ReadTree(t, dir, before, 5).Missing(ids); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(ids), example)
		}
		return nil
	})
	if code := consumer.Stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	tr := rig.ReadTree(t, dir, before, 5)
	if n, example := tr.Twice(); n > 0 || len(tr.Lines) != len(ids) {
		t.Errorf("%d messages in files, want %d; %d twice, one is %s", len(tr.Lines), len(ids), n, example)
	}
	if left := rig.Temporary(t, dir); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	if found := consumer.Errors(); len(found) > 0 {
		t.Errorf("errors in the log: %q", found)
	}
}

// TestReshardedAfterACrash: what is in rolling files when the process dies, of
// which the broker knows nothing any more, is published by one with fewer shards.
func TestReshardedAfterACrash(t *testing.T) {
	t.Parallel()
	const before = 5
	b, dir := rig.NewStore(t), t.TempDir()
	settings := []string{"DATA_OUTPUT_DIR=" + dir, "ROLL_BYTES=1GiB", "ROLL_INTERVAL=1h"}
	p, _ := b.Launch(t, append(settings, fmt.Sprint("SHARDS_COUNT=", before))...)
	ids := p.PostAll(20, 20)
	rig.Eventually(t, "every accepted message in a hidden file", func() error {
		if n := p.Settled().Messages; n < len(ids) {
			return fmt.Errorf("%d of %d", n, len(ids))
		}
		return nil
	})
	p.Kill()
	if files, hidden := rig.ReadTree(t, dir, before, 0).Files, rig.Temporary(t, dir); len(files) > 0 || len(hidden) != before {
		t.Errorf("files %v and %q, want one of each shard, hidden", files, hidden)
	}

	p, _ = b.Launch(t, append(settings, "SHARDS_COUNT=1")...)
	rig.Eventually(t, "every accepted message in a visible file", func() error {
		if n, example := rig.ReadTree(t, dir, before, 0).Missing(ids); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(ids), example)
		}
		return nil
	})
	if code := p.Stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	tr := rig.ReadTree(t, dir, before, 0)
	if n, example := tr.Twice(); n > 0 || len(tr.Lines) != len(ids) {
		t.Errorf("%d messages in files, want %d; %d twice, one is %s", len(tr.Lines), len(ids), n, example)
	}
	if left := rig.Temporary(t, dir); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	if found := p.Errors(); len(found) > 0 {
		t.Errorf("errors in the log: %q", found)
	}
}

// queued posts entries for every shard and leaves them with the broker.
func queued(t *testing.T, b rig.Broker, shards int) []string {
	t.Helper()
	const submissions, size = 20, 20
	count := fmt.Sprint("SHARDS_COUNT=", shards)
	if b.Consumer != "" {
		server := b.LaunchServer(t, count)
		defer server.Stop()
		return server.PostAll(submissions, size)
	}
	// It cannot fill a batch, and does not live to flush one.
	dir := t.TempDir()
	p, _ := b.Launch(t, count, "DATA_OUTPUT_DIR="+dir, "BATCH_SIZE=1000", "BATCH_LINGER=10m")
	ids := p.PostAll(submissions, size)
	p.Kill()
	if files := rig.ReadTree(t, dir, shards, 1000).Files; len(files) > 0 {
		t.Errorf("%d files are written, want none", len(files))
	}
	return ids
}
