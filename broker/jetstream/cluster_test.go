package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// newCluster starts three servers that know each other.
func newCluster(t *testing.T) (nodes []*node) {
	t.Helper()
	var addrs, routes []string
	for range 3 {
		addr := freeAddr(t)
		addrs, routes = append(addrs, addr), append(routes, "nats://"+addr)
	}
	for i, addr := range addrs {
		name := fmt.Sprint("n", i)
		n := newNode(t, fmt.Sprintf("server_name: %s\ncluster { name: test, listen: %q, pool_size: -1, routes: [%s] }",
			name, addr, strings.Join(routes, ",")))
		n.name = name
		nodes = append(nodes, n)
	}
	return nodes
}

// leader is the node that leads the shards' stream.
func leader(t *testing.T, url string, nodes []*node) (found *node) {
	t.Helper()
	eventually(t, func() bool {
		info := clusterOf(url)
		if info == nil {
			return false
		}
		for _, n := range nodes {
			if n.name == info.Leader {
				found = n
			}
		}
		return found != nil
	}, func() string { return "the stream has no leader" })
	return found
}

// clusterOf is the state of the shards' stream's replicas, nil if no server tells.
func clusterOf(url string) *jetstream.ClusterInfo {
	conn, err := nats.Connect(url, nats.Timeout(time.Second))
	if err != nil {
		return nil
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, ShardStream)
	if err != nil {
		return nil
	}
	return stream.CachedInfo().Cluster
}

// load publishes and consumes at the same time and remembers both.
type load struct {
	publishers sync.WaitGroup
	mu         sync.Mutex      // guards what follows
	confirmed  map[string]bool // by id
	delivered  map[string]bool
	bad        error
}

func (l *load) run(ctx context.Context, publisher, consumer *Broker, publishers int) {
	l.confirmed, l.delivered = map[string]bool{}, map[string]bool{}
	for shard := range 2 {
		deliveries := make(chan *message.Delivery)
		go func() { _ = consumer.Consume(ctx, shard, 20, deliveries) }()
		go func() {
			for {
				select {
				case d := <-deliveries:
					l.mu.Lock()
					l.delivered[d.ID] = true
					l.mu.Unlock()
					err := d.Settle(message.Outcome{Kind: message.Ack})
					if err != nil && !errors.Is(err, broker.ErrStale) {
						l.fail(err)
					}
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	for i := range publishers {
		l.publishers.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				e := envelope(n % 2)
				err := insist(ctx, publisher, e)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					l.fail(err)
					return
				}
				l.mu.Lock()
				l.confirmed[e.ID] = true
				l.mu.Unlock()
			}
		})
	}
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = err
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.confirmed)
}

// missing counts what was confirmed and not delivered yet.
func (l *load) missing() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.confirmed {
		if !l.delivered[id] {
			n++
		}
	}
	return n
}

// more waits until publishing has gone on.
func (l *load) more(t *testing.T) {
	t.Helper()
	const more = 50
	before := l.count()
	// A new leader is elected after four to nine seconds of silence.
	for deadline := time.Now().Add(3 * patience); l.count() < before+more; {
		if time.Now().After(deadline) {
			t.Fatalf("publishing did not go on: %d confirmed", l.count()-before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestClusterLosesNode kills the node that leads the stream, under load, and
// lets it come back.
func TestClusterLosesNode(t *testing.T) {
	t.Parallel()
	nodes := newCluster(t)
	urls := []string{nodes[0].url(), nodes[1].url(), nodes[2].url()}
	url := strings.Join(urls, ",")
	told := &events{}
	publisher := openBroker(t, Config{URL: url, Replicas: 3, Events: told.add})
	for deadline := time.Now().Add(3 * patience); publisher.Ready() != nil; { // the first election
		if time.Now().After(deadline) {
			t.Fatal(publisher.Ready())
		}
		time.Sleep(10 * time.Millisecond)
	}
	consumer := openBroker(t, Config{URL: nodes[0].url(), Replicas: 3}) // learns of the others
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	l := &load{}
	l.run(ctx, publisher, consumer, 4)
	l.more(t)

	victim := leader(t, url, nodes)
	victim.Kill()
	l.more(t)
	if info := clusterOf(url); info == nil || info.Leader == victim.name {
		t.Errorf("the killed node still leads: %+v", info)
	}
	victim.start(t)
	l.more(t)
	eventually(t, func() bool {
		info := clusterOf(url)
		if info == nil || len(info.Replicas) != 2 {
			return false
		}
		return info.Replicas[0].Current && info.Replicas[1].Current
	}, func() string { return fmt.Sprintf("the node did not rejoin: %+v", clusterOf(url)) })

	stop()
	l.publishers.Wait()
	// What a new consumer gets completes what the old one got.
	last := openBroker(t, Config{URL: url, Replicas: 3})
	rest := make(chan *message.Delivery)
	restCtx, stopRest := context.WithCancel(t.Context())
	defer stopRest()
	for shard := range 2 {
		go func() { _ = last.Consume(restCtx, shard, 20, rest) }()
	}
	for deadline := time.After(3 * patience); l.missing() > 0; {
		select {
		case d := <-rest:
			l.mu.Lock()
			l.delivered[d.ID] = true
			l.mu.Unlock()
			_ = d.Settle(message.Outcome{Kind: message.Ack})
		case <-deadline:
			t.Fatalf("%d of %d confirmed envelopes were lost", l.missing(), l.count())
		}
	}
	if l.bad != nil {
		t.Error(l.bad)
	}
	t.Logf("%d confirmed, %d delivered", l.count(), len(l.delivered))
}
