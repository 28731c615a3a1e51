package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// bury publishes a dead letter. It tries for as long as a publish may take, so
// that a message which cannot be buried just now is not delivered again and
// again at full speed, up to its delivery limit.
func (b *Broker) bury(letter amqp.Publishing) error {
	ctx, cancel := context.WithTimeout(context.Background(), broker.PublishTimeout)
	defer cancel()
	for {
		s, err := b.publishing.await(ctx)
		if err != nil {
			return rejected(err)
		}
		err = s.publish(ctx, deadQueue, letter)
		if !errors.Is(err, broker.ErrRejected) {
			return err
		}
		select {
		case <-time.After(b.timing.minDelay):
		case <-b.ctx.Done():
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// letters yields the dead letters of an outcome, each with its reason.
func letters(shard int, d *amqp.Delivery, o message.Outcome) iter.Seq2[amqp.Publishing, string] {
	return func(yield func(amqp.Publishing, string) bool) {
		if len(o.Dead) == 0 {
			yield(deadEnvelope(shard, d, o.Reason), o.Reason)
			return
		}
		for _, dead := range o.Dead {
			if !yield(deadMessage(shard, d, dead), dead.Reason) {
				return
			}
		}
	}
}

// deadEnvelope is a delivery with the reason why it is dead. The headers of
// another program are left behind: some of them route (CC), and large ones
// would not fit beside ours.
func deadEnvelope(shard int, d *amqp.Delivery, reason string) amqp.Publishing {
	headers := deadHeaders(shard, reason)
	if count, ok := number(d.Headers[countHeader]); ok {
		headers[countHeader] = count
	}
	return amqp.Publishing{
		MessageId:       d.MessageId,
		Type:            d.Type,
		ContentType:     d.ContentType,
		ContentEncoding: d.ContentEncoding,
		Timestamp:       d.Timestamp,
		DeliveryMode:    amqp.Persistent,
		Headers:         headers,
		Body:            d.Body,
	}
}

// deadMessage is a message of a delivery as an envelope of its own, so that it
// can be published again as it is.
func deadMessage(shard int, d *amqp.Delivery, dead message.Dead) amqp.Publishing {
	headers := deadHeaders(shard, dead.Reason)
	headers[countHeader] = int64(1)
	headers[envelopeHeader] = d.MessageId
	return amqp.Publishing{
		MessageId:    cmp.Or(dead.ID(), d.MessageId),
		Type:         envelopeType,
		ContentType:  contentType,
		Timestamp:    d.Timestamp,
		DeliveryMode: amqp.Persistent,
		Headers:      headers,
		Body:         slices.Concat(dead.Line, []byte{'\n'}),
	}
}

func deadHeaders(shard int, reason string) amqp.Table {
	return amqp.Table{
		reasonHeader: cut(reason, 1<<10),
		shardHeader:  int64(shard),
		queueHeader:  queueName(shard),
		timeHeader:   time.Now().UTC().Format(time.RFC3339Nano),
	}
}

// cut shortens text to n bytes, and replaces what is not UTF-8.
func cut(text string, n int) string {
	if len(text) > n {
		text = text[:n]
	}
	return strings.ToValidUTF8(text, "\ufffd")
}
