package rabbitmq

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
	"async-data-processor/message"
)

// TestPolicies: what a policy takes out of a queue of a shard is a dead letter that
// names the policy, and can be replayed.
func TestPolicies(t *testing.T) {
	url := privateNode(t)
	private.must(t, "ctl", "add_vhost", "policies")
	private.must(t, "ctl", "set_permissions", "-p", "policies", "guest", ".*", ".*", ".*")
	private.must(t, "ctl", "set_policy", "-p", "policies", "--apply-to", "queues", "old", "shard.0$", `{"message-ttl":10}`)
	t.Cleanup(func() { private.must(t, "ctl", "delete_vhost", "policies") })
	b, _ := openBroker(t, withPath(url, "/policies"), quick())
	ready(t, b)
	e := envelope(0)
	publishUntil(t, b, e)
	var letters []broker.DeadLetter
	soon(t, "the dead letter", func() bool {
		letters = nil
		err := b.DeadLetters(t.Context(), func(l broker.DeadLetter) broker.Verdict {
			letters = append(letters, l)
			return broker.Keep
		})
		if err != nil {
			t.Fatal(err)
		}
		return len(letters) > 0
	})
	if l := letters[0]; l.Envelope.ID != e.ID || l.Envelope.Shard != 0 || !strings.Contains(l.Reason, "policy with message-ttl") {
		t.Errorf("got %+v", l)
	}
	private.must(t, "ctl", "clear_policy", "-p", "policies", "old")
	if err := replayAll(t, b); err != nil {
		t.Fatal(err)
	}
	d := next(t, consume(t, b, 0))
	if d.ID != e.ID || string(d.Body) != string(e.Body) {
		t.Errorf("got %+v, want %+v", d.Envelope, e)
	}
}

// api is a management API that says what a test wants.
type api struct {
	*httptest.Server
	status atomic.Int64
	queues atomic.Pointer[string]
}

