package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestResharded: with another number of shards, smaller or larger, everything
// that was queued before is written, each message once and to the folder of the
// shard that it was queued for.
func TestResharded(t *testing.T) {
	for _, e := range engines {
		if e.name == "listener" {
			continue // JetStream, as others
		}
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			b := e.open(t)
			testResharded(t, b, 8, 3)
			testResharded(t, b, 3, 8)
		})
	}
}

func testResharded(t *testing.T, b engineBroker, before, after int) {
	ids := queued(t, b, before)
	dir := t.TempDir()
	settings := []string{"DATA_OUTPUT_DIR=" + dir, fmt.Sprint("SHARDS_COUNT=", after)}
	var consumer *process
	if b.consumer == "" {
		consumer, _ = b.launch(t, settings...)
	} else {
		consumer = b.launchConsumer(t, settings...)
	}
	for n := after; n < before; n++ {
		consumer.await("the old queue", func(l logLine) bool {
			return strings.HasPrefix(l.Message, "queue of a larger number of shards found") && l.Shard == n
		})
	}
	eventually(t, "every accepted message in a file", func() error {
		if n, example := readTree(t, dir, before, 5).missing(ids); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(ids), example)
		}
		return nil
	})
	if code := consumer.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	tr := readTree(t, dir, before, 5)
	if n, example := tr.twice(); n > 0 || len(tr.lines) != len(ids) {
		t.Errorf("%d messages in files, want %d; %d twice, one is %s", len(tr.lines), len(ids), n, example)
	}
	if left := temporary(t, dir); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	if found := consumer.errors(); len(found) > 0 {
		t.Errorf("errors in the log: %q", found)
	}
}

// queued posts entries for every shard and leaves them with the broker.
func queued(t *testing.T, b engineBroker, shards int) []string {
	t.Helper()
	const submissions, size = 20, 20
	count := fmt.Sprint("SHARDS_COUNT=", shards)
	if b.consumer != "" {
		server := b.launchServer(t, count)
		defer server.stop()
		return postAll(t, server, submissions, size)
	}
	// It cannot fill a batch, and does not live to flush one.
	dir := t.TempDir()
	p, _ := b.launch(t, count, "DATA_OUTPUT_DIR="+dir, "BATCH_SIZE=1000", "BATCH_LINGER=10m")
	ids := postAll(t, p, submissions, size)
	p.kill()
	if files := readTree(t, dir, shards, 1000).files; len(files) > 0 {
		t.Errorf("%d files are written, want none", len(files))
	}
	return ids
}
