package rig

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker/local"
)

// Depth returns how many envelopes wait in the queues of all shards, and how
// many dead letters there are. No consumer may run: RabbitMQ does not count
// what one holds.
func (b Broker) Depth(t testing.TB, shards int) (waiting, dead int) {
	t.Helper()
	depth := depthOfRabbitMQ
	switch scheme, _, _ := strings.Cut(b.Server, ":"); scheme {
	case "nats":
		depth = depthOfNATS
	case "embedded":
		depth = depthOfStore
	}
	waiting, dead, err := depth(b.Server, shards)
	if err != nil {
		t.Fatal("depth of the queues:", err)
	}
	return waiting, dead
}

func depthOfRabbitMQ(url string, shards int) (waiting, dead int, err error) {
	conn, err := amqp.Dial(url)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return 0, 0, err
	}
	messages := func(queue string) int {
		q, failed := ch.QueueDeclarePassive("async-data-processor."+queue, true, false, false, false, nil)
		if err == nil {
			err = failed
		}
		return q.Messages
	}
	for n := range shards {
		waiting += messages(fmt.Sprint("shard.", n))
	}
	dead = messages("dead")
	return waiting, dead, err
}

func depthOfStore(url string, _ int) (waiting, dead int, err error) {
	report, err := local.Check(context.Background(), strings.TrimPrefix(url, "embedded://"), nil)
	if err != nil {
		return 0, 0, err
	}
	for n, q := range report.Queues {
		if n == local.Dead {
			dead = q.Depth
		} else {
			waiting += q.Depth
		}
	}
	return waiting, dead, nil
}

func depthOfNATS(url string, _ int) (waiting, dead int, err error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	messages := func(name string) int {
		stream, failed := js.Stream(ctx, name)
		if failed != nil {
			err = failed
			return 0
		}
		return int(stream.CachedInfo().State.Msgs)
	}
	waiting, dead = messages("ASYNC_DATA_PROCESSOR"), messages("ASYNC_DATA_PROCESSOR_DEAD")
	return waiting, dead, err
}
