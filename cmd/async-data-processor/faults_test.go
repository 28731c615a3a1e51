package main

import (
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// TestBrokerRestart: while the broker is away clients get 503 with Retry-After;
// when it is back everything goes on without a restart of ours. What was
// accepted is in a file once, although clients repeat what they do not know the
// outcome of, and the broker what it does not know to be settled.
func TestBrokerRestart(t *testing.T) {
	// An embedded broker goes with its process: TestKilled.
	for name, open := range map[string]func(testing.TB) rig.Broker{"rabbitmq": rig.NewNode, "jetstream": rig.NewNATS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testBrokerRestart(t, open(t))
		})
	}
}

func testBrokerRestart(t *testing.T, b rig.Broker) {
	dir := t.TempDir()
	consumer, server := b.Launch(t, "DATA_OUTPUT_DIR="+dir)

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
				status, r, header := server.Post(rig.Entries(i*7, 7), "Idempotency-Key", fmt.Sprint(i))
				if status == http.StatusServiceUnavailable {
					time.Sleep(50 * time.Millisecond) // as a client would that is told to retry
				}
				mu.Lock()
				switch status {
				case http.StatusCreated:
					accepted = append(accepted, r.IDs()...)
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
		rig.Eventually(t, what, func() error {
			mu.Lock()
			defer mu.Unlock()
			if now := count(); now < goal {
				return fmt.Errorf("%d, want %d", now, goal)
			}
			return nil
		})
	}
	more("submissions accepted before", 700, func() int { return len(accepted) })
	b.Stop()
	more("submissions refused meanwhile", 10, func() int { return refused })
	b.Start()
	more("submissions accepted after", 700, func() int { return len(accepted) })
	close(stop)
	clients.Wait()

	server.Ready()
	consumer.Ready()
	if code := server.Stop(); code != 0 {
		t.Errorf("server exits %d", code)
	}
	rig.Eventually(t, "every accepted message in a file", func() error {
		if n, example := rig.ReadTree(t, dir, 5, 5).Missing(accepted); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(accepted), example)
		}
		return nil
	})
	if code := consumer.Stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}
	if n, example := rig.ReadTree(t, dir, 5, 5).Twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
	t.Logf("%d duplicates were kept out", consumer.Settled().Duplicates)
}

// TestRepeatedRequest: the same request with the same Idempotency-Key, several
// times at once and later again, is written once.
func TestRepeatedRequest(t *testing.T) { rig.OnEach(t, testRepeatedRequest) }

func testRepeatedRequest(t *testing.T, b rig.Broker, _ rig.Engine) {
	const keys, times, size = 10, 6, 7
	dir := t.TempDir()
	consumer, server := b.Launch(t, "DATA_OUTPUT_DIR="+dir)
	var mu sync.Mutex
	ids := make(map[string]bool)
	repeat := func() {
		var clients sync.WaitGroup
		for i := range keys * times {
			clients.Go(func() {
				status, r, _ := server.Post(rig.Entries(i%keys*size, size), "Idempotency-Key", fmt.Sprint("key-", i%keys))
				if status != http.StatusCreated || r.Accepted != size {
					t.Errorf("status %d, accepted %d", status, r.Accepted)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, id := range r.IDs() {
					ids[id] = true
				}
			})
		}
		clients.Wait()
	}
	for round := 1; round <= 2; round++ {
		repeat()
		want := round * keys * times * size
		rig.Eventually(t, "every message settled", func() error {
			if got := consumer.Settled(); got.Messages+got.Duplicates != want {
				return fmt.Errorf("%d written and %d duplicates, want %d in all", got.Messages, got.Duplicates, want)
			}
			return nil
		})
	}
	if got := consumer.Settled(); got.Messages != keys*size || len(ids) != keys*size {
		t.Errorf("%d messages written of %d ids, want %d", got.Messages, len(ids), keys*size)
	}
	if code := server.Stop(); code != 0 {
		t.Errorf("server exits %d", code)
	}
	if code := consumer.Stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}
	tr := rig.ReadTree(t, dir, 5, 5)
	if n, example := tr.Twice(); n > 0 || len(tr.Lines) != keys*size {
		t.Errorf("%d ids in files, want %d; %d twice, one is %s", len(tr.Lines), keys*size, n, example)
	}
	var told int // the history accounts for the duplicates, too
	for _, r := range consumer.History() {
		told += r.Duplicates
	}
	if want := (2*times - 1) * keys * size; told != want {
		t.Errorf("the history tells of %d duplicates, want %d", told, want)
	}
}

