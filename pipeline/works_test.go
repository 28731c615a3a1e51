package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/consumer"
	"async-data-processor/event"
	"async-data-processor/output"
)

// patience bounds the waits of these tests; only one that fails uses it up.
const patience = 2 * time.Minute

// works is a whole pipeline in this process, over a broker in memory.
type works struct {
	t      *testing.T
	memory *brokertest.Memory
	cfg    Config
	signal context.CancelFunc
	done   chan error
	base   string // of the server's URLs

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

func (w *works) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *works) logged(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.log.String(), text)
}

// newWorks starts a standalone pipeline and waits until it is ready.
func newWorks(t *testing.T, change func(*Config)) *works {
	t.Helper()
	return newWorksWith(t, wraps{}, change)
}

// wraps is what a test puts around parts of the pipeline.
type wraps struct {
	broker func(broker.Broker) broker.Broker
	folder func(consumer.Folder) consumer.Folder
	demo   bool
	// unready does not wait until it is ready, only until it listens.
	unready bool
}

func newWorksWith(t *testing.T, around wraps, change func(*Config)) *works {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Listen, cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.OutputDir = t.TempDir()
	cfg.BatchLinger = 20 * time.Millisecond
	cfg.HistoryInterval = 10 * time.Millisecond
	cfg.Shards = 2
	if change != nil {
		change(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	w := &works{t: t, memory: brokertest.NewMemory(cfg.Shards), cfg: cfg, done: make(chan error, 1)}
	addr := make(chan net.Addr, 1)
	p := parts{
		consumer: true, server: true, admin: true, show: Show{Demo: around.demo},
		ready: func(a net.Addr) { addr <- a },
		openBroker: func(_ Config, events event.Sink) (broker.Broker, error) {
			if around.broker != nil {
				return around.broker(w.memory.Open(events)), nil
			}
			return w.memory.Open(events), nil
		},
	}
	if around.folder != nil {
		p.openFolder = func(dir *output.Dir) openFolder {
			return func(ctx context.Context, n int, onStandby func()) (consumer.Folder, error) {
				f, err := dir.Shard(ctx, n, onStandby)
				if err != nil {
					return nil, err
				}
				return around.folder(f), nil
			}
		}
	}
	ctx, signal := context.WithCancel(t.Context())
	w.signal = signal
	go func() { w.done <- p.run(ctx, cfg, zerolog.New(w)) }()
	t.Cleanup(func() {
		signal()
		http.DefaultClient.CloseIdleConnections()
		for _, err := range exchanges.Wrong() { // of one of the tests that run
			t.Error(err)
		}
	})
	if around.unready {
		w.eventually("listener", func() bool { w.base = w.baseOf("server started"); return w.base != "" })
		return w
	}
	select {
	case a := <-addr:
		w.base = "http://" + a.String()
	case err := <-w.done:
		t.Fatalf("it stopped: %v", err)
	case <-time.After(patience):
		t.Fatal("it is not ready")
	}
	return w
}

// baseOf returns the base of the URLs of what has started, as that line of the log says; ""
// before it has.
func (w *works) baseOf(started string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range bytes.Lines(w.log.Bytes()) {
		var l struct{ Message, Addr string }
		if err := json.Unmarshal(line, &l); err == nil && l.Message == started {
			return "http://" + l.Addr
		}
	}
	return ""
}

// adminBase is the base of the URLs of what listens beside the server.
func (w *works) adminBase() string {
	base := w.baseOf("health endpoints started")
	if base == "" {
		w.t.Fatal("nothing listens beside the server")
	}
	return base
}

func (w *works) post(body string) int {
	w.t.Helper()
	answer, _ := w.ask("POST", w.base+"/message", "", body, "Content-Type", "application/json")
	return answer.StatusCode
}

// status is the answer to a GET.
func (w *works) status(path string) (int, string) {
	w.t.Helper()
	answer, text := w.ask("GET", w.base+path, "", "")
	return answer.StatusCode, text
}

// change sends a change.
func (w *works) change(method, url, token, body string) (int, string) {
	w.t.Helper()
	answer, text := w.ask(method, url, token, body)
	return answer.StatusCode, text
}

// request returns the status of a request, the cookies it sets, and what it is answered.
func (w *works) request(method, url, token string, cookies []*http.Cookie, header ...string) (int, []*http.Cookie, string) {
	w.t.Helper()
	for _, c := range cookies {
		header = append(header, "Cookie", c.Name+"="+c.Value)
	}
	answer, text := w.ask(method, url, token, "", header...)
	return answer.StatusCode, answer.Cookies(), text
}

// opens fails unless each token is answered a GET with its status.
func (w *works) opens(url string, tokens map[string]int) {
	w.t.Helper()
	for token, want := range tokens {
		if answer, text := w.ask("GET", url, token, ""); answer.StatusCode != want {
			w.t.Errorf("GET %s with %q: %d %s, want %d", url, token, answer.StatusCode, text, want)
		}
	}
}

// ask returns the answer to a request, and its body.
func (w *works) ask(method, url, token, body string, header ...string) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer, string(text)
}

// lines returns the values in the files.
func (w *works) values() (values []string) {
	w.t.Helper()
	paths, err := filepath.Glob(filepath.Join(w.cfg.OutputDir, "shard-*", "*.ndjson"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		for line := range bytes.Lines(content) {
			var m struct{ Value string }
			if err := json.Unmarshal(line, &m); err != nil {
				w.t.Fatalf("%s: %v", path, err)
			}
			values = append(values, m.Value)
		}
	}
	return values
}

// history returns the records of the workers, as logged last.
func (w *works) history() map[string]event.Worker {
	w.mu.Lock()
	defer w.mu.Unlock()
	records := make(map[string]event.Worker)
	for line := range bytes.Lines(w.log.Bytes()) {
		var l struct {
			Message, Worker, State string
			WhyStopped             string `json:"why_stopped"`
			Dead                   int64
		}
		if err := json.Unmarshal(line, &l); err != nil {
			w.t.Fatalf("%q: %v", line, err)
		}
		if l.Message == "worker history" {
			records[l.Worker] = event.Worker{State: event.State(l.State), WhyStopped: l.WhyStopped, Dead: l.Dead}
		}
	}
	return records
}

func (w *works) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("no %s; the log:\n%s", what, &w.log)
		}
	}
}

// stop drains the pipeline.
func (w *works) stop() error {
	w.t.Helper()
	w.signal()
	select {
	case err := <-w.done:
		return err
	case <-time.After(patience):
		w.t.Fatal("it does not stop")
		return nil
	}
}

func body(values ...string) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = fmt.Sprintf(`{"timestamp":"2019-10-12T08:10:%02dZ","value":%q}`, i%60, v)
	}
	return "[" + strings.Join(parts, ",") + "]"
}
