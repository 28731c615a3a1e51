package pipeline

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/control"
	"async-data-processor/dashboard"
	"async-data-processor/event"
)

// neighbors are nodes in a bubble of synctest, over a bus in memory. One has all shards.
type neighbors struct {
	t      *testing.T
	memory *brokertest.Memory
	shards int
	began  time.Time
	ends   sync.WaitGroup
	stops  []func()

	mu    sync.Mutex // guards what follows
	state event.ShardState
	looks int // at the owner
}

func newNeighbors(t *testing.T, shards int) *neighbors {
	return &neighbors{t: t, memory: brokertest.NewMemory(1), shards: shards, began: time.Now(), state: event.ShardRunning}
}

// node starts a node, and returns its process with nothing but what the dashboard needs.
func (n *neighbors) node(name string, owner bool) *process {
	client := n.memory.Open(nil)
	p := &process{broker: client}
	cfg := control.Config{
		Bus: client, Name: name, Shards: n.shards, Events: func(event.Event) {},
		Backlogs: func(context.Context, int) (all []broker.Backlog, err error) {
			for shard := range n.shards {
				all = append(all, broker.Backlog{Shard: shard})
			}
			return all, nil
		},
		Part: func() control.Part { return control.Part{Checks: []control.Check{{Name: "broker", OK: true}}} },
	}
	if owner {
		cfg.Part = n.part
		cfg.Workers = func() (all []control.WorkerPart) {
			return workersOf([]event.Worker{{ID: "0-1", State: event.Idle, Started: n.began}})
		}
	}
	p.node = &neighbor{Node: control.New(cfg)}
	p.series = dashboard.NewSeries(dashboard.SeriesConfig{
		Bus: client, Node: p.node.ID, Others: p.node.Awaited, Numbers: func() dashboard.Numbers { return dashboard.Numbers{} },
	})
	p.commands = control.NewCommands(control.CommandConfig{Bus: client, Node: p.node.ID(), Nodes: p.node.Node, Shards: n.shards})
	p.feed = newFeed(p)
	ctx, stop := context.WithCancel(context.Background())
	n.stops = append(n.stops, stop)
	n.ends.Go(func() { p.series.Run(ctx) })
	n.ends.Go(func() {
		p.node.Run(ctx)
		_ = client.Close()
	})
	return p
}

// part is that of the owner, whose shards have nothing to do.
func (n *neighbors) part() (p control.Part) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looks++
	since := time.Since(n.began)
	p.Disk = &control.Disk{Folder: "/data", Free: 58_422_689_792 - int64(since/time.Millisecond), MinFree: 1 << 28}
	none := 0.0
	for shard := range n.shards {
		p.Shards = append(p.Shards, control.ShardPart{
			Shard: shard, State: n.state, Since: n.began, OldestAge: &none,
			IDs: 100_000 - int(since/time.Second), IDsAge: since.Seconds(), Workers: 3, WorkersMin: 3, WorkersMax: 4,
		})
	}
	return p
}

func (n *neighbors) end() {
	for _, stop := range n.stops {
		stop()
	}
	n.ends.Wait()
	_ = n.memory.Close()
}

// told is what a stream has told.
type toldText struct {
	header http.Header
	mu     sync.Mutex // guards text
	text   bytes.Buffer
}

func (t *toldText) Header() http.Header              { return t.header }
func (t *toldText) WriteHeader(int)                  {}
func (t *toldText) Flush()                           {}
func (t *toldText) SetReadDeadline(time.Time) error  { return nil }
func (t *toldText) SetWriteDeadline(time.Time) error { return nil }
func (t *toldText) Write(p []byte) (n int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

// take returns what was told since the last take.
func (t *toldText) take() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := t.text.String()
	t.text.Reset()
	return text
}

// stream opens a stream of a process until stop is called.
func stream(p *process, parts string) (told *toldText, stop func()) {
	told = &toldText{header: make(http.Header)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		p.feed.ServeHTTP(told, httptest.NewRequest(http.MethodGet, eventsPath+parts, nil).WithContext(ctx))
	})
	return told, func() {
		cancel()
		running.Wait()
	}
}

