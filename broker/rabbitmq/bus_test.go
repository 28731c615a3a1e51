package rabbitmq

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
	"async-data-processor/message"
)

// busEvents are what was told of the connection of the bus.
func (e *events) busEvents() (all []event.Connection) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		if c, ok := x.(event.Connection); ok && c.Role == conn.Bus {
			all = append(all, c)
		}
	}
	return all
}

// listenTo returns what a listener hears: a body, or "begun".
func listenTo(t *testing.T, b *Broker, topic string) <-chan string {
	t.Helper()
	hears := make(chan string, 1000)
	t.Cleanup(b.Listen(topic, func(body []byte, missed int) {
		if missed == broker.Reconnected {
			body = []byte("begun")
		}
		hears <- string(body)
	}))
	return hears
}

func hear(t *testing.T, hears <-chan string, want string) {
	t.Helper()
	select {
	case got := <-hears:
		if got != want {
			t.Fatalf("heard %q, want %q", got, want)
		}
	case <-time.After(2 * time.Minute):
		t.Fatalf("heard nothing within 2 minutes, want %q", want)
	}
}

// TestBusExchangeDeleted: the exchange is made again, and a client that only listens
// notices, too, also if another program has made it again before.
func TestBusExchangeDeleted(t *testing.T) {
	node := sharedNode(t)
	tm := quick()
	tm.check = 1500 * time.Millisecond
	b, told := openBroker(t, node, tm)
	other, _ := openBroker(t, node, tm)
	ready(t, b)
	if n := len(told.busEvents()); n != 0 {
		t.Errorf("%d events of the bus before its first use", n)
	}
	hears, others := listenTo(t, b, "news"), listenTo(t, other, "news")
	hear(t, hears, "begun")
	hear(t, others, "begun")
	for i, again := range []bool{false, true} {
		admin(t, node, func(ch *amqp.Channel) error {
			err := ch.ExchangeDelete(busExchange, false, false)
			if again && err == nil {
				err = ch.ExchangeDeclare(busExchange, amqp.ExchangeTopic, true, false, false, false, nil)
			}
			return err
		})
		hear(t, hears, "begun")
		hear(t, others, "begun")
		body := fmt.Sprint(i)
		if err := other.Tell("news", []byte(body)); err != nil {
			t.Fatal(err)
		}
		hear(t, hears, body)
		hear(t, others, body)
	}
	if err := b.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

// TestBusBindsWhileItTells: what a process listens to changes while it tells, on one
// connection.
func TestBusBindsWhileItTells(t *testing.T) {
	tm := quick()
	tm.rpc = time.Minute // what is told goes first
	b, told := openBroker(t, sharedNode(t), tm)
	hears := listenTo(t, b, "news")
	hear(t, hears, "begun")
	done := make(chan struct{})
	var tellers sync.WaitGroup
	defer tellers.Wait()
	defer close(done)
	for range 4 {
		tellers.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(50 * time.Microsecond):
				}
				if err := b.Tell("nobody", []byte("x")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 500 {
		begun := make(chan struct{})
		var once sync.Once
		stop := b.Listen(fmt.Sprint("other.", i), func([]byte, int) { once.Do(func() { close(begun) }) })
		select {
		case <-begun:
		case <-hears: // that it begins again
			t.Fatalf("after %d times: %+v", i, told.busEvents())
		}
		stop()
	}
}

// TestBusDenied: a user who may not use the bus publishes and consumes as ever. It is
// told once, and when it is over. What has to be granted is in the documents.
func TestBusDenied(t *testing.T) {
	node := privateNode(t)
	private.must(t, "ctl", "add_vhost", "bus")
	private.must(t, "ctl", "add_user", "restricted", "secret")
	t.Cleanup(func() {
		private.must(t, "ctl", "delete_vhost", "bus")
		private.must(t, "ctl", "delete_user", "restricted")
	})
	const queues = `async-data-processor\.(shard\..*|dead)`
	const withBus = queues + `|async-data-processor\.bus|amq\.gen-.*`
	grant := func(resources string) {
		private.must(t, "ctl", "set_permissions", "-p", "bus", "restricted",
			"^("+resources+")$", "^("+resources+`|amq\.default)$`, "^("+resources+")$")
	}
	grant(queues)
	u, err := url.Parse(withPath(node, "/bus"))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("restricted", "secret")
	tm := quick()
	tm.Refused = 50 * time.Millisecond
	b, told := openBroker(t, u.String(), tm)
	hears := listenTo(t, b, "news")
	soon(t, "told", func() bool { return len(told.busEvents()) > 0 })
	publishUntil(t, b, envelope(0))
	settleNext(t, b)
	time.Sleep(20 * tm.Refused)
	if all := told.busEvents(); len(all) != 1 || all[0].State != event.Unreachable || !strings.Contains(all[0].Err.Error(), busExchange) {
		t.Errorf("told %+v, want once that the exchange may not be used", all)
	}
	if err := b.Tell("news", nil); err == nil || !strings.Contains(err.Error(), "access refused") {
		t.Errorf("Tell: %v, want why there is no bus", err)
	}
	if err := b.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	grant(withBus)
	hear(t, hears, "begun")
	if all := told.busEvents(); all[len(all)-1].State != event.Connected {
		t.Errorf("told %+v, want that it is connected in the end", all)
	}
	if err := b.Tell("news", []byte("1")); err != nil {
		t.Error(err)
	}
	hear(t, hears, "1")
	t.Cleanup(b.Answer("who", func([]byte) []byte { return []byte("me") }))
	soon(t, "an answer", func() (ok bool) {
		err := b.Ask(t.Context(), "who", nil, func([]byte) bool { ok = true; return false })
		return err == nil && ok
	})
}

func settleNext(t *testing.T, b *Broker) {
	t.Helper()
	deliveries, stop := consumeUntil(t, b, 0)
	if err := next(t, deliveries).Settle(message.Outcome{Kind: message.Ack}); err != nil {
		t.Error(err)
	}
	stop()
}

// TestBusQueue: what waits for a process that does not read is bounded, and goes with it.
func TestBusQueue(t *testing.T) {
	node := sharedNode(t)
	b, _ := openBroker(t, node, quick())
	hear(t, listenTo(t, b, "news"), "begun")
	s, err := b.conns.Bus.Current()
	if err != nil {
		t.Fatal(err)
	}
	queue := s.bus.queue
	gone := func() (err error) {
		c, dialErr := amqp.Dial(node)
		if dialErr != nil {
			t.Fatal(dialErr)
		}
		defer c.Close()
		ch, chErr := c.Channel()
		if chErr != nil {
			t.Fatal(chErr)
		}
		_, err = ch.QueueDeclarePassive(queue, false, true, true, false, nil)
		return err
	}
	if e, ok := gone().(*amqp.Error); !ok || e.Code != amqp.ResourceLocked {
		t.Errorf("%v, want that the queue belongs to one connection", e)
	}
	_ = b.Close()
	soon(t, "the queue goes", func() bool { e, ok := gone().(*amqp.Error); return ok && e.Code == amqp.NotFound })
}
