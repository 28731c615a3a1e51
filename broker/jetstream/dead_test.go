package jetstream

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/message"
)

// TestDeadMessages: the dead letter of a message is an envelope of one, which
// says where it came from. While one cannot be kept the delivery waits; those
// that were kept are not kept again.
func TestDeadMessages(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	told := &events{}
	b := openTimed(t, Config{URL: n.url(), Events: told.add}, impatient())
	awaitReady(t, b)
	room := func(messages int64) {
		admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
			cfg := b.deadLetters()
			cfg.MaxMsgs = messages
			_, err := js.UpdateStream(ctx, cfg)
			return err
		})
	}
	line := []byte(`{"message_id":"S.1",`)
	publish(t, b, message.Envelope{ID: "E", Shard: 1, Count: 3, Body: []byte("good\n" + string(line) + "\nbad\n")})
	in := consume(t, b, 1, 1)
	o := message.Outcome{Kind: message.DeadLetter, Reason: "of a batch", Dead: []message.Dead{
		{Line: line, Reason: "it is cut"}, {Line: []byte("bad"), Reason: "it has no id"},
	}}
	room(1)
	d, kept := in.next(), make(chan error, 1)
	go func() { kept <- d.Settle(o) }()
	told.await(t, failedDeadLetter, "maximum messages")
	room(-1)
	if err := <-kept; err != nil {
		t.Fatal(err)
	}
	if got := len(deadLettersOf(t, n.url())); got != 2 {
		t.Errorf("%d dead letters, want 2", got)
	}
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		stream, err := js.Stream(ctx, DeadStream)
		if err != nil {
			return err
		}
		for i, id := range []string{"S.1", "E"} {
			m, err := stream.GetMsg(ctx, uint64(i+1))
			if err != nil {
				return err
			}
			if want := string(o.Dead[i].Line) + "\n"; string(m.Data) != want {
				t.Errorf("body %q, want %q", m.Data, want)
			}
			if at, err := time.Parse(time.RFC3339Nano, m.Header.Get("time")); err != nil || time.Since(at) > time.Minute {
				t.Errorf("dead since %v, %v", at, err)
			}
			for name, want := range map[string]string{
				"id": id, "type": envelopeType, "content-type": contentType, "count": "1", "envelope": "E",
				"reason": o.Dead[i].Reason, "shard": "1", "subject": "async-data-processor.shard.1",
			} {
				if got := m.Header.Get(name); got != want {
					t.Errorf("header %s is %q, want %q", name, got, want)
				}
			}
		}
		return nil
	})
}
