package brokertest

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"async-data-processor/broker"
	"async-data-processor/message"
)

var attributeCases = []testCase{
	{"carries them there and back", carriesAttributes},
	{"refuses too many", refusesAttributes},
}

// carriesAttributes follows them through publish, consume, the dead letters and a
// replay, for a whole envelope and for a message of one.
func carriesAttributes(t *testing.T, e *Engine) {
	c := open(t, e)
	in := c.consume(1, 10)
	full := map[string]string{"": "", "Ä": "two\r\nlines <&>\x00\u2028", "traceparent": "00-4bf92f3577b34da6-01"}
	for len(full) < broker.MaxAttributes-1 {
		full[fmt.Sprint("name ", len(full))] = " value "
	}
	full["fill"] = ""
	full["fill"] = strings.Repeat("x", broker.MaxAttributesBytes-len(broker.EncodeAttributes(full)))
	for _, attributes := range []map[string]string{{"one": "1"}, full, nil} {
		large := envelope(1, 2)
		large.Attributes = attributes
		large.Body = append(large.Body, make([]byte, message.MaxEnvelopeBytes-len(large.Body))...)
		c.publish(large)
		d := in.next()
		sameEnvelope(t, d, large)
		settle(t, d, message.Outcome{Kind: message.DeadLetter, Reason: strings.Repeat("why ", 1000)})

		some := envelope(1, 2)
		some.Attributes = maps.Clone(attributes)
		c.publish(some)
		d = in.next()
		sameEnvelope(t, d, some)
		line, _, _ := strings.Cut(string(some.Body), "\n")
		settle(t, d, message.Outcome{Kind: message.DeadLetter, Dead: []message.Dead{{Line: []byte(line), Reason: "one of two"}}})

		letters := c.decideAll(broker.Replay)
		if len(letters) != 2 {
			t.Fatalf("%d dead letters, want 2", len(letters))
		}
		for range letters {
			d := in.next()
			settle(t, d, ack)
			if !maps.Equal(d.Attributes, attributes) {
				t.Errorf("%q is replayed with the attributes %v, want %v", d.ID, d.Attributes, attributes)
			}
		}
		for _, l := range letters {
			if !maps.Equal(l.Envelope.Attributes, attributes) {
				t.Errorf("the dead letter %q has the attributes %v, want %v", l.Envelope.ID, l.Envelope.Attributes, attributes)
			}
		}
	}
	in.none()
}

func refusesAttributes(t *testing.T, e *Engine) {
	c := open(t, e)
	many := map[string]string{}
	for i := range broker.MaxAttributes + 1 {
		many[fmt.Sprint(i)] = ""
	}
	for name, attributes := range map[string]map[string]string{
		"too many":       many,
		"too long":       {"x": strings.Repeat("x", broker.MaxAttributesBytes)},
		"no UTF-8":       {"x": "\xff"},
		"no UTF-8 names": {"\xff": "x"},
	} {
		bad := envelope(0, 1)
		bad.Attributes = attributes
		if err := Publish(t.Context(), c, bad); !errors.Is(err, broker.ErrRejected) {
			t.Errorf("%s: %v, want ErrRejected", name, err)
		}
	}
	empty(t, e, 0)
}
