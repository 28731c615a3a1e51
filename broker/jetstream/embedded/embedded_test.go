package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/broker/jetstream"
	"async-data-processor/message"
)

// patience bounds what has to happen.
const patience = 2 * time.Minute

// The shard of all envelopes in these tests, by the client's names.
const (
	shardSubject  = "async-data-processor.shard.0"
	shardConsumer = "shard-0"
)

func configFor(dir string) Config {
	return Config{Dir: dir, Shards: 2, MinFree: 1}
}

// openBroker opens an embedded broker and waits until it is ready.
func openBroker(t testing.TB, cfg Config) *Broker {
	t.Helper()
	e, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	awaitReady(t, e)
	return e
}

func awaitReady(t testing.TB, e *Broker) {
	t.Helper()
	awaitTrue(t, func() error { return e.Ready() })
}

// awaitTrue asks until there is no error.
func awaitTrue(t testing.TB, ask func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("after %v: %v", patience, err)
		}
	}
}

// administer does what an operator would, on a connection of its own.
func administer(t testing.TB, b *Broker, do func(context.Context, natsjs.JetStream) error) {
	t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(b.running()), nats.Token(b.cfg.Token))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := natsjs.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := do(t.Context(), js); err != nil {
		t.Fatal(err)
	}
}

