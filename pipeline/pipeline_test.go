package pipeline

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"async-data-processor/broker"
	"async-data-processor/consumer"
	"async-data-processor/dashboard/openapitest"
	"async-data-processor/event"
)

func TestMain(m *testing.M) {
	http.DefaultClient.Transport = exchanges
	goleak.VerifyTestMain(m)
}

// exchanges holds all that is asked with the default client to the description of the API.
var exchanges = &openapitest.Transport{Base: http.DefaultTransport}

// journal records what happens in which order.
type journal struct {
	mu    sync.Mutex
	steps []string
}

func (j *journal) add(step string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.steps = append(j.steps, step)
}

func (j *journal) so() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.steps)
}

// closing is a broker with Close alone.
type closing struct {
	broker.Broker
	journal *journal
}

func (c closing) Close() error {
	c.journal.add("broker closed")
	return nil
}

// part is a server or a consumer that works for a while after it is told to stop.
type part struct {
	journal *journal
	name    string
	finish  time.Duration // how long its drain takes; for ever if negative
	fail    error         // what its work fails with, at once
	stop    chan struct{} // closed by Shutdown
	failed  context.Context
}

func (p *part) Serve() error {
	if p.fail != nil {
		return p.fail
	}
	<-p.stop
	return nil
}

func (p *part) Drain() { p.journal.add(p.name + " not ready") }

func (p *part) Shutdown(work context.Context) error {
	defer close(p.stop)
	p.drain(work)
	return nil
}

func (p *part) Run(intake, work context.Context) error {
	if p.fail != nil {
		return p.fail
	}
	<-intake.Done()
	p.drain(work)
	return nil
}

func (p *part) drain(work context.Context) {
	if p.finish < 0 {
		<-work.Done()
		p.journal.add(p.name + " gave up")
		return
	}
	time.Sleep(p.finish)
	p.journal.add(p.name + " drained")
}

func (p *part) Failed() context.Context { return p.failed }
func (*part) History() []event.Worker   { return nil }
func (*part) Status() consumer.Status   { return nil }

// TestRun: parts drain one after the other, the broker is closed last.
func TestRun(t *testing.T) {
	errBroken := errors.New("broken")
	for name, tc := range map[string]struct {
		server, consumer part
		err              error
		steps            []string
	}{
		"a clean drain": {
			server: part{finish: 2 * time.Second}, consumer: part{finish: time.Second},
			steps: []string{"admin not ready", "server drained", "consumer drained", "admin drained", "broker closed", "freed"},
		},
		"a server that fails": {
			server: part{fail: errBroken}, consumer: part{finish: time.Second}, err: errBroken,
			steps: []string{"admin not ready", "server drained", "consumer drained", "admin drained", "broker closed", "freed"},
		},
		"a consumer that fails": {
			consumer: part{fail: errBroken}, err: errBroken,
			steps: []string{"admin not ready", "server drained", "admin drained", "broker closed", "freed"},
		},
		"the deadline makes them give up": {
			consumer: part{finish: -1}, err: ErrDrainDeadline,
			steps: []string{"admin not ready", "server drained", "consumer gave up", "admin drained", "broker closed", "freed"},
		},
		"a part that hangs is left behind": {
			consumer: part{finish: time.Hour}, err: ErrDrainDeadline,
			steps: []string{"admin not ready", "server drained", "freed"},
		},
		"a part that hangs does not hide that the output failed": {
			consumer: part{fail: ErrOutputFailed}, server: part{finish: time.Hour}, err: ErrOutputFailed,
			steps: []string{"admin not ready", "freed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				ctx, signal := context.WithCancel(t.Context())
				time.AfterFunc(time.Minute, signal)
				p := process{
					cfg: DefaultConfig(), broker: closing{journal: &j},
					server: tc.server.named("server", &j), consumer: tc.consumer.named("consumer", &j), admin: part{}.named("admin", &j),
					closers: []func() error{func() error { j.add("freed"); return nil }},
				}
				err := p.run(ctx)
				if !errors.Is(err, tc.err) {
					t.Errorf("error %v, want %v", err, tc.err)
				}
				if steps := j.so(); !slices.Equal(steps, tc.steps) {
					t.Errorf("steps %q, want %q", steps, tc.steps)
				}
				signal()
				time.Sleep(2 * time.Hour) // for what was left behind
			})
		})
	}
}

func (p part) named(name string, j *journal) *part {
	p.name, p.journal, p.stop, p.failed = name, j, make(chan struct{}), context.Background()
	return &p
}

// TestBuildFails: what a failed start has opened is closed.
func TestBuildFails(t *testing.T) {
	var j journal
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := DefaultConfig()
	cfg.Listen, cfg.AdminListen, cfg.OutputDir = "127.0.0.1:0", l.Addr().String(), t.TempDir()
	p := parts{
		consumer: true, server: true, admin: true,
		openBroker: func(Config, event.Sink) (broker.Broker, error) { return closing{journal: &j}, nil },
	}
	err = p.run(t.Context(), cfg, zerolog.Nop())
	if err == nil || !strings.Contains(err.Error(), "--admin-listen") || !slices.Equal(j.so(), []string{"broker closed"}) {
		t.Errorf("error %v after %q", err, j.so())
	}
}
