package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"async-data-processor/faults/rig"
)

// TestWholeWay is the main job: many submissions of seven entries become files,
// each entry once, and the history accounts for all of them.
func TestWholeWay(t *testing.T) { rig.OnEach(t, testWholeWay) }

func testWholeWay(t *testing.T, b rig.Broker, e rig.Engine) {
	const shards, size = 5, 5
	dir := t.TempDir()
	consumer, server := b.Launch(t, "DATA_OUTPUT_DIR="+dir)
	ids := server.PostAll(e.Submissions, 7)

	rig.Eventually(t, "every message in a file", func() error {
		if n, example := rig.ReadTree(t, dir, shards, size).Missing(ids); n > 0 {
			return fmt.Errorf("%d missing, one is %s", n, example)
		}
		return nil
	})
	if code := server.Stop(); code != 0 {
		t.Errorf("server exits %d", code)
	}
	if code := consumer.Stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}

	tr := rig.ReadTree(t, dir, shards, size)
	want := 7 * e.Submissions
	if len(ids) != want || len(tr.Lines) != want {
		t.Errorf("%d ids accepted and %d in files, want %d", len(ids), len(tr.Lines), want)
	}
	if n, example := tr.Twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
	if left := rig.Temporary(t, dir); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}

	records := consumer.History()
	byWorker := make(map[string]int)
	incomplete := 0
	for _, f := range tr.Files {
		byWorker[f.Worker] += f.Lines
		if f.Lines < size {
			incomplete++
		}
		if _, ok := records[f.Worker]; !ok {
			t.Errorf("%s has no worker in the history", f.Name)
		}
	}
	sum := 0
	for id, r := range records {
		sum += r.Messages
		if r.State != "stopped" || byWorker[id] != r.Messages {
			t.Errorf("worker %s: %s with %d messages, its files hold %d", id, r.State, r.Messages, byWorker[id])
		}
	}
	if sum != want {
		t.Errorf("the history adds up to %d messages, want %d", sum, want)
	}
	// Only the linger and the drain let an incomplete batch go; under this
	// load they are exceptions.
	if incomplete > len(tr.Files)/10 {
		t.Errorf("%d of %d files are incomplete", incomplete, len(tr.Files))
	}
	for _, p := range []*rig.Process{server, consumer} {
		if found := p.Errors(); len(found) > 0 {
			t.Errorf("errors in the log: %q", found)
		}
	}
}

// TestLinger: one entry alone does not wait for four others.
func TestLinger(t *testing.T) { rig.OnEach(t, testLinger) }

func testLinger(t *testing.T, b rig.Broker, _ rig.Engine) {
	dir := t.TempDir()
	_, server := b.Launch(t, "DATA_OUTPUT_DIR="+dir)
	_, r, _ := server.Post(`[ { "timestamp": "2019-10-12T08:10:54.52Z", "value": "F", "n": 1e400 } ]`)
	want := `{"message_id":"` + r.ID + `.0","timestamp":"2019-10-12T08:10:54.52Z","value":"F","n":1e400}`
	rig.Eventually(t, "the entry in a file", func() error {
		lines := rig.ReadTree(t, dir, 5, 5).Lines[r.ID+".0"]
		if len(lines) != 1 || lines[0] != want {
			return fmt.Errorf("got %q, want %q", lines, want)
		}
		return nil
	})
}

// TestDrainFlushes: an incomplete batch that would linger for minutes is in a
// file when the process has drained.
func TestDrainFlushes(t *testing.T) { rig.OnEach(t, testDrainFlushes) }

func testDrainFlushes(t *testing.T, b rig.Broker, _ rig.Engine) {
	dir := t.TempDir()
	consumer, server := b.Launch(t, "DATA_OUTPUT_DIR="+dir, "BATCH_LINGER=10m", "SHARDS_COUNT=1")
	// The eight messages are one envelope: when the full batch is written, the
	// other three are in the next one.
	_, r, _ := server.Post(rig.Entries(0, 8))
	consumer.Await("the full batch", func(l rig.Line) bool { return l.Message == "batch written" })
	if code := consumer.Stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}
	tr := rig.ReadTree(t, dir, 1, 5)
	if n, example := tr.Missing(r.IDs()); n > 0 {
		t.Errorf("%d messages were not flushed, one is %s", n, example)
	}
	if len(tr.Files) != 2 {
		t.Errorf("%d files, want one of five and one of three lines", len(tr.Files))
	}
}

