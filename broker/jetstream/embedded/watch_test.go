package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/broker/jetstream"
	"async-data-processor/event"
	"async-data-processor/message"
)

// TestServerGivesUp lets the server switch JetStream off, as it does after some
// errors of the file system.
func TestServerGivesUp(t *testing.T) {
	e := openBroker(t, configFor(t.TempDir()))
	ids := publishSome(t, e, 10, 100)
	gone := e.running()
	if err := gone.ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	awaitTrue(t, func() error {
		if e.running() == gone {
			return errors.New("the server was not restarted")
		}
		return e.Ready()
	})
	for id := range publishSome(t, e, 10, 100) {
		ids[id] = true
	}
	take(t, e, ids, message.Ack)
}

// TestRestartFindsDamage: a restart checks the store like a start, and goes on
// when it was repaired.
func TestRestartFindsDamage(t *testing.T) {
	lost := make(chan event.Connection, 1000)
	cfg := configFor(t.TempDir())
	cfg.Events = func(e event.Event) {
		if c, ok := e.(event.Connection); ok && c.State == event.Lost && errors.Is(c.Err, ErrStoreDamaged) {
			lost <- c
		}
	}
	e := openBroker(t, cfg)
	ids := publishSome(t, e, 10, 100)
	im := image{dir: cfg.Dir}
	path := im.path(messagesName, "1.blk")
	edit(t, path, flip(200))
	if err := e.running().ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	if n := <-lost; n.Retry < minRestart || n.Retry > maxRestart || !strings.Contains(n.Err.Error(), path) {
		t.Errorf("got %v, retry in %v", n.Err, n.Retry)
	}
	if err := e.Ready(); err == nil {
		t.Error("ready without a store")
	}
	if _, err := publishOne(t.Context(), e, 100); !errors.Is(err, broker.ErrRejected) {
		t.Errorf("got %v", err)
	}
	edit(t, path, flip(200))
	awaitReady(t, e)
	take(t, e, ids, message.Ack)
}

// TestCloseWithoutServer closes while no server could be started.
func TestCloseWithoutServer(t *testing.T) {
	cfg := configFor(t.TempDir())
	e := openBroker(t, cfg)
	ids := publishSome(t, e, 10, 100)
	im := image{dir: cfg.Dir}
	path := im.path(messagesName, "1.blk")
	edit(t, path, flip(200))
	if err := e.running().ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	awaitTrue(t, func() error {
		if e.running() != nil {
			return errors.New("it still runs")
		}
		return nil
	})
	closeBroker(t, e)
	if _, err := Open(cfg); !errors.Is(err, ErrStoreDamaged) {
		t.Errorf("got %v", err)
	}
	edit(t, path, flip(200))
	take(t, openBroker(t, cfg), ids, message.Ack)
}

// TestStreamDeleted: an operator may delete a stream; the next start does not
// take that for damage.
func TestStreamDeleted(t *testing.T) {
	cfg := configFor(t.TempDir())
	e := openBroker(t, cfg)
	publishSome(t, e, 10, 100)
	awaitTrue(t, func() error {
		if e.store.readHighWaters()[jetstream.ShardStream] != 10 {
			return errors.New("no highWater yet")
		}
		return nil
	})
	administer(t, e, func(ctx context.Context, js natsjs.JetStream) error {
		return js.DeleteStream(ctx, jetstream.ShardStream)
	})
	closeBroker(t, e)
	e = openBroker(t, cfg)
	take(t, e, publishSome(t, e, 3, 100), message.Ack)
}

// TestStreamPurged: so may he empty it.
func TestStreamPurged(t *testing.T) {
	cfg := configFor(t.TempDir())
	e := openBroker(t, cfg)
	publishSome(t, e, 10, 100)
	administer(t, e, func(ctx context.Context, js natsjs.JetStream) error {
		stream, err := js.Stream(ctx, jetstream.ShardStream)
		if err != nil {
			return err
		}
		return stream.Purge(ctx)
	})
	closeBroker(t, e)
	e = openBroker(t, cfg)
	take(t, e, publishSome(t, e, 3, 100), message.Ack)
}

// TestStoreLayout: what lies in the folder is known to those who look after it.
func TestStoreLayout(t *testing.T) {
	cfg := configFor(t.TempDir())
	e := openBroker(t, cfg)
	publishSome(t, e, 1, 100)
	closeBroker(t, e)
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	want := []string{manifestName, "jetstream", lockName, highWaterPrefix + jetstream.ShardStream, highWaterPrefix + jetstream.DeadStream}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, streamsPath, jetstream.ShardStream, messagesName, "1"+blockSuffix)); err != nil {
		t.Error(err)
	}
}

// TestDiedWhileProbing: a file that the server makes and removes at its start is
// still there, and does not stop the next.
func TestDiedWhileProbing(t *testing.T) {
	dir := t.TempDir()
	e := openBroker(t, configFor(dir))
	probe := e.store.path(accountsPath, probePrefix+"4711")
	closeBroker(t, e)
	if err := os.WriteFile(probe, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	openBroker(t, configFor(dir))
	if _, err := os.Stat(probe); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", probe, err)
	}
}

// TestForeignStream: a stream that another program made, in memory or compressed,
// does not make the store look damaged at the next start.
func TestForeignStream(t *testing.T) {
	cfg := configFor(t.TempDir())
	e := openBroker(t, cfg)
	administer(t, e, func(ctx context.Context, js natsjs.JetStream) error {
		for name, more := range map[string]natsjs.StreamConfig{
			"memory":     {Storage: natsjs.MemoryStorage},
			"compressed": {Storage: natsjs.FileStorage, Compression: natsjs.S2Compression},
		} {
			more.Name, more.Subjects = name, []string{name}
			if _, err := js.CreateStream(ctx, more); err != nil {
				return err
			}
			if _, err := js.Publish(ctx, name, []byte("theirs")); err != nil {
				return err
			}
		}
		return nil
	})
	ids := publishSome(t, e, 5, 100)
	// The highWaters of this moment include all that there is.
	awaitTrue(t, func() error {
		if highWater := e.store.readHighWaters()[jetstream.ShardStream]; highWater != 5 {
			return fmt.Errorf("the highWater is %d, want 5", highWater)
		}
		return nil
	})
	closeBroker(t, e)
	take(t, openBroker(t, cfg), ids, message.Ack)
}
