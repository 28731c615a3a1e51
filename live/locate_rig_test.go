package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// whereabouts is what processes on one bus know of messages, by id.
type whereabouts struct {
	t      *testing.T
	shards int
	memory *brokertest.Memory

	mu      sync.Mutex // guards what follows
	at      map[string]Place
	owners  map[int]string // nodes, by shard
	servers []string
	forgot  map[int]time.Time
	files   map[string]InFile
	finds   int
	delay   time.Duration // of a search in files, which ends with its context
	hangs   time.Duration // the same, which does not
	queued  int
	trouble string
}

type locatorNode struct {
	*Locator
	receipts *Receipts
	end      func()
}

func newWhereabouts(t *testing.T, shards int) *whereabouts {
	time.Sleep(time.Until(time.Unix(0, 0).Add(firstTime + 24*time.Hour))) // the bubble's clock is behind
	p := &whereabouts{
		t: t, shards: shards, servers: []string{}, memory: brokertest.NewMemory(shards), at: make(map[string]Place), owners: make(map[int]string),
		forgot: make(map[int]time.Time), files: make(map[string]InFile),
	}
	t.Cleanup(func() {
		_ = p.memory.Close()
		synctest.Wait()
	})
	return p
}

// start starts a node that owns shards, or is a server.
func (p *whereabouts) start(name string, server bool, shards ...int) *locatorNode {
	client := p.memory.Open(nil)
	p.mu.Lock()
	for _, n := range shards {
		p.owners[n] = name
	}
	p.mu.Unlock()
	if server {
		p.servers = append(p.servers, name)
	}
	r := NewReceipts(ReceiptConfig{Bus: client, Node: func() string { return name }, Server: server})
	cfg := LocatorConfig{
		Bus: client, Skips: new(broker.Skips), Node: func() string { return name }, Shards: p.shards, Receipts: r, DeadLetters: client,
		Servers: func() []string {
			p.mu.Lock()
			defer p.mu.Unlock()
			return slices.DeleteFunc(slices.Clone(p.servers), func(s string) bool { return s == name })
		},
		Queues: func([]int) (int, string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.queued, p.trouble
		},
	}
	if len(shards) > 0 {
		cfg.Look = func(id []byte) (all []Place) {
			p.mu.Lock()
			defer p.mu.Unlock()
			for n := range p.shards {
				if p.owners[n] != name {
					continue
				}
				place := Place{Shard: n}
				if known, ok := p.at[string(id)]; ok && known.Shard == n {
					place = known
				}
				place.Memory, place.Forgot = p.forgot[n], !p.forgot[n].IsZero()
				all = append(all, place)
			}
			return all
		}
		cfg.Find = func(ctx context.Context, _ int, id []byte, _ time.Time) (InFile, error) {
			p.mu.Lock()
			p.finds++
			found, delay, hangs := p.files[string(id)], p.delay, p.hangs
			p.mu.Unlock()
			time.Sleep(hangs)
			select {
			case <-time.After(delay):
				return found, nil
			case <-ctx.Done():
				return InFile{}, context.Cause(ctx)
			}
		}
	}
	l := NewLocator(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx)
	}()
	end := sync.OnceFunc(func() {
		cancel()
		<-done
		p.mu.Lock()
		for n, owner := range p.owners {
			if owner == name {
				delete(p.owners, n)
			}
		}
		p.mu.Unlock()
		_ = client.Close()
	})
	p.t.Cleanup(end)
	synctest.Wait()
	return &locatorNode{l, r, end}
}

func (p *whereabouts) put(id string, place Place, file InFile) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at[id], p.files[id] = place, file
}

// text is a location, but for its times and for why.
func (n *locatorNode) text(t *testing.T, id string) (text, why string) {
	t.Helper()
	l, err := n.Locate(t.Context(), id)
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	parts := []string{string(l.State)}
	if l.Shard != nil {
		parts = append(parts, fmt.Sprint("shard ", *l.Shard))
	}
	for _, v := range []*string{l.Owner, l.Worker, l.File, l.Reason} {
		if v != nil {
			parts = append(parts, *v)
		}
	}
	if l.Line != nil {
		parts = append(parts, fmt.Sprint("line ", *l.Line))
	}
	if !l.Complete {
		parts = append(parts, "incomplete")
	}
	if l.Why != nil {
		why = *l.Why
	}
	return strings.Join(parts, ", "), why
}

// kill makes a message a dead letter of shard 0.
func (p *whereabouts) kill(id string, foreign bool, reason string) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	defer cancel()
	deliveries := make(chan *message.Delivery)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.memory.Consume(ctx, 0, 1, deliveries)
	}()
	if foreign {
		p.memory.PublishForeign(0, id, []byte(`{}`))
	} else {
		body := fmt.Appendf(nil, "{\"message_id\":\"%s\"}\n", id)
		p.memory.Publish(ctx, []message.Envelope{{ID: message.NewID(), Count: 1, Body: body}}, func(int, error) {})
	}
	d := <-deliveries
	if err := d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: reason}); err != nil {
		p.t.Error(err)
	}
	cancel()
	<-ended
}

// slowLetters has three dead letters, and shows them in a second.
type slowLetters struct {
	looks, running int
	fails          bool
}

func (s *slowLetters) DeadLetters(_ context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	s.looks++
	if s.running++; s.running > 1 {
		return errors.New("two looks at a time")
	}
	time.Sleep(time.Second)
	defer func() { s.running-- }()
	if s.fails {
		return errors.New("the broker is away")
	}
	for i := range 3 {
		decide(broker.DeadLetter{Envelope: message.Envelope{ID: fmt.Sprint(i), Foreign: true}, Reason: "x"})
	}
	return nil
}
