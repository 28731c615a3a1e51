package jetstream

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// publishDead publishes straight to the dead letters.
func publishDead(t *testing.T, url string, header nats.Header, body string) {
	t.Helper()
	admin(t, url, func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.PublishMsg(ctx, &nats.Msg{Subject: deadSubject, Header: header, Data: []byte(body)})
		return err
	})
}

func replayAll(t *testing.T, b *Broker) error {
	t.Helper()
	return b.DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict { return broker.Replay })
}

// TestReplayWithoutOrigin: what could go nowhere stays.
func TestReplayWithoutOrigin(t *testing.T) {
	n := emptied(t)
	b := openBroker(t, Config{URL: n.url()})
	awaitReady(t, b)
	for _, subject := range []string{"", "orders", subjectPrefix + "-1", subjectPrefix + "01", subjectOf(maxShards)} {
		publishDead(t, n.url(), nats.Header{subjectHeader: {subject}, idHeader: {"lost"}}, "{}")
		if err := replayAll(t, b); !errors.Is(err, broker.ErrNoOrigin) {
			t.Errorf("from %q: %v, want ErrNoOrigin", subject, err)
		}
		err := b.DeadLetters(t.Context(), func(d broker.DeadLetter) broker.Verdict {
			if d.Envelope.Shard != -1 || d.Time.IsZero() || d.Origin != subject {
				t.Errorf("from %q: shown as %+v", subject, d)
			}
			return broker.Remove
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestReplayTwice: a replay whose removal did not happen is made again, and
// stored once.
func TestReplayTwice(t *testing.T) {
	n := emptied(t)
	b := openBroker(t, Config{URL: n.url()})
	awaitReady(t, b)
	const shard = 7 // beyond the configured ones
	publishDead(t, n.url(), nats.Header{subjectHeader: {subjectOf(shard)}, idHeader: {"elsewhere"}}, "{}")
	s, err := b.conns.Publishing.Current()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := s.js.Stream(t.Context(), DeadStream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(t.Context(), 1, jetstream.WithGetMsgSubject(deadSubject))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.replay(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := replayAll(t, b); err != nil {
		t.Fatal(err)
	}
	if depth := depthOf(t, n.url(), shard); depth != 1 {
		t.Errorf("%d envelopes, want 1", depth)
	}
	// Another client was faster with the removal.
	if err := b.apply(t.Context(), stream, m, broker.Remove); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
	got := receive(t, b, shard)
	if got.ID != "elsewhere" || !got.Foreign || got.Count != 1 {
		t.Errorf("got %+v", got.Envelope)
	}
}

// TestForeignIDHeader: only a replay's id is in the header "id"; another
// program may mean something else by it.
func TestForeignIDHeader(t *testing.T) {
	n := emptied(t)
	b := openBroker(t, Config{URL: n.url()})
	awaitReady(t, b)
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.PublishMsg(ctx, &nats.Msg{
			Subject: subjectOf(0), Data: []byte("{}"),
			Header: nats.Header{idHeader: {"theirs"}, jetstream.MsgIDHeader: {"the id"}},
		})
		return err
	})
	if got := receive(t, b, 0); got.ID != "the id" {
		t.Errorf("the id is %q", got.ID)
	}
}

// receive consumes and acknowledges one envelope.
func receive(t *testing.T, b *Broker, shard int) *message.Delivery {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	deliveries, done := make(chan *message.Delivery), make(chan error, 1)
	go func() { done <- b.Consume(ctx, shard, 1, deliveries) }()
	var d *message.Delivery
	select {
	case d = <-deliveries:
	case <-time.After(2 * time.Minute):
		t.Fatal("no delivery within 2 minutes")
	}
	if err := d.Settle(message.Outcome{Kind: message.Ack}); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return d
}

// TestLetterOfAnyTime: a time that JSON cannot tell is not known.
func TestLetterOfAnyTime(t *testing.T) {
	for _, when := range []string{"9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59"} {
		if l := letterOf(&jetstream.RawStreamMsg{Header: nats.Header{timeHeader: {when}}}); !l.Time.IsZero() {
			t.Errorf("%s became %v", when, l.Time)
		}
	}
}
