package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/broker/door"
	"async-data-processor/broker/local"
	"async-data-processor/event"
)

// owner is a process that has the store in a folder, with n dead letters, and the
// dead letters as another program sees them.
func owner(t *testing.T, n int) (d DeadLetters, memory *brokertest.Memory, start func() (stop func())) {
	d, memory = lettersOf(t, n)
	dir, open := t.TempDir(), d.open
	d.Config.BrokerURL = "embedded://" + dir
	d.open = func(Config, event.Sink) (broker.Broker, error) { return nil, local.ErrInUse }
	return d, memory, func() func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- parts{openBroker: open}.run(ctx, d.Config, zerolog.Nop()) }()
		stop := func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(filepath.Join(dir, door.Name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket: %v, want none", err)
			}
		}
		return stop
	}
}

// TestDoor: while a process has the store, it is asked.
func TestDoor(t *testing.T) {
	d, memory, start := owner(t, 4)
	d.Timeout = time.Minute
	defer start()() // it may not listen yet
	var seen []string
	if err := d.Each(t.Context(), func(l DeadLetter) { seen = append(seen, l.Envelope.ID) }); err != nil || len(seen) != 4 {
		t.Errorf("seen %q, %v; want four", seen, err)
	}
	if n, err := d.Replay(t.Context(), func(l DeadLetter) bool { return l.Envelope.ID == "2" }); n != 1 || err != nil {
		t.Errorf("%d replayed, %v; want 1", n, err)
	}
	n, err := d.Replay(t.Context(), func(l DeadLetter) bool {
		if l.Envelope.ID == "1" {
			memory.Block("low on memory")
		}
		return true
	})
	if n != 1 || !errors.Is(err, broker.ErrRejected) || !strings.Contains(err.Error(), "low on memory") {
		t.Errorf("%d replayed, %v; want 1 and ErrRejected", n, err)
	}
	if n, err := d.Remove(t.Context(), func(DeadLetter) bool { return true }); n != 2 || err != nil {
		t.Errorf("%d removed, %v; want 2", n, err)
	}
	var queued []string
	for _, e := range memory.Stored(0) {
		queued = append(queued, e.ID)
	}
	if !slices.Equal(queued, []string{"2", "0"}) || len(left(memory)) > 0 {
		t.Errorf("%q are queued again and %q are left, want 2 and 0, and none", queued, left(memory))
	}
}

// TestDoorCloses: a stop waits for no client, and what that has not decided stays.
func TestDoorCloses(t *testing.T) {
	d, memory, start := owner(t, 4)
	d.Timeout = time.Minute
	stop := start()
	n, err := d.Remove(t.Context(), func(l DeadLetter) bool {
		if l.Envelope.ID == "2" {
			stop()
		}
		return true
	})
	if n != 2 || err == nil || !strings.Contains(err.Error(), "the process is stopping") {
		t.Errorf("%d removed, %v; want 2, and why not all", n, err)
	}
	if got := left(memory); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("%q are left, want 2 and 3", got)
	}
}

// TestNoDoor: a process that can have no socket runs, and others hear who has the store.
func TestNoDoor(t *testing.T) {
	d, _, start := owner(t, 1)
	socket := filepath.Join(strings.TrimPrefix(d.Config.BrokerURL, "embedded://"), door.Name)
	if err := os.MkdirAll(filepath.Join(socket, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	stop := start()
	d.Timeout = 200 * time.Millisecond
	if err := d.Each(t.Context(), func(DeadLetter) {}); !errors.Is(err, local.ErrInUse) {
		t.Errorf("%v, want ErrStoreInUse", err)
	}
	if err := os.RemoveAll(socket); err != nil {
		t.Error(err)
	}
	stop()
}
