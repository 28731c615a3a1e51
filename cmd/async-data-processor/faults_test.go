package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestBrokerRestart: while the broker is away clients get 503 with Retry-After;
// when it is back everything goes on without a restart of ours. What was
// accepted is in a file once, although clients repeat what they do not know the
// outcome of, and the broker what it does not know to be settled.
func TestBrokerRestart(t *testing.T) {
	// An embedded broker goes with its process: TestKilled.
	for name, open := range map[string]func(*testing.T) engineBroker{"rabbitmq": newNode, "jetstream": newNATS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testBrokerRestart(t, open(t))
		})
	}
}

func testBrokerRestart(t *testing.T, b engineBroker) {
	dir := t.TempDir()
	consumer, server := b.launch(t, "DATA_OUTPUT_DIR="+dir)

	var (
		mu       sync.Mutex
		accepted []string
		refused  int
	)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for i := c; ; i += 4 {
				select {
				case <-stop:
					return
				default:
				}
				status, r, header := server.post(entries(i*7, 7), "Idempotency-Key", fmt.Sprint(i))
				if status == http.StatusServiceUnavailable {
					time.Sleep(50 * time.Millisecond) // as a client would that is told to retry
				}
				mu.Lock()
				switch status {
				case http.StatusCreated:
					accepted = append(accepted, r.ids()...)
				case http.StatusServiceUnavailable:
					refused++
					i -= 4 // the same again
					if _, err := strconv.Atoi(header.Get("Retry-After")); err != nil {
						t.Errorf("503 with Retry-After %q", header.Get("Retry-After"))
					}
				default:
					t.Errorf("status %d", status)
				}
				mu.Unlock()
			}
		})
	}
	// more waits until count has grown by n.
	more := func(what string, n int, count func() int) {
		t.Helper()
		mu.Lock()
		goal := count() + n
		mu.Unlock()
		eventually(t, what, func() error {
			mu.Lock()
			defer mu.Unlock()
			if now := count(); now < goal {
				return fmt.Errorf("%d, want %d", now, goal)
			}
			return nil
		})
	}
	more("submissions accepted before", 700, func() int { return len(accepted) })
	b.stop()
	more("submissions refused meanwhile", 10, func() int { return refused })
	b.start()
	more("submissions accepted after", 700, func() int { return len(accepted) })
	close(stop)
	clients.Wait()

	server.ready()
	consumer.ready()
	if code := server.stop(); code != 0 {
		t.Errorf("server exits %d", code)
	}
	eventually(t, "every accepted message in a file", func() error {
		if n, example := readTree(t, dir, 5, 5).missing(accepted); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(accepted), example)
		}
		return nil
	})
	if code := consumer.stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}
	if n, example := readTree(t, dir, 5, 5).twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
	t.Logf("%d duplicates were kept out", consumer.settled().Duplicates)
}

// TestRepeatedRequest: the same request with the same Idempotency-Key, several
// times at once and later again, is written once.
func TestRepeatedRequest(t *testing.T) { onEach(t, testRepeatedRequest) }

func testRepeatedRequest(t *testing.T, b engineBroker, _ engine) {
	const keys, times, size = 10, 6, 7
	dir := t.TempDir()
	consumer, server := b.launch(t, "DATA_OUTPUT_DIR="+dir)
	var mu sync.Mutex
	ids := make(map[string]bool)
	repeat := func() {
		var clients sync.WaitGroup
		for i := range keys * times {
			clients.Go(func() {
				status, r, _ := server.post(entries(i%keys*size, size), "Idempotency-Key", fmt.Sprint("key-", i%keys))
				if status != http.StatusCreated || r.Accepted != size {
					t.Errorf("status %d, accepted %d", status, r.Accepted)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, id := range r.ids() {
					ids[id] = true
				}
			})
		}
		clients.Wait()
	}
	for round := 1; round <= 2; round++ {
		repeat()
		want := round * keys * times * size
		eventually(t, "every message settled", func() error {
			if got := consumer.settled(); got.Messages+got.Duplicates != want {
				return fmt.Errorf("%d written and %d duplicates, want %d in all", got.Messages, got.Duplicates, want)
			}
			return nil
		})
	}
	if got := consumer.settled(); got.Messages != keys*size || len(ids) != keys*size {
		t.Errorf("%d messages written of %d ids, want %d", got.Messages, len(ids), keys*size)
	}
	if code := server.stop(); code != 0 {
		t.Errorf("server exits %d", code)
	}
	if code := consumer.stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}
	tr := readTree(t, dir, 5, 5)
	if n, example := tr.twice(); n > 0 || len(tr.lines) != keys*size {
		t.Errorf("%d ids in files, want %d; %d twice, one is %s", len(tr.lines), keys*size, n, example)
	}
	var told int // the history accounts for the duplicates, too
	for _, r := range consumer.history() {
		told += r.Duplicates
	}
	if want := (2*times - 1) * keys * size; told != want {
		t.Errorf("the history tells of %d duplicates, want %d", told, want)
	}
}

// TestKilled: what a killed process had in hand is written by the next, once,
// and its temporary files are gone.
func TestKilled(t *testing.T) { onEach(t, testKilled) }

func testKilled(t *testing.T, b engineBroker, _ engine) {
	dir := t.TempDir()
	setting := "DATA_OUTPUT_DIR=" + dir
	var ids []string
	for range 3 {
		consumer, server := b.launch(t, setting)
		ids = append(ids, postAll(t, server, 50, 7)...)
		consumer.await("a batch", func(l logLine) bool { return l.Message == "batch written" })
		consumer.kill()
		server.kill()
	}
	last, _ := b.launch(t, setting)
	eventually(t, "every accepted message in a file", func() error {
		if n, example := readTree(t, dir, 5, 5).missing(ids); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(ids), example)
		}
		return nil
	})
	if code := last.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if left := temporary(t, dir); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	if n, example := readTree(t, dir, 5, 5).twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
	t.Logf("%d duplicates were kept out", last.settled().Duplicates)
}

// TestStandby: a second consumer of the same folder waits, and takes over when
// the first is killed in the middle of its work.
func TestStandby(t *testing.T) { onBoth(t, testStandby) }

func testStandby(t *testing.T, b engineBroker) {
	dir := t.TempDir()
	setting := "DATA_OUTPUT_DIR=" + dir
	first := b.launchConsumer(t, setting)
	for n := range 5 {
		first.await("its shards", func(l logLine) bool { return l.Message == "shard owned" && l.Shard == n })
	}
	second := start(t, "message-consumer", setting, "BROKER_URL="+b.consumer)
	second.await("a standby", func(l logLine) bool { return strings.HasSuffix(l.Message, "standing by") })
	server := b.launchServer(t)
	ids := postAll(t, server, 40, 7)
	first.await("a batch", func(l logLine) bool { return l.Message == "batch written" })
	first.kill()
	for n := range 5 {
		second.await("a take-over", func(l logLine) bool { return l.Message == "shard owned" && l.Shard == n })
	}
	ids = append(ids, postAll(t, server, 10, 7)...)
	eventually(t, "every accepted message in a file", func() error {
		if n, example := readTree(t, dir, 5, 5).missing(ids); n > 0 {
			return fmt.Errorf("%d missing, one is %s", n, example)
		}
		return nil
	})
	if code := second.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if n, example := readTree(t, dir, 5, 5).twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
}
