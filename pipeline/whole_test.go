package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/broker/rabbitmq"
	"async-data-processor/event"
)

func TestWhole(t *testing.T) {
	w := newWorks(t, nil)
	if status := w.post(body("a", "b", "c", "d", "e", "f", "g")); status != http.StatusCreated {
		t.Errorf("status %d", status)
	}
	w.eventually("seven values in files", func() bool { return len(w.values()) == 7 })
	w.eventually("history", func() bool { return w.logged(`"message":"worker history"`) })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	for n := range w.cfg.Shards {
		if depth := w.memory.Depth(n); depth != 0 {
			t.Errorf("%d envelopes left in shard %d", depth, n)
		}
	}
}

// TestForeign: other people's messages are written, or kept apart with the
// reason, and the good ones behind them go on.
func TestForeign(t *testing.T) {
	w := newWorks(t, nil)
	w.memory.PublishForeign(0, "theirs", []byte(`{"timestamp":"2019-10-12T08:10:54Z","value":"foreign"}`))
	bad := []string{"", "not JSON", `{"value":"no timestamp"}`, `[1]`, `{"timestamp":"2019-10-12T08:10:54Z"} {}`}
	for i, text := range bad {
		w.memory.PublishForeign(0, fmt.Sprint("bad", i), []byte(text))
	}
	w.memory.PublishForeign(0, strings.Repeat("i", 256), []byte(`{"timestamp":"2019-10-12T08:10:54Z"}`))
	w.post(body("x", "y"))
	w.eventually("the good ones in files", func() bool { return len(w.values()) == 3 })
	w.eventually("the bad ones apart", func() bool { return len(w.memory.Dead()) == len(bad)+1 })
	for _, d := range w.memory.Dead() {
		if d.Reason == "" {
			t.Errorf("dead letter %q has no reason", d.ID)
		}
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestAgain: an envelope whose messages are in files is acknowledged and not
// written, no matter who sends it again; the log counts it.
func TestAgain(t *testing.T) {
	w := newWorks(t, func(cfg *Config) { cfg.Shards = 1 })
	text := []byte(`{"timestamp":"2019-10-12T08:10:54Z","value":"once"}`)
	for range 3 {
		w.memory.PublishForeign(0, "theirs", text)
	}
	w.eventually("all three acknowledged", func() bool { return w.memory.Depth(0) == 0 })
	w.memory.PublishForeign(0, "theirs", text)
	w.memory.PublishForeign(0, "another", text)
	w.eventually("five acknowledged", func() bool { return w.memory.Depth(0) == 0 && len(w.values()) >= 2 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if got := w.values(); len(got) != 2 {
		t.Errorf("%d messages in files, want 2", len(got))
	}
	if !w.logged(`"message":"duplicates not written again"`) {
		t.Errorf("nothing is told of the duplicates:\n%s", &w.log)
	}
}

// TestEqualForeign: equal messages of other programs are one, unless each has an
// id. Without one nothing tells a second message from the first, delivered again.
func TestEqualForeign(t *testing.T) {
	w := newWorks(t, func(cfg *Config) { cfg.Shards = 1 })
	text := []byte(`{"timestamp":"2019-10-12T08:10:54Z","value":"equal"}`)
	for _, id := range []string{"", "", "one", "two"} {
		w.memory.PublishForeign(0, id, text)
	}
	w.memory.PublishForeign(0, "", append([]byte(" "), text...)) // equal are the bytes
	w.eventually("all acknowledged", func() bool { return w.memory.Depth(0) == 0 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if got := w.values(); len(got) != 4 || len(w.memory.Dead()) > 0 {
		t.Errorf("%d messages in files and %d dead, want 4 and none", len(got), len(w.memory.Dead()))
	}
	if !w.logged(`"message":"duplicates not written again"`) {
		t.Errorf("nothing is told of the one left out:\n%s", &w.log)
	}
}

// TestLostFolder: a shard's folder that is removed under the process is made
// and owned anew, and what could not be written to the old one is written.
func TestLostFolder(t *testing.T) {
	w := newWorks(t, func(cfg *Config) { cfg.Shards = 1 })
	w.post(body("first"))
	w.eventually("the first value", func() bool { return len(w.values()) == 1 })
	if err := os.RemoveAll(filepath.Join(w.cfg.OutputDir, "shard-0")); err != nil {
		t.Fatal(err)
	}
	w.post(body("a", "b", "c"))
	w.eventually("the values behind it", func() bool { return len(w.values()) == 3 })
	w.eventually("being ready again", func() bool {
		status, _ := w.status("/readyz")
		return status == http.StatusOK
	})
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if depth := w.memory.Depth(0); depth != 0 {
		t.Errorf("%d envelopes left", depth)
	}
	// The workers on the new folder go on in the numbers of the old ones.
	if !w.logged(`"worker":"0-4"`) {
		t.Errorf("no fourth worker; the log:\n%s", &w.log)
	}
}

// TestStandbyIsNotReady: a process whose shards another one owns does not
// say that it is ready, and stops all the same.
func TestStandbyIsNotReady(t *testing.T) {
	owner := newWorks(t, nil)
	memory := brokertest.NewMemory(owner.cfg.Shards)
	ctx, signal := context.WithCancel(t.Context())
	var log works
	standby := parts{
		consumer: true, server: true,
		ready:      func(net.Addr) { t.Error("a standby says that it is ready") },
		openBroker: func(Config, event.Sink) (broker.Broker, error) { return memory, nil },
	}
	done := make(chan error, 1)
	go func() { done <- standby.run(ctx, owner.cfg, zerolog.New(&log)) }()
	owner.eventually("a standby", func() bool { return log.logged("standing by") })
	signal()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := owner.stop(); err != nil {
		t.Error(err)
	}
}

// TestSignalDuringOpen: a process that is told to stop while its broker opens
// does not wait for that.
func TestSignalDuringOpen(t *testing.T) {
	ctx, signal := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	p := parts{server: true, openBroker: func(Config, event.Sink) (broker.Broker, error) {
		signal()
		<-release
		return nil, nil
	}}
	if err := p.run(ctx, DefaultConfig(), zerolog.Nop()); err != nil {
		t.Error(err)
	}
}

// TestOneEngine: of the engines only the chosen one runs.
func TestOneEngine(t *testing.T) {
	cfg := DefaultConfig()
	cfg.BrokerURL = "amqp://guest:guest@127.0.0.1:1/"
	b, err := openBroker(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if _, ok := b.(*rabbitmq.Broker); !ok || bytes.Contains(stacks, []byte("nats-io")) {
		t.Errorf("%T runs over amqp://:\n%s", b, stacks)
	}
}

// TestLostBroker: the process is not ready while the broker is away, answers
// 503, and goes on when it is back.
func TestLostBroker(t *testing.T) {
	w := newWorks(t, nil)
	w.memory.Stop()
	if status := w.post(body("refused")); status != http.StatusServiceUnavailable {
		t.Errorf("status %d without a broker", status)
	}
	if status, text := w.status("/readyz?verbose"); status != http.StatusServiceUnavailable || !strings.Contains(text, "broker") {
		t.Errorf("readyz %d: %s", status, text)
	}
	w.memory.Start()
	w.memory.FailPublish(brokertest.Saved)
	if status := w.post(body("unknown")); status != http.StatusServiceUnavailable {
		t.Errorf("status %d for an unknown outcome", status)
	}
	if status := w.post(body("accepted")); status != http.StatusCreated {
		t.Errorf("status %d with the broker back", status)
	}
	w.eventually("both values", func() bool {
		text := strings.Join(w.values(), " ")
		return strings.Contains(text, "accepted") && strings.Contains(text, "unknown") && !strings.Contains(text, "refused")
	})
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

func TestDemo(t *testing.T) {
	w := newWorksWith(t, wraps{demo: true}, func(cfg *Config) {
		cfg.AuthTokens, cfg.TimestampField = []string{"demo:secret"}, "/event/time"
	})
	w.eventually("demo entries in files", func() bool { return len(w.values()) > 0 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if w.logged("secret") {
		t.Error("the token is in the log")
	}
}

// TestTakenAddress: a failure to start is early, names the setting, and leaves
// nothing behind.
func TestTakenAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := DefaultConfig()
	cfg.BrokerURL = "amqp://guest:guest@127.0.0.1:1/"
	cfg.Listen, cfg.AdminListen, cfg.OutputDir = l.Addr().String(), l.Addr().String(), t.TempDir()
	if err := Serve(t.Context(), cfg, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("Serve: %v", err)
	}
	if err := Consume(t.Context(), cfg, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "--admin-listen") {
		t.Errorf("Consume: %v", err)
	}
	cfg.OutputDir = filepath.Join(cfg.OutputDir, "file")
	if err := os.WriteFile(cfg.OutputDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Consume(t.Context(), cfg, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "--output-dir") {
		t.Errorf("Consume: %v", err)
	}
}
