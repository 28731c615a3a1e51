package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/broker"
	"async-data-processor/broker/jetstream"
	"async-data-processor/durable"
	"async-data-processor/event"
	"async-data-processor/message"
)

// inNamespace marks a process that may mount because it has its own user and
// mount namespaces.
const inNamespace = "EMBEDDED_TEST_NAMESPACE"

// smallDisk mounts a file system of the size for the test. Where that is not
// allowed the whole test runs again in a namespace in which it is; then ok is
// false and the outcome is known.
func smallDisk(t *testing.T, bytes int) (dir string, ok bool) {
	t.Helper()
	dir = t.TempDir()
	err := unix.Mount("none", dir, "tmpfs", 0, fmt.Sprint("size=", bytes))
	if err == nil {
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		return dir, true
	}
	if os.Getenv(inNamespace) != "" {
		t.Fatalf("cannot mount a small file system, run this test as root: %v", err)
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	c.Env = append(os.Environ(), inNamespace+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("cannot mount a small file system, run this test as root: %v\n%s", err, out)
	}
	return "", false
}

// fillDisk takes what is left of a disk, but for some bytes, and returns how to
// give it back.
func fillDisk(t *testing.T, dir string, but int64) (release func()) {
	t.Helper()
	free, err := durable.Free(dir)
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 4096)
	for range (free - but) / 4096 {
		_, err := f.Write(chunk)
		if errors.Is(err, unix.ENOSPC) {
			break // the broker has written meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() { remove(t, filler) }
}

// TestDiskRunsFull publishes until the disk is nearly full: refused at once,
// drained, and ready again by itself.
func TestDiskRunsFull(t *testing.T) {
	disk, ok := smallDisk(t, 32<<20)
	if !ok {
		return
	}
	cfg := configFor(filepath.Join(disk, "store"))
	cfg.MinFree = 12 << 20
	events := make(chan event.Event, 1000)
	cfg.Events = func(e event.Event) { events <- e }
	e := openBroker(t, cfg)
	ids := map[string]bool{}
	for {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		begin := time.Now()
		id, err := publishOne(ctx, e, 100<<10)
		cancel()
		if err == nil {
			ids[id] = true
			continue
		}
		if !errors.Is(err, broker.ErrRejected) || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), disk) {
			t.Errorf("got %v, want %v and %v", err, broker.ErrRejected, unix.ENOSPC)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("refused after %v", took)
		}
		break
	}
	if len(ids) < 20 {
		t.Errorf("refused after %d envelopes", len(ids))
	}
	if err := e.Ready(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Ready: %v", err)
	}
	take(t, e, ids, message.Ack) // frees the blocks
	awaitReady(t, e)
	take(t, e, publishSome(t, e, 3, 100<<10), message.Ack)
	closeBroker(t, e)
	close(events)
	var states []event.ConnectionState
	for e := range events {
		if c, ok := e.(event.Connection); ok {
			states = append(states, c.State)
		}
	}
	if !slices.Contains(states, event.Blocked) || !slices.Contains(states, event.Unblocked) {
		t.Errorf("states of the connections: %v", states)
	}
}

// TestDiskFullUnderTheServer lets the server itself meet the full disk, as
// publishers of other processes may do and anything else on the disk. The
// server is then in error until it is restarted, which happens by itself.
func TestDiskFullUnderTheServer(t *testing.T) {
	disk, ok := smallDisk(t, 32<<20)
	if !ok {
		return
	}
	cfg := configFor(filepath.Join(disk, "store"))
	cfg.Listen, cfg.Token = "127.0.0.1:0", "t"
	e := openBroker(t, cfg)
	ids := publishSome(t, e, 20, 10<<10)

	other, err := jetstream.New(jetstream.Config{URL: "nats://t@" + e.Addr().String(), Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	awaitTrue(t, other.Ready)
	release := fillDisk(t, disk, 0)
	for _, b := range []broker.Broker{e, other} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if _, err := publishOne(ctx, b, 100<<10); !errors.Is(err, broker.ErrRejected) && !errors.Is(err, broker.ErrUnknown) {
			t.Errorf("on a full disk: %v", err)
		}
		cancel()
	}
	awaitTrue(t, func() error {
		if err := e.Ready(); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("ready on a full disk: %w", err)
		}
		return nil
	})
	release()
	awaitReady(t, e)
	maps.Copy(ids, publishSome(t, e, 5, 10<<10))
	take(t, e, ids, message.Ack)
	awaitTrue(t, other.Ready)
	if _, err := publishOne(t.Context(), other, 100); err != nil {
		t.Errorf("another process, after all: %v", err)
	}
}

// TestDiskFullAtTheStart: what is there can be received, the rest waits for
// space.
func TestDiskFullAtTheStart(t *testing.T) {
	t.Parallel()
	disk, ok := smallDisk(t, 32<<20)
	if !ok {
		return
	}
	cfg := configFor(filepath.Join(disk, "store"))
	cfg.MinFree = 4 << 20
	e := openBroker(t, cfg)
	ids := publishSome(t, e, 20, 10<<10)
	take(t, e, ids, message.Return) // a consumer that is not made on the full disk
	closeBroker(t, e)
	release := fillDisk(t, disk, 0)

	e, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	take(t, e, ids, message.Return)
	if err := e.Ready(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Ready: %v", err)
	}
	if _, err := publishOne(t.Context(), e, 100); !errors.Is(err, broker.ErrRejected) {
		t.Errorf("Publish: %v", err)
	}
	release()
	awaitReady(t, e)
	// The limit of the store was made for the full disk.
	maps.Copy(ids, publishSome(t, e, 50, 100<<10))
	take(t, e, ids, message.Ack)
	closeBroker(t, e)
}
