package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// entries returns a JSON array of n entries with times of their own.
func entries(from, n int) string {
	start := time.Date(2019, 10, 12, 8, 10, 54, 0, time.UTC)
	parts := make([]string, n)
	for i := range parts {
		at := start.Add(time.Duration(from+i) * 250 * time.Millisecond)
		parts[i] = fmt.Sprintf(`{"timestamp":%q,"value":"v%d"}`, at.Format(time.RFC3339Nano), from+i)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// postAll posts submissions of size entries each from several clients at once
// and returns the ids of what was accepted. Every answer must be 201.
func postAll(t *testing.T, p *process, submissions, size int) []string {
	t.Helper()
	const clients = 8
	var (
		mu  sync.Mutex
		ids []string
		wg  sync.WaitGroup
	)
	for c := range clients {
		wg.Go(func() {
			for i := c; i < submissions; i += clients {
				status, r, _ := p.post(entries(i*size, size))
				if status != http.StatusCreated || r.Accepted != size {
					t.Errorf("submission %d: status %d, accepted %d", i, status, r.Accepted)
				}
				mu.Lock()
				ids = append(ids, r.ids()...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ids
}

// TestWholeWay is the main job: many submissions of seven entries become files,
// each entry once, and the history accounts for all of them.
func TestWholeWay(t *testing.T) { onEach(t, testWholeWay) }

func testWholeWay(t *testing.T, b engineBroker, e engine) {
	const shards, size = 5, 5
	dir := t.TempDir()
	consumer, server := b.launch(t, "DATA_OUTPUT_DIR="+dir)
	ids := postAll(t, server, e.submissions, 7)

	eventually(t, "every message in a file", func() error {
		if n, example := readTree(t, dir, shards, size).missing(ids); n > 0 {
			return fmt.Errorf("%d missing, one is %s", n, example)
		}
		return nil
	})
	if code := server.stop(); code != 0 {
		t.Errorf("server exits %d", code)
	}
	if code := consumer.stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}

	tr := readTree(t, dir, shards, size)
	want := 7 * e.submissions
	if len(ids) != want || len(tr.lines) != want {
		t.Errorf("%d ids accepted and %d in files, want %d", len(ids), len(tr.lines), want)
	}
	if n, example := tr.twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
	if left := temporary(t, dir); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}

	records := consumer.history()
	byWorker := make(map[string]int)
	incomplete := 0
	for _, f := range tr.files {
		byWorker[f.worker] += f.lines
		if f.lines < size {
			incomplete++
		}
		if _, ok := records[f.worker]; !ok {
			t.Errorf("%s has no worker in the history", f.name)
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
	if incomplete > len(tr.files)/10 {
		t.Errorf("%d of %d files are incomplete", incomplete, len(tr.files))
	}
	for _, p := range []*process{server, consumer} {
		if found := p.errors(); len(found) > 0 {
			t.Errorf("errors in the log: %q", found)
		}
	}
}

// TestLinger: one entry alone does not wait for four others.
func TestLinger(t *testing.T) { onEach(t, testLinger) }

func testLinger(t *testing.T, b engineBroker, _ engine) {
	dir := t.TempDir()
	_, server := b.launch(t, "DATA_OUTPUT_DIR="+dir)
	_, r, _ := server.post(`[ { "timestamp": "2019-10-12T08:10:54.52Z", "value": "F", "n": 1e400 } ]`)
	want := `{"message_id":"` + r.ID + `.0","timestamp":"2019-10-12T08:10:54.52Z","value":"F","n":1e400}`
	eventually(t, "the entry in a file", func() error {
		lines := readTree(t, dir, 5, 5).lines[r.ID+".0"]
		if len(lines) != 1 || lines[0] != want {
			return fmt.Errorf("got %q, want %q", lines, want)
		}
		return nil
	})
}

// TestDrainFlushes: an incomplete batch that would linger for minutes is in a
// file when the process has drained.
func TestDrainFlushes(t *testing.T) { onEach(t, testDrainFlushes) }

func testDrainFlushes(t *testing.T, b engineBroker, _ engine) {
	dir := t.TempDir()
	consumer, server := b.launch(t, "DATA_OUTPUT_DIR="+dir, "BATCH_LINGER=10m", "SHARDS_COUNT=1")
	// The eight messages are one envelope: when the full batch is written, the
	// other three are in the next one.
	_, r, _ := server.post(entries(0, 8))
	consumer.await("the full batch", func(l logLine) bool { return l.Message == "batch written" })
	if code := consumer.stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}
	tr := readTree(t, dir, 1, 5)
	if n, example := tr.missing(r.ids()); n > 0 {
		t.Errorf("%d messages were not flushed, one is %s", n, example)
	}
	if len(tr.files) != 2 {
		t.Errorf("%d files, want one of five and one of three lines", len(tr.files))
	}
}

// TestElasticPool: a backlog makes a pool grow to its maximum and not beyond;
// the history says why.
func TestElasticPool(t *testing.T) { onBoth(t, testElasticPool) }

func testElasticPool(t *testing.T, b engineBroker) {
	dir := t.TempDir()
	server := b.launchServer(t, "SHARDS_COUNT=1")
	ids := postAll(t, server, 20, 500)
	consumer := b.launchConsumer(t, "DATA_OUTPUT_DIR="+dir, "SHARDS_COUNT=1")
	consumer.await("a fourth worker", func(l logLine) bool {
		return l.Message == "worker started" && strings.Contains(l.Reason, "batches wait")
	})
	consumer.await("a worker retired", func(l logLine) bool {
		return l.Message == "worker stopped" && l.Reason == "idle"
	})
	if code := consumer.stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}
	if n, example := readTree(t, dir, 1, 5).missing(ids); n > 0 {
		t.Errorf("%d messages are missing, one is %s", n, example)
	}
	alive, most := 0, 0
	for _, l := range consumer.lines {
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
	b := newNATS(t)
	consumer := b.launchConsumer(t, "DATA_OUTPUT_DIR="+dir, "DRAIN_TIMEOUT=200ms", "BATCH_LINGER=10m", "SHARDS_COUNT=1")
	server := b.launchServer(t, "SHARDS_COUNT=1")
	_, r, _ := server.post(entries(0, 8))
	consumer.await("the full batch", func(l logLine) bool { return l.Message == "batch written" })
	b.stall()
	if code := consumer.stop(); code != exitDeadline {
		t.Errorf("exit %d, want %d", code, exitDeadline)
	}
	b.stop()
	b.start()
	b.launchConsumer(t, "DATA_OUTPUT_DIR="+dir, "SHARDS_COUNT=1")
	eventually(t, "every accepted message in a file", func() error {
		if n, example := readTree(t, dir, 1, 5).missing(r.ids()); n > 0 {
			return fmt.Errorf("%d missing, one is %s", n, example)
		}
		return nil
	})
	if n, example := readTree(t, dir, 1, 5).twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
}

// TestNoBroker: without a broker both processes are up, not ready, and stop
// cleanly; the server answers 503.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	const nowhere = "BROKER_URL=amqp://guest:hunter2@127.0.0.1:1/"
	server := start(t, "server", nowhere)
	consumer := start(t, "message-consumer", nowhere, "DATA_OUTPUT_DIR="+t.TempDir())
	status, _, header := server.post(entries(0, 1))
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q", status, header.Get("Retry-After"))
	}
	for _, p := range []*process{server, consumer} {
		p.await("the reason", func(l logLine) bool { return strings.Contains(l.Error, "refused") })
		if code := p.stop(); code != 0 {
			t.Errorf("exit %d", code)
		}
		if strings.Contains(p.dump(), "hunter2") {
			t.Errorf("the password is in the log:\n%s", p.dump())
		}
	}
}
