package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/broker/jetstream"
	"async-data-processor/broker/local"
	"async-data-processor/broker/rabbitmq"
	"async-data-processor/message"
	"async-data-processor/shard"

	"async-data-processor/faults/process"
	"async-data-processor/faults/rig"
)

// TestDeadLetters: what cannot be written is listed, shown and replayed; what
// can be after all is then in one file, once, and the rest dies again.
func TestDeadLetters(t *testing.T) {
	for name, open := range map[string]func(testing.TB) rig.Broker{
		"rabbitmq": rig.NewVhost, "jetstream": rig.NewNATS, "embedded": rig.NewStore,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testDeadLetters(t, open(t))
		})
	}
}

func testDeadLetters(t *testing.T, b rig.Broker) {
	const shards = 5
	dir := t.TempDir()
	at := time.Date(2019, 10, 12, 8, 10, 54, 0, time.UTC)
	own := shard.Of(at, shards)
	line := `{"message_id":"01JD8Y6G5V3X9Q2R7T4B1C0D5E.0","timestamp":"2019-10-12T08:10:54Z"}`
	// An envelope with one bad line: the others are written.
	good := [2]string{strings.Replace(line, "E.0", "F.0", 1), strings.Replace(line, "E.0", "F.2", 1)}
	bad := `{"message_id":"01JD8Y6G5V3X9Q2R7T4B1C0D5F.1"` + "\n"
	seed(t, b, func(a access) {
		// Two that can be written, with the same message, and a foreign one.
		a.publish(message.Envelope{ID: "valid-1", Shard: own, Count: 1, Body: []byte(line + "\n")})
		a.publish(message.Envelope{ID: "valid-2", Shard: own, Count: 1, Body: []byte(line + "\n")})
		a.foreign(own, "theirs", `{"timestamp":"2019-10-12T08:10:54Z"}`)
		a.kill(own, 3)
		// And two that cannot be.
		a.publish(message.Envelope{ID: "broken", Shard: own, Count: 1, Body: []byte("no newline at the end")})
		a.foreign(own, "garbage", "not JSON \x00\xff")
		a.publish(message.Envelope{ID: "mixed", Shard: own, Count: 3, Body: []byte(good[0] + "\n" + bad + good[1] + "\n")})
	})

	run := newWriter(t, b, "DATA_OUTPUT_DIR="+dir)
	first := run.until("all six dead", func(dead []listed) bool { return len(dead) == 6 })
	byID := map[string]listed{}
	for _, l := range first {
		byID[l.ID] = l
		if l.Shard != own || l.Count != 1 || l.Reason == "" || l.Time.IsZero() || l.Origin == "" || l.Broker == "" {
			t.Errorf("listed %+v, want shard %d, a reason, a time, an origin and the broker", l, own)
		}
	}
	if l := byID["theirs"]; !l.Foreign || l.Reason != "killed by the test" || l.Bytes != 36 {
		t.Errorf("listed %+v, want it foreign, 36 bytes, killed by the test", l)
	}

	mixed := "01JD8Y6G5V3X9Q2R7T4B1C0D5F.1"
	if l := byID[mixed]; !strings.HasPrefix(l.Reason, "line 2 of the envelope is not strict JSON") || l.Bytes != len(bad) {
		t.Errorf("listed %+v, want line 2 alone, and why", l)
	}
	if shown := run.deadLetters(0, "show", mixed); !strings.HasSuffix(shown, "\n\n"+bad) {
		t.Errorf("shown: %q, want the line as it came", shown)
	}

	table := run.deadLetters(0, "list")
	for _, want := range []string{"ID ", "TIME ", "valid-1 ", "killed by the test", fmt.Sprintf("shard %d", own)} {
		if !strings.Contains(table, want) {
			t.Errorf("the table has no %q:\n%s", want, table)
		}
	}
	if lines := strings.Count(table, "\n"); lines != 7 {
		t.Errorf("the table has %d lines, want 7:\n%s", lines, table)
	}
	if shown := run.deadLetters(0, "show", "garbage"); !strings.HasSuffix(shown, "\n\nnot JSON \x00\xff\n") || !strings.Contains(shown, "another program") || !strings.Contains(shown, "\nbroker  ") {
		t.Errorf("shown: %q", shown)
	}
	if shown := run.deadLetters(0, "show", "garbage", "--json"); !strings.Contains(shown, `"body_base64":"bm90IEpTT04gAP8="`) {
		t.Errorf("shown as JSON: %q", shown)
	}
	if b.Consumer == "" {
		run.stop() // without its process, the command opens the store itself
	}
	run.deadLetters(1, "show", "nobody")
	run.deadLetters(1, "replay", "nobody")
	run.deadLetters(2, "purge")
	if out := run.deadLetters(0, "replay", "valid-1"); !strings.HasPrefix(out, "replayed 1 dead letter at ") {
		t.Errorf("replay: %q", out)
	}
	if out := run.deadLetters(0, "replay", "--all"); !strings.HasPrefix(out, "replayed 5 dead letters at ") {
		t.Errorf("replay: %q", out)
	}

	again := run.until("the bad ones dead again", func(dead []listed) bool { return len(dead) == 3 })
	for _, l := range again {
		if old := byID[l.ID]; l.ID != "broken" && l.ID != "garbage" && l.ID != mixed || !l.Time.After(old.Time) || l.Foreign != old.Foreign {
			t.Errorf("listed %+v, want one of the bad ones, dead after %v", l, old.Time)
		}
	}
	run.until("the others in files", func([]listed) bool {
		lines := rig.ReadTree(t, dir, shards, 5).Lines
		return len(lines["theirs"]) > 0 && len(lines["01JD8Y6G5V3X9Q2R7T4B1C0D5E.0"]) > 0
	})
	if out := run.deadLetters(0, "purge", "--yes", "broken"); !strings.HasPrefix(out, "purged 1 dead letter at ") {
		t.Errorf("purge: %q", out)
	}
	if out := run.deadLetters(0, "purge", "--yes"); !strings.HasPrefix(out, "purged 2 dead letters at ") {
		t.Errorf("purge: %q", out)
	}
	run.until("none", func(dead []listed) bool { return len(dead) == 0 })
	run.stop()

	tr := rig.ReadTree(t, dir, shards, 5)
	if len(tr.Lines) != 4 || len(tr.Lines["01JD8Y6G5V3X9Q2R7T4B1C0D5F.0"]) != 1 || len(tr.Lines["01JD8Y6G5V3X9Q2R7T4B1C0D5F.2"]) != 1 || tr.Lines["01JD8Y6G5V3X9Q2R7T4B1C0D5E.0"][0] != line {
		t.Errorf("files hold %v", tr.Lines)
	}
	if n, example := tr.Twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
}

