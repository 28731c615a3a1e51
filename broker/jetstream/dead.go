package jetstream

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/message"
)

const (
	// maxReason is how much of a reason a dead letter keeps, in bytes.
	maxReason = 1 << 10
	// maxForeign is how much it keeps of each text that another program chose.
	maxForeign = 512
)

// letters yields the dead letters of an outcome, each with its reason. One
// stored message gives each of them once, however often it is tried, so it is
// what their ids for the stream are made of. The envelope's id would not do: one
// that is repaired, published again and fails again would be taken for a retry
// and dropped.
func letters(shard int, d *unacked, o message.Outcome) iter.Seq2[*nats.Msg, string] {
	return func(yield func(*nats.Msg, string) bool) {
		stored := fmt.Sprintf("%d.%d", d.sequence, d.stored.UnixNano())
		if len(o.Dead) == 0 {
			letter := deadEnvelope(shard, d, o.Reason)
			letter.Header.Set(jetstream.MsgIDHeader, stored)
			yield(letter, o.Reason)
			return
		}
		copies := make(map[string]int) // of a line
		for _, dead := range o.Dead {
			copies[string(dead.Line)]++
			nth := strconv.Itoa(copies[string(dead.Line)])
			letter := deadMessage(shard, d, dead)
			letter.Header.Set(jetstream.MsgIDHeader, stored+"."+message.KeyedID(nth, dead.Line))
			if !yield(letter, dead.Reason) {
				return
			}
		}
	}
}

// deadEnvelope is a delivery with the reason why it is dead. The headers of
// another program are left behind: some tell the server what to do.
func deadEnvelope(shard int, d *unacked, reason string) *nats.Msg {
	header := deadHeader(shard, reason)
	for name, text := range map[string]string{
		idHeader:          d.delivery.ID,
		typeHeader:        d.msg.Header.Get(typeHeader),
		contentTypeHeader: d.msg.Header.Get(contentTypeHeader),
		countHeader:       d.msg.Header.Get(countHeader),
	} {
		if text != "" {
			header.Set(name, headerText(text, maxForeign))
		}
	}
	carryAttributes(header, d.msg.Header)
	return &nats.Msg{Subject: deadSubject, Header: header, Data: d.msg.Data}
}

// deadMessage is a message of a delivery as an envelope of its own, so that it
// can be published again as it is.
func deadMessage(shard int, d *unacked, dead message.Dead) *nats.Msg {
	header := deadHeader(shard, dead.Reason)
	envelope := headerText(d.delivery.ID, maxForeign)
	header.Set(idHeader, cmp.Or(dead.ID(), envelope))
	header.Set(typeHeader, envelopeType)
	header.Set(contentTypeHeader, contentType)
	header.Set(countHeader, "1")
	header.Set(envelopeHeader, envelope)
	carryAttributes(header, d.msg.Header)
	return &nats.Msg{Subject: deadSubject, Header: header, Data: slices.Concat(dead.Line, []byte{'\n'})}
}

func deadHeader(shard int, reason string) nats.Header {
	return nats.Header{
		reasonHeader:  {headerText(reason, maxReason)},
		shardHeader:   {strconv.Itoa(shard)},
		subjectHeader: {subjectOf(shard)},
		timeHeader:    {time.Now().UTC().Format(time.RFC3339Nano)},
	}
}

// carryAttributes adds the attributes of an envelope, those of a later version as
// they are.
func carryAttributes(to, from nats.Header) {
	text := from.Get(attributesHeader)
	if from.Get(typeHeader) == envelopeType && text != "" && len(text) <= broker.MaxAttributesBytes {
		to.Set(attributesHeader, text)
	}
}

// headerText makes a header's value of any text: one line of UTF-8, n bytes at
// most.
func headerText(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text[:min(len(text), n)], "\ufffd"))
	return strings.TrimSpace(text)
}
