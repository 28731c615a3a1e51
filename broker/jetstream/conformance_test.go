package jetstream

import (
	"context"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
)

// TestConformance runs the suite of all brokers on real servers.
func TestConformance(t *testing.T) {
	emptied(t) // the server runs before the suite looks for leaks
	brokertest.Run(t, brokertest.Harness{Fresh: func(t *testing.T, disturb bool) *brokertest.Engine {
		if disturb {
			return disturbed(t)
		}
		n := emptied(t)
		p := brokertest.NewProxy(t, n.Addr)
		e := engine(n.url(), "nats://"+p.Addr())
		e.Break = func(testing.TB) { p.Cut() }
		e.Lose = func(_ testing.TB, what brokertest.Loss) { p.Lose(what) }
		return e
	}})
}

// disturbed is a server of the test's own as an engine.
func disturbed(t *testing.T) *brokertest.Engine {
	n := newNode(t, "")
	e := engine(n.url(), n.url())
	e.Stop, e.Start = func(testing.TB) { n.stop() }, n.start
	e.Stall = func(testing.TB) { n.Signal(syscall.SIGSTOP) }
	e.Resume = func(testing.TB) { n.Signal(syscall.SIGCONT) }
	e.Block = func(t testing.TB) { limit(t, n.url(), 1) }
	e.Unblock = func(t testing.TB) { limit(t, n.url(), -1) }
	return e
}

// limit sets how many bytes the shards' stream may hold.
func limit(t testing.TB, url string, bytes int64) {
	admin(t, url, func(ctx context.Context, js jetstream.JetStream) error {
		stream, err := js.Stream(ctx, ShardStream)
		if err != nil {
			return err
		}
		cfg := stream.CachedInfo().Config
		cfg.MaxBytes = bytes
		_, err = js.UpdateStream(ctx, cfg)
		return err
	})
}

// engine is a server without streams; clients reach it by another URL.
func engine(node, clients string) *brokertest.Engine {
	return &brokertest.Engine{
		Open: func(t testing.TB, events event.Sink) broker.Broker {
			b, err := New(Config{URL: clients, Shards: brokertest.Shards, Events: events})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		OpenShards: func(t testing.TB, shards int) broker.Broker {
			b, err := New(Config{URL: clients, Shards: shards})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		Depth:          func(t testing.TB, shard int) int { return depthOf(t, node, shard) },
		DeadLetters:    func(t testing.TB) []brokertest.DeadLetter { return deadLettersOf(t, node) },
		PublishForeign: func(t testing.TB, shard int, id string, body []byte) { foreign(t, node, shard, id, body) },
		BusForeign: func(t testing.TB, key, reply string, body []byte) {
			c, err := nats.Connect(node)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// A subject that is not valid is an error of the library, or of the server.
			_ = c.PublishMsg(&nats.Msg{Subject: busPrefix + key, Reply: reply, Data: body})
			_ = c.Flush()
		},
		BusForeignReplies: []string{subjectOf(0), "nowhere", inboxPrefix, inboxPrefix + "*", inboxPrefix + "a..b"},
		DeleteQueue: func(t testing.TB, _ int) { // its messages live in the stream of all shards
			admin(t, node, func(ctx context.Context, js jetstream.JetStream) error { return js.DeleteStream(ctx, ShardStream) })
		},
	}
}

func depthOf(t testing.TB, url string, shard int) (depth int) {
	t.Helper()
	admin(t, url, func(ctx context.Context, js jetstream.JetStream) error {
		stream, err := js.Stream(ctx, ShardStream)
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subjectOf(shard)))
		if err == nil {
			depth = int(info.State.Subjects[subjectOf(shard)])
		}
		return err
	})
	return depth
}

// awaitDepth waits until the server has applied what it was told of a shard's envelopes.
func awaitDepth(t testing.TB, url string, shard, want int) {
	t.Helper()
	got := 0
	eventually(t, func() bool { got = depthOf(t, url, shard); return got == want },
		func() string { return fmt.Sprintf("%d envelopes are left, want %d", got, want) })
}

func deadLettersOf(t testing.TB, url string) (dead []brokertest.DeadLetter) {
	t.Helper()
	admin(t, url, func(ctx context.Context, js jetstream.JetStream) error {
		stream, err := js.Stream(ctx, DeadStream)
		if err != nil {
			return err
		}
		state := stream.CachedInfo().State
		for seq := max(state.FirstSeq, 1); seq <= state.LastSeq; seq++ {
			m, err := stream.GetMsg(ctx, seq)
			if err != nil {
				return err
			}
			d := brokertest.DeadLetter{ID: m.Header.Get(idHeader), Body: m.Data, Reason: m.Header.Get(reasonHeader), Shard: -1}
			d.Time, _ = time.Parse(time.RFC3339Nano, m.Header.Get(timeHeader))
			if shard, err := strconv.Atoi(m.Header.Get(shardHeader)); err == nil && m.Header.Get(subjectHeader) == subjectOf(shard) {
				d.Shard = shard
			}
			dead = append(dead, d)
		}
		return nil
	})
	return dead
}

// foreign publishes as another program would.
func foreign(t testing.TB, url string, shard int, id string, body []byte) {
	t.Helper()
	admin(t, url, func(ctx context.Context, js jetstream.JetStream) error {
		msg := &nats.Msg{Subject: subjectOf(shard), Data: body, Header: nats.Header{"Content-Type": {"application/json"}}}
		if id != "" {
			msg.Header.Set(jetstream.MsgIDHeader, id)
		}
		_, err := js.PublishMsg(ctx, msg)
		return err
	})
}