// TestKilled: what a killed process had in hand is written by the next, once,
// and its temporary files are gone.
func TestKilled(t *testing.T) {
	rig.OnEach(t, func(t *testing.T, b rig.Broker, _ rig.Engine) { testKilled(t, b, 5) })
}

// TestKilledRolling: so it is with files that batches were appended to; the next
// process publishes them.
func TestKilledRolling(t *testing.T) {
	rig.OnEach(t, func(t *testing.T, b rig.Broker, _ rig.Engine) {
		testKilled(t, b, math.MaxInt, "ROLL_BYTES=4KiB", "ROLL_INTERVAL=5s")
	})
}

func testKilled(t *testing.T, b rig.Broker, size int, settings ...string) {
	dir := t.TempDir()
	settings = append(settings, "DATA_OUTPUT_DIR="+dir)
	var ids []string
	for range 3 {
		consumer, server := b.Launch(t, settings...)
		ids = append(ids, server.PostAll(50, 7)...)
		consumer.Await("a batch", func(l rig.Line) bool { return l.Message == "batch written" })
		consumer.Kill()
		server.Kill()
	}
	last, _ := b.Launch(t, settings...)
	rig.Eventually(t, "every accepted message in a file", func() error {
		if n, example := rig.ReadTree(t, dir, 5, size).Missing(ids); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(ids), example)
		}
		return nil
	})
	if code := last.Stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	hidden, err := filepath.Glob(filepath.Join(dir, "shard-*", ".*.rolling"))
	if left := append(rig.Temporary(t, dir), hidden...); len(left) > 0 || err != nil {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
	if n, example := rig.ReadTree(t, dir, 5, size).Twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
	t.Logf("%d duplicates were kept out", last.Settled().Duplicates)
}

// TestStandby: a second consumer of the same folder waits, and takes over when
// the first is killed in the middle of its work.
func TestStandby(t *testing.T) { rig.OnBoth(t, testStandby) }

func testStandby(t *testing.T, b rig.Broker) {
	dir := t.TempDir()
	setting := "DATA_OUTPUT_DIR=" + dir
	first := b.LaunchConsumer(t, setting)
	for n := range 5 {
		first.Await("its shards", func(l rig.Line) bool { return l.Message == "shard owned" && l.Shard == n })
	}
	second := rig.Start(t, "message-consumer", setting, "BROKER_URL="+b.Consumer)
	second.Await("a standby", func(l rig.Line) bool { return strings.HasSuffix(l.Message, "standing by") })
	server := b.LaunchServer(t)
	ids := server.PostAll(40, 7)
	first.Await("a batch", func(l rig.Line) bool { return l.Message == "batch written" })
	first.Kill()
	for n := range 5 {
		second.Await("a take-over", func(l rig.Line) bool { return l.Message == "shard owned" && l.Shard == n })
	}
	ids = append(ids, server.PostAll(10, 7)...)
	rig.Eventually(t, "every accepted message in a file", func() error {
		if n, example := rig.ReadTree(t, dir, 5, 5).Missing(ids); n > 0 {
			return fmt.Errorf("%d missing, one is %s", n, example)
		}
		return nil
	})
	if code := second.Stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if n, example := rig.ReadTree(t, dir, 5, 5).Twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
}
