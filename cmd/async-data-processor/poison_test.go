package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/faults/rig"
)

// TestBadLine: of an envelope with a bad line the others are written, and the
// line is kept apart as it came.
func TestBadLine(t *testing.T) {
	rig.OnEach(t, func(t *testing.T, b rig.Broker, _ rig.Engine) {
		if b.Consumer == "" {
			return // nobody else can publish to it
		}
		testBadLine(t, b)
	})
}

func testBadLine(t *testing.T, b rig.Broker) {
	dir := t.TempDir()
	consumer, _ := b.Launch(t, "DATA_OUTPUT_DIR="+dir, "SHARDS_COUNT=1")
	q := queuesOf(t, b.Consumer)
	const envelopes = 4
	var good []string
	want := make(map[string]deadLetter)
	for i := range envelopes {
		id := func(n int) string { return fmt.Sprintf("S%d.%d", i, n) }
		lines := make([]string, 3)
		for n := range lines {
			lines[n] = fmt.Sprintf(`{"message_id":"%s","timestamp":"2019-10-12T08:10:54Z"}`, id(n))
		}
		bad := i % 3
		lines[bad] = strings.TrimSuffix(lines[bad], "}")
		for n := range lines {
			if n != bad {
				good = append(good, id(n))
			}
		}
		envelope := fmt.Sprint("E", i)
		want[id(bad)] = deadLetter{lines[bad] + "\n", fmt.Sprintf("line %d of the envelope is not strict JSON", bad+1), envelope}
		q.publish(envelope, len(lines), strings.Join(lines, "\n")+"\n")
	}
	rig.Eventually(t, "the good lines in files", func() error {
		if n, example := rig.ReadTree(t, dir, 1, 5).Missing(good); n > 0 {
			return fmt.Errorf("%d missing, one is %s", n, example)
		}
		return nil
	})
	rig.Eventually(t, "the bad lines apart", func() error {
		dead := q.dead()
		for id, w := range want {
			if got := dead[id]; got.body != w.body || !strings.HasPrefix(got.reason, w.reason) || got.envelope != w.envelope {
				return fmt.Errorf("%s: %+v, want %+v", id, got, w)
			}
		}
		if len(dead) > len(want) {
			return fmt.Errorf("%d are dead, want %d", len(dead), len(want))
		}
		return nil
	})
	if code := consumer.Stop(); code != 0 {
		t.Errorf("message-consumer exits %d", code)
	}
	tr := rig.ReadTree(t, dir, 1, 5)
	if n, example := tr.Twice(); n > 0 || len(tr.Lines) != len(good) {
		t.Errorf("%d messages in files, want %d; %d twice, one is %s", len(tr.Lines), len(good), n, example)
	}
}

// queues is a broker's as another program sees them.
type queues struct {
	// publish puts an envelope of our type into the queue of shard 0.
	publish func(id string, count int, body string)
	// dead returns the dead letters by id.
	dead func() map[string]deadLetter
}

type deadLetter struct{ body, reason, envelope string }

const (
	shardQueue   = "async-data-processor.shard.0"
	deadQueue    = "async-data-processor.dead"
	envelopeType = "async-data-processor.envelope.v1"
)

func queuesOf(t *testing.T, url string) queues {
	if strings.HasPrefix(url, "amqp") {
		return amqpQueues(t, url)
	}
	return natsQueues(t, url)
}

func amqpQueues(t *testing.T, url string) queues {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	// with does something on a channel; closing it returns what it got.
	with := func(do func(ch *amqp.Channel) error) {
		t.Helper()
		ch, err := conn.Channel()
		if err == nil {
			defer ch.Close()
			err = do(ch)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return queues{
		publish: func(id string, count int, body string) {
			with(func(ch *amqp.Channel) error {
				if err := ch.Confirm(false); err != nil {
					return err
				}
				c, err := ch.PublishWithDeferredConfirm("", shardQueue, true, false, amqp.Publishing{
					MessageId: id, Type: envelopeType, Headers: amqp.Table{"count": int64(count)},
					DeliveryMode: amqp.Persistent, Body: []byte(body),
				})
				if err == nil && !c.Wait() {
					t.Fatal("it was not taken")
				}
				return err
			})
		},
		dead: func() map[string]deadLetter {
			dead := make(map[string]deadLetter)
			with(func(ch *amqp.Channel) error {
				for {
					m, ok, err := ch.Get(deadQueue, false)
					if err != nil || !ok {
						return err
					}
					reason, _ := m.Headers["reason"].(string)
					envelope, _ := m.Headers["envelope"].(string)
					dead[m.MessageId] = deadLetter{string(m.Body), reason, envelope}
				}
			})
			return dead
		},
	}
}

func natsQueues(t *testing.T, url string) queues {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return queues{
		publish: func(id string, count int, body string) {
			header := nats.Header{"id": {id}, "type": {envelopeType}, "count": {strconv.Itoa(count)}}
			if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: shardQueue, Header: header, Data: []byte(body)}); err != nil {
				t.Fatal(err)
			}
		},
		dead: func() map[string]deadLetter {
			dead := make(map[string]deadLetter)
			name, err := js.StreamNameBySubject(t.Context(), deadQueue)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := js.Stream(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
				m, err := stream.GetMsg(t.Context(), seq)
				if err != nil {
					t.Fatal(err)
				}
				dead[m.Header.Get("id")] = deadLetter{string(m.Data), m.Header.Get("reason"), m.Header.Get("envelope")}
			}
			return dead
		},
	}
}