func closeBroker(t testing.TB, e *Broker) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// publishSome publishes n envelopes of shard 0 with bodies of the size, some
// at a time, and returns their ids.
func publishSome(t testing.TB, e *Broker, n, size int) map[string]bool {
	t.Helper()
	var (
		mu  sync.Mutex
		ids = map[string]bool{}
		wg  sync.WaitGroup
		gap = make(chan struct{}, 16)
	)
	for range n {
		gap <- struct{}{}
		wg.Go(func() {
			defer func() { <-gap }()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			id, err := publishOne(ctx, e, size)
			if err != nil {
				t.Errorf("Publish: %v", err)
				return
			}
			mu.Lock()
			ids[id] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	return ids
}

func publishOne(ctx context.Context, b broker.Broker, size int) (id string, err error) {
	id = message.NewID()
	body := id + strings.Repeat("x", max(size-len(id)-1, 0)) + "\n"
	return id, brokertest.Publish(ctx, b, message.Envelope{ID: id, Shard: 0, Count: 1, Body: []byte(body)})
}

// take receives envelopes of shard 0 until it has had all the wanted ones, and
// settles each. It fails if a body does not belong to its id.
func take(t testing.TB, b broker.Broker, want map[string]bool, o message.OutcomeKind) {
	t.Helper()
	left := map[string]bool{}
	for id := range want {
		left[id] = true
	}
	ctx, cancel := context.WithCancel(context.Background())
	deliveries := make(chan *message.Delivery)
	done := make(chan error, 1)
	go func() { done <- b.Consume(ctx, 0, 64, deliveries) }()
	limit := time.After(patience)
	for len(left) > 0 {
		select {
		case d := <-deliveries:
			if rest, ok := strings.CutPrefix(string(d.Body), d.ID); !ok || strings.TrimLeft(rest, "x") != "\n" {
				t.Errorf("%s has the body %.100q", d.ID, d.Body)
			}
			delete(left, d.ID)
			if err := d.Settle(message.Outcome{Kind: o}); err != nil && !errors.Is(err, broker.ErrStale) {
				t.Error(err)
			}
		case <-limit:
			t.Errorf("%d of %d envelopes did not come", len(left), len(want))
			left = nil
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestKeepsWhatItAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	e := openBroker(t, configFor(dir))
	ids := publishSome(t, e, 100, 100)
	closeBroker(t, e)
	closeBroker(t, e) // as good as once
	if _, err := publishOne(t.Context(), e, 1); !errors.Is(err, broker.ErrRejected) {
		t.Errorf("publish after Close: %v", err)
	}

	e = openBroker(t, configFor(dir))
	take(t, e, ids, message.Ack)
	closeBroker(t, e)

	e = openBroker(t, configFor(dir))
	awaitTrue(t, func() error {
		if n := e.depth(); n > 0 {
			return fmt.Errorf("%d messages are left", n)
		}
		return nil
	})
	take(t, e, publishSome(t, e, 3, 100), message.Ack)
}

// depth counts what is in the stream.
func (b *Broker) depth() uint64 {
	streams, _ := b.running().streams() // a test that needs one waits for it
	for _, s := range streams {
		if s.Name == jetstream.ShardStream {
			return s.State.Msgs
		}
	}
	return 0
}

func TestMaximumEnvelope(t *testing.T) {
	e := openBroker(t, configFor(t.TempDir()))
	take(t, e, publishSome(t, e, 3, message.MaxEnvelopeBytes), message.Ack)
}

// TestStartsSoon is far above the measured 10 and 100 ms, for slow
// machines and the race detector.
func TestStartsSoon(t *testing.T) {
	dir := t.TempDir()
	for _, what := range []string{"empty", "filled"} {
		begin := time.Now()
		e := openBroker(t, configFor(dir))
		took := time.Since(begin)
		t.Logf("%s: ready after %v", what, took)
		if took > 20*time.Second {
			t.Errorf("%s: ready after %v", what, took)
		}
		publishSome(t, e, 500, 1000)
		closeBroker(t, e)
	}
}

func TestConfigErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	for _, c := range []struct {
		name  string
		cfg   Config
		texts []string
		is    error
	}{
		{"no folder", Config{}, []string{"no folder"}, nil},
		{"a file", Config{Dir: file}, []string{file, "another folder"}, unix.ENOTDIR},
		{"below a file", Config{Dir: filepath.Join(file, "x")}, []string{file, "another folder"}, unix.ENOTDIR},
		{"no token", Config{Dir: dir, Listen: "localhost:0"}, []string{"token"}, nil},
		{"address taken", Config{Dir: dir, Listen: taken.Addr().String(), Token: "t"}, []string{taken.Addr().String()}, unix.EADDRINUSE},
		{"no port", Config{Dir: dir, Listen: "localhost", Token: "t"}, []string{`"localhost"`, "host:port"}, nil},
		{"no number", Config{Dir: dir, Listen: "localhost:nats", Token: "t"}, []string{"localhost:nats"}, nil},
		{"negative space", Config{Dir: dir, MinFree: -1}, []string{"-1"}, nil},
		{"no shards", Config{Dir: dir, Shards: -1}, []string{"shards"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.cfg.Shards == 0 {
				c.cfg.Shards = 1
			}
			e, err := Open(c.cfg)
			if err == nil {
				_ = e.Close()
				t.Fatal("no error")
			}
			for _, text := range c.texts {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q is not in %q", text, err)
				}
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
		})
	}
	// None of them holds the store.
	openBroker(t, configFor(dir))
}

func TestFolderForbidden(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() == 0 { // whom no mode stops
		out, err := childProcess(t, "stranger", filepath.Join(dir, "store")).Output()
		if err != nil {
			t.Fatal(err)
		}
		if text := string(out); !strings.Contains(text, filepath.Join(dir, "store")) || !strings.Contains(text, "permission denied") {
			t.Errorf("got %q", text)
		}
		return
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(configFor(dir)); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

func TestStoreInUse(t *testing.T) {
	dir := t.TempDir()
	lines, child, wait := startChild(t, "hold", dir)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("the child said %q", lines.Text())
	}
	_, err := Open(configFor(dir))
	if !errors.Is(err, ErrStoreInUse) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), fmt.Sprint("process ", child.Pid)) {
		t.Errorf("got %v", err)
	}
	if err := child.Kill(); err != nil { // its lock goes with it
		t.Fatal(err)
	}
	wait()
	e := openBroker(t, configFor(dir))
	if _, err := Open(configFor(dir)); !errors.Is(err, ErrStoreInUse) {
		t.Errorf("got %v", err)
	}
	closeBroker(t, e)
	openBroker(t, configFor(dir))
}

func TestListener(t *testing.T) {
	cfg := configFor(t.TempDir())
	cfg.Listen, cfg.Token = "127.0.0.1:0", "s3cret"
	e := openBroker(t, cfg)
	address := e.Addr().String()
	for _, user := range []string{"", "wrong@"} {
		c, err := nats.Connect("nats://" + user + address)
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("user %q: %v", user, err)
		}
		if err == nil {
			c.Close()
		}
	}
	// Another process publishes and consumes.
	other, err := jetstream.New(jetstream.Config{URL: "nats://s3cret@" + address, Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	awaitTrue(t, other.Ready)
	id, err := publishOne(t.Context(), other, 100)
	if err != nil {
		t.Fatal(err)
	}
	ids := publishSome(t, e, 10, 100)
	ids[id] = true
	take(t, other, ids, message.Ack)
	closeBroker(t, e)
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("the listener is still there")
	}
	if e.Addr() != nil {
		t.Error("a closed broker has an address")
	}
}

func TestHasNoListener(t *testing.T) {
	e := openBroker(t, configFor(t.TempDir()))
	if e.Addr() != nil || e.running().ClientURL() != "" && e.running().Addr() != nil {
		t.Error("it listens")
	}
}
