package rabbitmq

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/conn"
)

// TestNewRefuses: what can never work is refused, and no password is shown.
func TestNewRefuses(t *testing.T) {
	const secret = "s3cr3t"
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"empty", Config{Shards: 1}, "broker URL"},
		{"other scheme", Config{URL: "http://u:" + secret + "@host/", Shards: 1}, "amqp://"},
		{"slash in password", Config{URL: "amqp://u:" + secret + "/x@host/", Shards: 1}, "percent-encoded"},
		{"percent in password", Config{URL: "amqp://u:" + secret + "%zz@host/", Shards: 1}, "percent-encoded"},
		{"space", Config{URL: "amqp://u:" + secret + " @host/", Shards: 1}, "percent-encoded"},
		{"bad port", Config{URL: "amqp://u:" + secret + "@host:x/", Shards: 1}, "percent-encoded"},
		{"bad heartbeat", Config{URL: "amqp://u:" + secret + "@host/?heartbeat=" + secret, Shards: 1}, "percent-encoded"},
		{"bad mechanism", Config{URL: "amqp://u:" + secret + "@host/?auth_mechanism=" + secret, Shards: 1}, "auth_mechanism"},
		{"no shards", Config{URL: "amqp://u:" + secret + "@host/"}, "shards"},
		{"many shards", Config{URL: "amqp://u:" + secret + "@host/", Shards: maxShards + 1}, "shards"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := New(c.cfg)
			if err == nil {
				_ = b.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q does not say %q", err, c.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%q holds the password", err)
			}
		})
	}
}

func TestTargetName(t *testing.T) {
	for raw, want := range map[string]string{
		"amqp://":              "amqp://guest@localhost:5672/",
		"amqp://u:p%2Fw@host/": "amqp://u@host:5672/",
		"amqps://u:pw@[::1]:99/v%2Fh?cacertfile=pw": "amqps://u@[::1]:99/v%2Fh",
	} {
		got, err := parseTarget(raw)
		if err != nil || got.name != want || got.url != raw {
			t.Errorf("%q: %+v, %v; want name %q", raw, got, err, want)
		}
	}
}

func TestExplain(t *testing.T) {
	where := target{name: "amqp://u@host:5672/v"}
	for _, c := range []struct {
		name    string
		err     error
		refused bool
		want    string
	}{
		{"network", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, false, "dial"},
		{"lost", &amqp.Error{Code: amqp.FrameError, Reason: "EOF"}, false, "EOF"},
		{"shut down", &amqp.Error{Code: amqp.ConnectionForced, Reason: "broker forced", Server: true}, false, "broker forced"},
		{"login", &amqp.Error{Code: amqp.AccessRefused, Reason: "ACCESS_REFUSED - Login", Server: true}, true, "password"},
		{"virtual host", &amqp.Error{Code: amqp.NotAllowed, Reason: "vhost v not found", Server: true}, true, "virtual host"},
		// The library's guesses when a broker that stops cuts the handshake.
		{"cut in the login", amqp.ErrCredentials, false, "password"},
		{"cut in the open", amqp.ErrVhost, false, "closed the connection"},
		{"refusal", fmt.Errorf("step: %w", conn.Refused(errors.New("other arguments"))), true, "other arguments"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := where.explain(c.err)
			if !strings.HasPrefix(got.Error(), where.name+": ") || !strings.Contains(got.Error(), c.want) {
				t.Errorf("%q, want %q about %q", got, c.want, where.name)
			}
			if refused := conn.IsRefused(got, 0); refused != c.refused {
				t.Errorf("a refusal: %v, want %v", refused, c.refused)
			}
		})
	}
}

func TestCount(t *testing.T) {
	body := make([]byte, 100)
	for _, c := range []struct {
		header any
		want   int
	}{
		{int64(3), 3},
		{int32(3), 3},
		{int16(3), 3},
		{int8(3), 3},
		{uint8(3), 3},
		{uint16(3), 3},
		{uint32(3), 3},
		{int64(100), 100},
		{int64(101), 0}, // a message has at least a byte
		{int64(math.MaxInt64), 0},
		{int64(-1), 0},
		{"3", 0},
		{3.0, 0},
		{nil, 0},
	} {
		got := count(&amqp.Delivery{Headers: amqp.Table{countHeader: c.header}, Body: body})
		if got != c.want {
			t.Errorf("count %#v: %d, want %d", c.header, got, c.want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"abcd", "abcd"},
		{"abcdefg", "abcde"},
		{"abcdä", "abcd\ufffd"},
		{"\xff", "\ufffd"},
	} {
		if got := cut(c.text, 5); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

// TestUnsent: an error of a write means "certainly not" only if a frame was
// not written.
func TestUnsent(t *testing.T) {
	c := &confirmChannel{session: &session{broker: &Broker{}}}
	if err := c.unsent(amqp.ErrClosed); !errors.Is(err, broker.ErrRejected) {
		t.Errorf("closed: %v, want ErrRejected", err)
	}
	if err := c.unsent(os.ErrDeadlineExceeded); !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("a write: %v, want ErrUnknown", err)
	}
}

// TestMark: what was returned is known by its queue and id, in every call.
func TestMark(t *testing.T) {
	c := &confirmChannel{session: &session{Life: conn.NewLife()}, expected: map[*publishCall]struct{}{}, missing: map[string]struct{}{}}
	first, second := newPublishCall(3), newPublishCall(2)
	first.add(0, "q", amqp.Publishing{MessageId: "a"})
	first.add(1, "q", amqp.Publishing{MessageId: "b"})
	first.add(2, "p", amqp.Publishing{MessageId: "a"})
	second.add(0, "p", amqp.Publishing{MessageId: "b"})
	second.add(1, "q", amqp.Publishing{MessageId: "a"}) // retried
	c.expect(first)
	c.expect(second)
	for range 2 {
		c.mark(&amqp.Return{RoutingKey: "q", MessageId: "a", ReplyText: "NO_ROUTE"})
	}
	var marked []bool
	for _, call := range []*publishCall{first, second} {
		for i := range call.publications {
			marked = append(marked, call.publications[i].returned.Load() != nil)
		}
	}
	if want := []bool{true, false, false, false, true}; !slices.Equal(marked, want) {
		t.Errorf("marked %v, want %v", marked, want)
	}
	if len(c.session.Repair()) != 1 {
		t.Error("the queues are not declared again")
	}
	c.forget(first)
	c.forget(second)
	if len(c.expected) != 0 {
		t.Errorf("%d calls are expected after all were forgotten", len(c.expected))
	}
}

// TestStale: the reason is told, unless it only says the same.
func TestStale(t *testing.T) {
	for _, same := range []error{nil, amqp.ErrClosed} {
		if got := stale(same); got != broker.ErrStale {
			t.Errorf("%v, want ErrStale alone", got)
		}
	}
	if got := stale(io.EOF); !errors.Is(got, broker.ErrStale) || !errors.Is(got, io.EOF) {
		t.Errorf("%v, want ErrStale and EOF", got)
	}
}