// TestFeedIdle: a stream of an idle system of 1,024 shards costs little, and without one no
// node is asked for anything.
func TestFeedIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNeighbors(t, 1024)
		n.node("owner", true)
		here := n.node("here", false)
		time.Sleep(10 * time.Second)
		told, stop := stream(here, "")
		time.Sleep(4 * time.Second)
		first := told.take()
		for _, want := range []string{`"part":"overview"`, `"part":"shards"`, `"part":"nodes"`, `"part":"workers"`, `"part":"commands"`, `"part":"series"`, `"shard":1023,"state":"running"`, `"worker":"0-1"`} {
			if !strings.Contains(first, want) {
				t.Errorf("it does not tell %s: %d bytes", want, len(first))
			}
		}
		const seconds = 20
		time.Sleep(seconds * time.Second)
		text := told.take()
		t.Logf("%d bytes in %d s", len(text), seconds)
		if len(text) > seconds*2000 {
			t.Errorf("%d bytes in %d s, want less than 2 kB/s: %.3000s", len(text), seconds, text)
		}
		stop()
		time.Sleep(time.Second)
		n.mu.Lock()
		n.looks = 0
		n.mu.Unlock()
		time.Sleep(seconds * time.Second)
		if n.looks != 0 {
			t.Errorf("without a stream the owner was asked %d times", n.looks)
		}
		n.end()
	})
}

// TestFeedTellsPause: what becomes of a shard is told by the stream of another node within a
// second, also while both answer requests.
func TestFeedTellsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNeighbors(t, 2)
		owner, here := n.node("owner", true), n.node("here", false)
		time.Sleep(10 * time.Second)
		told, stop := stream(here, "?parts=shards")
		ctx, quiet := context.WithCancel(context.Background())
		for i, p := range []*process{owner, here} {
			n.ends.Go(func() {
				for ctx.Err() == nil {
					p.node.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/v1/overview", nil))
					time.Sleep(time.Duration(97+40*i) * time.Millisecond)
				}
			})
		}
		for i := range 300 {
			time.Sleep(1537 * time.Millisecond)
			told.take()
			state := []event.ShardState{event.ShardPaused, event.ShardRunning}[i%2]
			n.mu.Lock()
			n.state = state
			n.mu.Unlock()
			time.Sleep(900 * time.Millisecond)
			if text := told.take(); !strings.Contains(text, `"shard":1,"state":"`+string(state)+`"`) {
				t.Fatalf("%d: that the shards are %s is not told within a second: %q", i, state, text)
			}
		}
		quiet()
		stop()
		n.end()
	})
}

// TestFeedOfAnotherNode: a command to one process is seen on the stream of another one, and
// so is who gave it, and why.
func TestFeedOfAnotherNode(t *testing.T) {
	w := newWorks(t, nil)
	cfg := w.cfg
	cfg.Listen = "127.0.0.1:0"
	addr, done := make(chan net.Addr, 1), make(chan error, 1)
	other := parts{server: true, ready: func(a net.Addr) { addr <- a }, openBroker: func(_ Config, events event.Sink) (broker.Broker, error) { return w.memory.Open(events), nil }}
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- other.run(ctx, cfg, zerolog.Nop()) }()
	base := "http://" + (<-addr).String()
	resp, err := http.Get(base + eventsPath + "?parts=shards,commands")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for in := bufio.NewReader(resp.Body); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}()
	until := func(what string, found func(line string) bool) {
		t.Helper()
		for timeout := time.After(patience); ; {
			select {
			case line, more := <-lines:
				if !more {
					t.Fatalf("the stream ended before it told %s", what)
				}
				if found(line) {
					return
				}
			case <-timeout:
				t.Fatalf("the stream does not tell %s", what)
			}
		}
	}
	running := make(map[float64]bool)
	until("that both shards run", func(line string) bool {
		var d struct {
			Rows []struct {
				Shard float64
				State string
			}
		}
		if data, is := strings.CutPrefix(line, "data: "); is && json.Unmarshal([]byte(data), &d) == nil {
			for _, r := range d.Rows {
				running[r.Shard] = r.State == "running"
			}
		}
		return running[0] && running[1]
	})
	if code, v := w.command(`{"verb":"pause","target":"shard:1","reason":"a <b>test</b>"}`); code != http.StatusOK {
		t.Fatal(code, v)
	}
	until("the pause", func(line string) bool {
		return strings.Contains(line, `{"shard":1,"state":"paused"`) && strings.Contains(line, `"why":"a \u003cb\u003etest\u003c/b\u003e"`)
	})
	if code, v := w.command(`{"id":"again","verb":"resume","target":"shard:1"}`); code != http.StatusOK {
		t.Fatal(code, v)
	}
	until("the command", func(line string) bool {
		return strings.Contains(line, `"part":"commands"`) && strings.Contains(line, `{"id":"again","verb":"resume","target":"shard:1"`) && strings.Contains(line, `"state":"done"`)
	})
	stop()
	until("a last word", func(line string) bool { return line == "data: {\"why\":\"drain\",\"retry_ms\":1000}\n" })
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}
