package rabbitmq

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/conn"
)

// Names, a contract with other programs.
const (
	// queuePrefix and the shard's number name its queue.
	queuePrefix = "async-data-processor.shard."
	// deadQueue holds the dead letters of all shards.
	deadQueue = "async-data-processor.dead"
	// deadLock is there while a process visits the dead letters.
	deadLock = "async-data-processor.dead.visit"
	// envelopeType is the AMQP type of our own envelopes. Whatever has another
	// one was published by another program.
	envelopeType = "async-data-processor.envelope.v1"
	contentType  = "application/x-ndjson"
	// countHeader is the number of messages in an envelope.
	countHeader = "count"
	// attributesHeader is there if the envelope has attributes: their text, as
	// package broker encodes them.
	attributesHeader = "attributes"
)

// Headers of a dead letter that was settled as such. One that exceeded the
// delivery limit was moved by the broker, which tells the same in x-death.
const (
	reasonHeader = "reason" // why, as text
	shardHeader  = "shard"  // number of the shard it came from
	queueHeader  = "queue"  // name of the queue it came from
	timeHeader   = "time"   // when it was moved, RFC 3339
	// envelopeHeader is the id of the envelope that a single message was of.
	envelopeHeader = "envelope"
)

func queueName(shard int) string { return queuePrefix + strconv.Itoa(shard) }

// queue is a queue and its arguments, which can never change once it exists:
// declaring it with others fails. So there are only those that are needed, and
// whatever may have to change later belongs into a policy of the broker.
type queue struct {
	name string
	args amqp.Table
}

func shardQueue(shard int) queue {
	return queue{queueName(shard), amqp.Table{
		amqp.QueueTypeArg:            amqp.QueueTypeQuorum,
		amqp.SingleActiveConsumerArg: true,
		"x-delivery-limit":           int64(broker.DeliveryLimit),
		"x-dead-letter-exchange":     "",
		"x-dead-letter-routing-key":  deadQueue,
		// At-most-once, the default, forgets a dead letter if the dead-letter
		// queue is not available just then. At-least-once demands reject-publish.
		"x-dead-letter-strategy": "at-least-once",
		amqp.QueueOverflowArg:    amqp.QueueOverflowRejectPublish,
	}}
}

// deadLetters is the end of the line: what is dropped here is lost. Without a
// delivery limit, RabbitMQ from 4.0 applies one of 20 and drops what was looked
// at and put back more often. "-1" would be no limit there, but drops at the
// first return in 3.10. So the limit is positive and out of reach.
func deadLetters() queue {
	return queue{deadQueue, amqp.Table{
		amqp.QueueTypeArg:  amqp.QueueTypeQuorum,
		"x-delivery-limit": int64(math.MaxInt32),
	}}
}

// declare makes sure that the queue exists as it has to be.
func declare(ch *amqp.Channel, q queue) error {
	_, err := ch.QueueDeclare(q.name, true, false, false, false, q.args)
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Server && e.Code == amqp.PreconditionFailed {
		return conn.Refused(fmt.Errorf("the queue %s exists with other arguments, which cannot be changed: "+
			"drain and delete it, or use another virtual host: %s", q.name, e.Reason))
	}
	if err != nil {
		return fmt.Errorf("declaring the queue %s: %w", q.name, err)
	}
	return nil
}

// declareAll declares the queues of all shards and that of the dead letters.
func (s *session) declareAll() error {
	ch, err := s.channel()
	if err != nil {
		return err
	}
	defer func() { _ = s.rpc(ch.Close) }()
	// The dead letters' first: the others refer to it.
	err = s.rpc(func() error { return declare(ch, deadLetters()) })
	for shard := 0; shard < s.broker.cfg.Shards && err == nil; shard++ {
		err = s.rpc(func() error { return declare(ch, shardQueue(shard)) })
	}
	return err
}