// TestElasticPool: a backlog makes a pool grow to its maximum and not beyond;
// the history says why.
func TestElasticPool(t *testing.T) { rig.OnBoth(t, testElasticPool) }

func testElasticPool(t *testing.T, b rig.Broker) {
	dir := t.TempDir()
	server := b.LaunchServer(t, "SHARDS_COUNT=1")
	ids := server.PostAll(20, 500)
	consumer := b.LaunchConsumer(t, "DATA_OUTPUT_DIR="+dir, "SHARDS_COUNT=1")
	consumer.Await("a fourth worker", func(l rig.Line) bool {
		return l.Message == "worker started" && strings.Contains(l.Reason, "batches wait")
	})
	consumer.Await("a worker retired", func(l rig.Line) bool {
		return l.Message == "worker stopped" && l.Reason == "idle"
	})
	if code := consumer.Stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}
	if n, example := rig.ReadTree(t, dir, 1, 5).Missing(ids); n > 0 {
		t.Errorf("%d messages are missing, one is %s", n, example)
	}
	alive, most := 0, 0
	for _, l := range consumer.Lines() {
		switch l.Message {
		case "worker started":
			alive++
		case "worker stopped":
			alive--
		}
		most = max(most, alive)
	}
	if most != 4 || alive != 0 {
		t.Errorf("at most %d workers at a time and %d at the end, want 4 and 0", most, alive)
	}
}

// TestDrainDeadline: a broker that does not answer makes the drain run into its
// deadline; exit 3. What was in hand is in a file, and in no second one after
// the broker has come back and delivered it again.
func TestDrainDeadline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := rig.NewNATS(t)
	consumer := b.LaunchConsumer(t, "DATA_OUTPUT_DIR="+dir, "DRAIN_TIMEOUT=200ms", "BATCH_LINGER=10m", "SHARDS_COUNT=1")
	server := b.LaunchServer(t, "SHARDS_COUNT=1")
	_, r, _ := server.Post(rig.Entries(0, 8))
	consumer.Await("the full batch", func(l rig.Line) bool { return l.Message == "batch written" })
	b.Stall()
	if code := consumer.Stop(); code != exitDeadline {
		t.Errorf("exit %d, want %d", code, exitDeadline)
	}
	b.Stop()
	b.Start()
	b.LaunchConsumer(t, "DATA_OUTPUT_DIR="+dir, "SHARDS_COUNT=1")
	rig.Eventually(t, "every accepted message in a file", func() error {
		if n, example := rig.ReadTree(t, dir, 1, 5).Missing(r.IDs()); n > 0 {
			return fmt.Errorf("%d missing, one is %s", n, example)
		}
		return nil
	})
	if n, example := rig.ReadTree(t, dir, 1, 5).Twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
}

// TestNoBroker: without a broker both processes are up, not ready, and stop
// cleanly; the server answers 503.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	const nowhere = "BROKER_URL=amqp://guest:hunter2@127.0.0.1:1/"
	server := rig.Start(t, "server", nowhere)
	consumer := rig.Start(t, "message-consumer", nowhere, "DATA_OUTPUT_DIR="+t.TempDir())
	status, _, header := server.Post(rig.Entries(0, 1))
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q", status, header.Get("Retry-After"))
	}
	for _, p := range []*rig.Process{server, consumer} {
		p.Await("the reason", func(l rig.Line) bool { return strings.Contains(l.Error, "refused") })
		if code := p.Stop(); code != 0 {
			t.Errorf("exit %d", code)
		}
		if strings.Contains(p.Dump(), "hunter2") {
			t.Errorf("the password is in the log:\n%s", p.Dump())
		}
	}
}