// TestDeadLettersAfterKill: a killed process leaves its socket. That holds up
// neither the command nor the next process.
func TestDeadLettersAfterKill(t *testing.T) {
	t.Parallel()
	b := rig.NewStore(t)
	seed(t, b, func(a access) {
		a.publish(message.Envelope{ID: "broken", Count: 1, Body: []byte("no newline at the end")})
	})
	socket := filepath.Join(strings.TrimPrefix(b.Server, "embedded://"), "control.sock")
	run := newWriter(t, b, "DATA_OUTPUT_DIR="+t.TempDir())
	one := func(dead []listed) bool { return len(dead) == 1 }
	for range 2 {
		run.until("one dead", one)
		run.running.Kill()
		run.running = nil
		if _, err := os.Lstat(socket); err != nil {
			t.Error(err)
		}
		if out := run.deadLetters(0, "list"); !strings.Contains(out, "broken") {
			t.Errorf("listed without a process: %q", out)
		}
	}
	run.until("one dead", one)
	if out := run.deadLetters(0, "purge", "--yes"); !strings.HasPrefix(out, "purged 1 dead letter at ") {
		t.Errorf("purge: %q", out)
	}
	run.stop()
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v, want none", err)
	}
}

// listed is a line of "list --json".
type listed struct {
	ID, Origin, Reason  string
	Broker              string
	Time                time.Time
	Shard, Count, Bytes int
	Foreign             bool
}

// writer is the process that writes, while dead letters are looked at.
type writer struct {
	t        *testing.T
	b        rig.Broker
	settings []string
	running  *rig.Process
}

func newWriter(t *testing.T, b rig.Broker, settings ...string) *writer {
	return &writer{t: t, b: b, settings: settings}
}

func (w *writer) start() {
	switch {
	case w.running != nil:
	case w.b.Consumer == "":
		w.running, _ = w.b.Launch(w.t, w.settings...)
	default:
		w.running = w.b.LaunchConsumer(w.t, w.settings...)
	}
}

