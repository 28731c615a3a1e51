package rig

import (
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/faults/process"
)

// Node is a private RabbitMQ node.
type Node struct{ process.Node }

// common is the node of the package's tests that do not stop theirs. The first
// that needs it starts it, Suite stops it.
var common Node

// StartNode starts a RabbitMQ node that a test may stop.
func StartNode(t testing.TB) Node {
	t.Helper()
	n := Node{process.Node(t.TempDir())}
	t.Cleanup(func() { n.Do(t, "stop") })
	n.Do(t, "start")
	return n
}

// Do runs scripts/rabbitmq on the node and returns what it prints.
func (n Node) Do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := n.Run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Vhost returns a fresh virtual host, so that a test has the queues for itself.
func (n Node) Vhost(t testing.TB) Broker {
	t.Helper()
	vhost := fmt.Sprintf("%s-%x", strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), time.Now().UnixNano())
	// In one call, since each starts an Erlang machine.
	n.Do(t, "ctl", "eval", fmt.Sprintf(`rabbit_vhost:add(<<"%s">>, <<"test">>),
		rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"%[1]s">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).`, vhost))
	url := strings.TrimSuffix(n.Do(t, "url"), "/") + "/" + vhost
	return Broker{Server: url, Consumer: url}
}

// NewVhost returns a fresh virtual host on the package's common node. Stopping
// that would disturb the other tests.
func NewVhost(t testing.TB) Broker {
	t.Helper()
	common.Do(t, "start") // unless another test has
	return common.Vhost(t)
}

// CutBus ends the bus of a RabbitMQ broker for good: its exchange is gone, and one of
// another type has its name.
func (b Broker) CutBus(t testing.TB) {
	t.Helper()
	const exchange = "async-data-processor.bus"
	conn, err := amqp.Dial(b.Server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err == nil {
		err = ch.ExchangeDelete(exchange, false, false)
	}
	if err == nil {
		err = ch.ExchangeDeclare(exchange, amqp.ExchangeFanout, false, false, false, false, nil)
	}
	if err != nil {
		t.Fatal("cutting the bus:", err)
	}
}
