package rabbitmq

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// letters yields the dead letters of an outcome, each with its reason.
func letters(shard int, d *amqp.Delivery, o message.Outcome) iter.Seq2[amqp.Publishing, string] {
	return func(yield func(amqp.Publishing, string) bool) {
		if len(o.Dead) == 0 {
			yield(again(d, deadHeaders(shard, o.Reason)), o.Reason)
			return
		}
		for _, dead := range o.Dead {
			if !yield(deadMessage(shard, d, dead), dead.Reason) {
				return
			}
		}
	}
}

// again is a delivery as it is published again, with headers of ours. Those of another
// program are left behind: some of them route (CC), and large ones would not fit
// beside ours.
func again(d *amqp.Delivery, headers amqp.Table) amqp.Publishing {
	carryHeaders(headers, d)
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
	carryHeaders(headers, d)
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

// carryHeaders adds those of a delivery's headers that belong to the envelope.
// Attributes of a later version are carried as they are.
func carryHeaders(to amqp.Table, d *amqp.Delivery) {
	if count, ok := number(d.Headers[countHeader]); ok {
		to[countHeader] = count
	}
	text, _ := d.Headers[attributesHeader].(string)
	if d.Type == envelopeType && text != "" && len(text) <= broker.MaxAttributesBytes {
		to[attributesHeader] = text
	}
}

// cut shortens text to n bytes, and replaces what is not UTF-8.
func cut(text string, n int) string {
	return strings.ToValidUTF8(text[:min(len(text), n)], "\ufffd")
}
