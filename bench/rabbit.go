package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/faults/process"
)

// The queues of the program, and those of the bare contenders.
const (
	productQueues = "async-data-processor.shard."
	bareQueues    = "async-data-processor.bench."
	shardCount    = 5 // of the program by default, and of the contenders
)

// rabbit is a RabbitMQ node: a private one, or that of RABBITMQ_URL, which must
// not hold messages of the program.
type rabbit struct {
	url  string
	pid  int          // 0 if it is not ours
	node process.Node // "" if it is not ours
	conn *amqp.Connection
	ch   *amqp.Channel
}

// broker returns the node, started by the first call.
func (l *lab) broker() (*rabbit, error) {
	if l.rabbit != nil {
		return l.rabbit, nil
	}
	r := &rabbit{url: os.Getenv("RABBITMQ_URL")}
	if r.url == "" {
		r.node = process.Node(filepath.Join(l.dir, "rabbitmq"))
		if err := r.start(); err != nil {
			r.stop()
			return nil, err
		}
	}
	if err := r.connect(slices.Max(l.shards)); err != nil {
		r.stop()
		return nil, fmt.Errorf("RabbitMQ: %w", err)
	}
	l.rabbit, l.rabbitVersion = r, fmt.Sprint(r.conn.Properties["version"])
	return r, nil
}

func (r *rabbit) start() (err error) {
	if _, err = r.node.Run("start"); err != nil {
		return err
	}
	if r.url, err = r.node.Run("url"); err != nil {
		return err
	}
	r.pid, err = strconv.Atoi(strings.TrimSpace(string(contentOf(filepath.Join(string(r.node), "pid")))))
	return err
}

// connect makes the contenders' queues, and refuses a broker that holds messages
// of that many shards.
func (r *rabbit) connect(shards int) (err error) {
	if r.conn, err = amqp.Dial(r.url); err != nil {
		return err
	}
	if r.ch, err = r.conn.Channel(); err != nil {
		return err
	}
	for i := range shardCount {
		if _, err := r.ch.QueueDeclare(queueName(bareQueues, i), true, false, false, false, bareArguments); err != nil {
			return err
		}
	}
	for i := range shards {
		// An error means that there is no such queue.
		if n, err := r.waiting(productQueues, i); err == nil && n > 0 {
			return fmt.Errorf("the queue %s%d holds %d messages, which a benchmark would delete", productQueues, i, n)
		}
	}
	return nil
}

// bareArguments are those of the program's queues, so that the contenders pay
// for the same.
var bareArguments = amqp.Table{
	amqp.QueueTypeArg:            amqp.QueueTypeQuorum,
	amqp.SingleActiveConsumerArg: true,
	"x-delivery-limit":           int64(1000),
	"x-dead-letter-exchange":     "",
	"x-dead-letter-routing-key":  "async-data-processor.dead",
	"x-dead-letter-strategy":     "at-least-once",
	amqp.QueueOverflowArg:        amqp.QueueOverflowRejectPublish,
}

func queueName(prefix string, i int) string { return prefix + strconv.Itoa(i) }

// waiting is how many messages a queue holds that no consumer has received.
func (r *rabbit) waiting(prefix string, i int) (int, error) {
	ch, err := r.conn.Channel()
	if err != nil {
		return 0, err
	}
	defer ch.Close()
	q, err := ch.QueueDeclarePassive(queueName(prefix, i), true, false, false, false, nil)
	return q.Messages, err
}

// waitingIn is the same of n queues together.
func (r *rabbit) waitingIn(prefix string, n int) (messages int, err error) {
	for i := range n {
		waiting, err := r.waiting(prefix, i)
		if err != nil {
			return messages, err
		}
		messages += waiting
	}
	return messages, nil
}

// empty throws away what n queues hold, and returns how much that was. Of a
// consumer that was killed, what it had not settled comes back once RabbitMQ has
// noticed: that is waited for.
func (r *rabbit) empty(prefix string, n int) (messages int, err error) {
	for i := range n {
		name := queueName(prefix, i)
		if err := r.abandoned(name); err != nil {
			return messages, err
		}
		purged, err := r.ch.QueuePurge(name, false)
		if err != nil {
			return messages, err
		}
		messages += purged
	}
	return messages, nil
}

// abandoned waits until a queue has no consumer.
func (r *rabbit) abandoned(queue string) error {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(5 * time.Millisecond) {
		q, err := r.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil || q.Consumers == 0 {
			return err
		}
	}
	return fmt.Errorf("another program consumes %s", queue)
}

func (r *rabbit) drop(prefix string, n int) error {
	_, err := r.empty(prefix, n)
	return err
}

// stop ends the node, if it is ours, and else removes what was made there.
func (r *rabbit) stop() {
	if r.conn != nil {
		for i := range shardCount {
			_, _ = r.ch.QueueDelete(queueName(bareQueues, i), false, false, false)
		}
		_ = r.conn.Close()
	}
	if r.node != "" {
		_, _ = r.node.Run("stop")
	}
}