func (w *writer) stop() {
	if w.running != nil {
		if code := w.running.Stop(); code != 0 {
			w.t.Errorf("it exits %d", code)
		}
	}
	w.running = nil
}

// until lets it write until the dead letters are as wanted, and returns them.
func (w *writer) until(what string, wanted func([]listed) bool) (dead []listed) {
	w.t.Helper()
	rig.Eventually(w.t, what, func() error {
		w.start()
		dead = nil
		for line := range strings.Lines(w.deadLetters(0, "list", "--json")) {
			var l listed
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				return err
			}
			dead = append(dead, l)
		}
		if !wanted(dead) {
			return fmt.Errorf("there are %+v", dead)
		}
		return nil
	})
	return dead
}

// deadLetters runs the command and returns what it prints.
func (w *writer) deadLetters(code int, args ...string) string {
	w.t.Helper()
	url := w.b.Consumer
	if url == "" {
		url = w.b.Server
	}
	cmd := exec.Command("async-data-processor", append([]string{"dead-letters"}, args...)...)
	cmd.Env = process.Environment("BROKER_URL="+url, "GOCOVERDIR="+w.t.TempDir())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); !exitedWith(err, code) {
		w.t.Fatalf("dead-letters %q: %v, want exit %d\n%s", args, err, code, &stderr)
	}
	return stdout.String()
}

func exitedWith(err error, code int) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.ExitCode() == code || err == nil && code == 0
}

// access is a test's own way to a broker.
type access struct {
	t   *testing.T
	b   broker.Broker
	url string
}

// seed uses the broker while no consumer does.
func seed(t *testing.T, b rig.Broker, use func(access)) {
	t.Helper()
	a := access{t: t, url: b.Consumer}
	var err error
	switch {
	case strings.HasPrefix(a.url, "amqp:"):
		a.b, err = rabbitmq.New(rabbitmq.Config{URL: a.url, Shards: 5})
	case a.url == "":
		a.b, err = local.Open(t.Context(), local.FileConfig{Dir: strings.TrimPrefix(b.Server, "embedded://"), Shards: 5})
	default:
		a.b, err = jetstream.New(jetstream.Config{URL: a.url, Shards: 5})
	}
	if err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "connection", a.b.Ready)
	use(a)
	if err := a.b.Close(); err != nil {
		t.Fatal(err)
	}
}

func (a access) publish(e message.Envelope) {
	a.t.Helper()
	if err := brokertest.Publish(a.t.Context(), a.b, e); err != nil {
		a.t.Fatal(err)
	}
}

// foreign publishes as another program would.
func (a access) foreign(shard int, id, body string) {
	a.t.Helper()
	if a.url == "" {
		a.publish(message.Envelope{ID: id, Shard: shard, Count: 1, Body: []byte(body), Foreign: true})
		return
	}
	name := fmt.Sprint("async-data-processor.shard.", shard)
	if u, err := url.Parse(a.url); err != nil || u.Scheme == "amqp" {
		conn, err := amqp.Dial(a.url)
		if err != nil {
			a.t.Fatal(err)
		}
		defer conn.Close()
		ch, err := conn.Channel()
		if err == nil {
			err = ch.Publish("", name, true, false, amqp.Publishing{MessageId: id, Body: []byte(body)})
		}
		if err == nil {
			err = ch.Close() // it has arrived then
		}
		if err != nil {
			a.t.Fatal(err)
		}
		return
	}
	conn, err := nats.Connect(a.url)
	if err != nil {
		a.t.Fatal(err)
	}
	defer conn.Close()
	js, err := natsjs.New(conn)
	if err == nil {
		_, err = js.Publish(a.t.Context(), name, []byte(body), natsjs.WithMsgID(id))
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// kill makes dead letters of n envelopes.
func (a access) kill(shard, n int) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), rig.Patience)
	deliveries, done := make(chan *message.Delivery), make(chan error, 1)
	go func() { done <- a.b.Consume(ctx, shard, n, deliveries) }()
	for range n {
		select {
		case d := <-deliveries:
			if err := d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: "killed by the test"}); err != nil {
				a.t.Error(err)
			}
		case err := <-done:
			a.t.Fatalf("consuming: %v", err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		a.t.Error(err)
	}
}