func newAPI(t *testing.T) *api {
	a := &api{}
	a.status.Store(http.StatusOK)
	a.say(`[]`)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "u" || password != "p@ss" || !strings.HasPrefix(r.URL.Path, "/prefix/api/queues/") {
			t.Errorf("asked %s as %s", r.URL, user)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(int(a.status.Load()))
		_, _ = w.Write([]byte(*a.queues.Load()))
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) say(queues string) { a.queues.Store(&queues) }

func (a *api) url() string {
	return strings.Replace(a.URL, "http://", "http://u:p%40ss@", 1) + "/prefix/"
}

// TestPoliciesAreSeen: a policy that throws messages away makes the broker not ready,
// at the start and later, until it is gone. An API that does not answer is told of.
func TestPoliciesAreSeen(t *testing.T) {
	tm := quick()
	tm.look, tm.Max = 20*time.Millisecond, 100*time.Millisecond
	a, heard := newAPI(t), &events{}
	const bad = `[{"name":"other","effective_policy_definition":{"expires":1}},` +
		`{"name":"async-data-processor.shard.3","policy":"all","operator_policy":null,"effective_policy_definition":{"message-ttl":60000}}]`
	a.say(bad)
	b, err := newBroker(Config{URL: sharedNode(t), Shards: 2, Management: a.url(), Events: heard.hear}, tm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	const want = `a policy throws messages of the queue async-data-processor.shard.3 away: message-ttl is 60000 (policy "all"`
	refused := func() bool { err := b.Ready(); return err != nil && strings.Contains(err.Error(), want) }
	soon(t, "not ready", refused)
	a.say(`[{"name":"async-data-processor.shard.3","effective_policy_definition":[]}]`)
	ready(t, b)
	a.say(bad)
	soon(t, "not ready", refused)
	soon(t, "told", func() bool {
		lost, ok := heard.find(event.Lost, conn.Publish)
		return ok && strings.Contains(lost.Err.Error(), want) && !strings.Contains(lost.Err.Error(), "p@ss")
	})
	a.say(`[]`)
	ready(t, b)
	for status, text := range map[int64]string{http.StatusUnauthorized: "status 401", http.StatusFound: "status 302"} {
		a.status.Store(status)
		soon(t, text, func() bool {
			heard.mu.Lock()
			defer heard.mu.Unlock()
			return slices.ContainsFunc(heard.all, func(e event.Event) bool {
				u, ok := e.(event.PoliciesUnknown)
				return ok && strings.Contains(u.Err.Error(), text)
			})
		})
		if err := b.Ready(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestPolicyConflict: what would throw messages away depends on the queue.
func TestPolicyConflict(t *testing.T) {
	for _, c := range []struct{ queue, policy, want string }{
		{queueName(0), `{"message-ttl":5}`, "message-ttl is 5"},
		{queueName(7), `{"expires":1e3,"max-length":3}`, "expires is 1000"},
		{queueName(7), `{"max-length":3}`, ""}, // publishes are refused then
		{queueName(7), `{"delivery-limit":3}`, ""},
		{queueName(7), `[]`, ""},
		{queueName(7), ``, ""},
		{deadQueue, `{"max-length":3}`, "max-length is 3"},
		{deadQueue, `{"max-length-bytes":3,"overflow":"drop-head"}`, "max-length-bytes is 3"},
		{deadQueue, `{"max-length":3,"overflow":"reject-publish"}`, ""},
		{deadQueue, `{"delivery-limit":3}`, "delivery-limit is 3"},
		{deadQueue, `{"target-group-size":3}`, ""},
		{"other", `{"message-ttl":5}`, ""},
		{queuePrefix + "x", `{"message-ttl":5}`, ""},
	} {
		if got := (queuePolicy{Name: c.queue, Effective: []byte(c.policy)}).conflict(); got != c.want {
			t.Errorf("%s, %s: got %q, want %q", c.queue, c.policy, got, c.want)
		}
	}
}

// TestManagementIsBounded: an API may be silent, or say too much, or nonsense.
func TestManagementIsBounded(t *testing.T) {
	a := newAPI(t)
	m, err := parseManagement(a.url(), "/", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`[` + strings.Repeat(" ", maxPolicies) + `]`: "more than 8 MiB",
		`{"error":"x"}`: "cannot unmarshal",
		``:              "unexpected end",
	} {
		a.say(text)
		if _, err := m.ask(t.Context()); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "p@ss") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	m, err = parseManagement(strings.Replace(silent.URL, "//", "//u:p@", 1), "/", 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.ask(t.Context()); err == nil || strings.Contains(err.Error(), "u:p") {
		t.Errorf("of a silent API: %v", err)
	}
}

func TestCheckManagement(t *testing.T) {
	for raw, ok := range map[string]bool{
		"": true, "http://u:hunter2@host:15672": true, "https://u:hunter2@[::1]/below": true,
		"host:15672": false, "http://host:15672": false, "amqp://u:hunter2@host": false, "http://u:hunter2@": false,
		"http://u:hunter2@host/?x=1": false, "http://u:hunter2%@host": false,
	} {
		err := CheckManagement(raw)
		if (err == nil) != ok || err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", raw, err)
		}
		// What is shown can be used as a URL, too.
		if shown := RedactManagement(raw); strings.Contains(shown, "hunter2") || ok && CheckManagement(shown) != nil {
			t.Errorf("%s is shown as %s", raw, shown)
		}
	}
	m, err := parseManagement("http://u:p@h/", "a/b", 0)
	if want := "http://h/api/queues/a%2Fb?columns="; err != nil || !strings.HasPrefix(m.queues, want) {
		t.Errorf("got %+v, %v, want %s", m, err, want)
	}
}

// TestQueueLost: a queue that was deleted under way, by an operator or for a policy
// with expires, is made again, and told of.
func TestQueueLost(t *testing.T) {
	b, heard := openBroker(t, sharedNode(t), quick())
	ready(t, b)
	publishUntil(t, b, envelope(1))
	if lost, ok := first[event.QueueLost](heard); ok {
		t.Errorf("told %+v of a new queue", lost)
	}
	admin(t, sharedNode(t), func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queueName(1), false, false, false)
		return err
	})
	publishUntil(t, b, envelope(1))
	if lost, _ := first[event.QueueLost](heard); lost.Name != queueName(1) {
		t.Errorf("told %+v, want that the queue %s is lost", lost, queueName(1))
	}
	admin(t, sharedNode(t), func(ch *amqp.Channel) error {
		_, err := ch.QueuePurge(queueName(1), false)
		return err
	})
}

// publishUntil publishes until it succeeds.
func publishUntil(t *testing.T, b *Broker, e message.Envelope) {
	t.Helper()
	soon(t, "published", func() bool { return brokertest.Publish(t.Context(), b, e) == nil })
}
