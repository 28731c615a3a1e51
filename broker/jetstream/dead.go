package jetstream

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
)

const (
	// maxReason is how much of a reason a dead letter keeps, in bytes.
	maxReason = 1 << 10
	// maxForeign is how much it keeps of each text that another program chose.
	maxForeign = 512
)

// bury publishes a dead letter, waiting for the connection if need be, so that
// a broker that takes none is not asked again and again at full speed. The
// headers of another program are left behind: some tell the server what to do.
func (b *Broker) bury(shard int, d *held, reason string) error {
	ctx, cancel := context.WithTimeout(context.Background(), broker.PublishTimeout)
	defer cancel()
	s, err := b.publishing.await(ctx)
	if err != nil {
		return rejected(err)
	}
	header := nats.Header{
		// One stored message gives one dead letter, however often it is tried. The
		// envelope's id would not do: one that is repaired, published again and
		// fails again would be taken for a retry and dropped.
		jetstream.MsgIDHeader: {fmt.Sprintf("%d.%d", d.sequence, d.stored.UnixNano())},
		reasonHeader:          {headerText(reason, maxReason)},
		shardHeader:           {strconv.Itoa(shard)},
		subjectHeader:         {subjectOf(shard)},
		timeHeader:            {time.Now().UTC().Format(time.RFC3339Nano)},
	}
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
	return s.publish(ctx, DeadStream, &nats.Msg{Subject: deadSubject, Header: header, Data: d.msg.Data})
}

// headerText makes a header's value of any text: one line of UTF-8, n bytes at
// most.
func headerText(text string, n int) string {
	if len(text) > n {
		text = text[:n]
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\ufffd"))
	return strings.TrimSpace(text)
}
