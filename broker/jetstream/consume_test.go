package jetstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/faults/process"
	"async-data-processor/message"
)

// impatient is a timing whose silences are short.
func impatient() timing {
	tm := defaultTiming
	tm.ackWait, tm.pin, tm.pull = 2*time.Second, 2*time.Second, 600*time.Millisecond
	tm.Refused, tm.Max = 200*time.Millisecond, 200*time.Millisecond
	return tm
}

// holderVariable is the broker's URL for a process that runs holdForEver.
const holderVariable = "JETSTREAM_TEST_HOLDER"

// holds is how many envelopes it takes.
const holds = 3

// holdForEver consumes shard 0 and settles nothing, until the process is killed.
func holdForEver(url string) {
	b, err := New(Config{URL: url, Shards: 2})
	if err != nil {
		panic(err)
	}
	deliveries := make(chan *message.Delivery)
	go func() { _ = b.Consume(context.Background(), 0, holds, deliveries) }()
	for d := range deliveries {
		fmt.Println(d.ID)
	}
}

// hold starts a process that holds the first envelopes of shard 0.
func hold(t testing.TB, n *node) (held map[string]bool, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderVariable+"="+n.url())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ended, err := process.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	held = map[string]bool{}
	for lines := bufio.NewScanner(out); len(held) < holds && lines.Scan(); {
		held[lines.Text()] = true
	}
	return held, func() {
		_ = cmd.Process.Kill()
		<-ended
	}
}

// TestStandbyTakesOver kills the process that consumes a shard.
func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	b := openBroker(t, Config{URL: n.url()})
	awaitReady(t, b)
	want := map[string]bool{}
	for range 4 { // the holder takes three
		e := envelope(0)
		want[e.ID] = true
		publish(t, b, e)
	}

	held, kill := hold(t, n)
	in := consume(t, b, 0, 10)
	in.none(500 * time.Millisecond)
	kill()
	killed := time.Now()
	for len(want) > 0 {
		d := in.next()
		if !want[d.ID] {
			t.Errorf("%q was delivered twice", d.ID)
		}
		if d.Redelivered != held[d.ID] {
			t.Errorf("redelivered: %v, but held: %v", d.Redelivered, held[d.ID])
		}
		delete(want, d.ID)
		settled(t, d, message.Ack)
	}
	if took := time.Since(killed); took > defaultTiming.pin+15*time.Second {
		t.Errorf("the standby had it all after %v, want about %v", took, defaultTiming.pin)
	}
}

// TestHolds keeps all that it may have for longer than the server's patience:
// neither the envelope nor the place goes to another one.
func TestHolds(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	active, standby := openTimed(t, Config{URL: n.url()}, impatient()), openTimed(t, Config{URL: n.url()}, impatient())
	awaitReady(t, active)
	for range 2 {
		publish(t, active, envelope(0))
	}
	in := consume(t, active, 0, 1)
	d := in.next()
	other := consume(t, standby, 0, 1)
	other.none(2 * impatient().ackWait)
	settled(t, d, message.Ack)
	next := in.next()
	if next.Redelivered {
		t.Error("what waited is called redelivered")
	}
	// The intake ends, the hold does not.
	in.cancel()
	if err := <-in.done; err != nil {
		t.Fatal(err)
	}
	other.none(2 * impatient().ackWait)
	settled(t, next, message.Ack)
	awaitDepth(t, n.url(), 0, 0)
	if subs := active.session(t).subs.all(); len(subs) != 0 {
		t.Errorf("%d subscriptions are remembered with nothing held", len(subs))
	}
}

// session is the session that consumes.
func (b *Broker) session(t testing.TB) *session {
	t.Helper()
	s, err := b.conns.Consuming.Current()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCloseConfirms settles faster than the server applies it. When Close
// returns, the server has.
func TestCloseConfirms(t *testing.T) {
	t.Parallel()
	const all = 3 * window
	n := newNode(t, "")
	patient := defaultTiming
	patient.Close = time.Minute // a slow disk is not what is tested
	b := openTimed(t, Config{URL: n.url()}, patient)
	awaitReady(t, b)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range all / 32 {
				publish(t, b, envelope(0))
			}
		})
	}
	wg.Wait()
	in := consume(t, b, 0, all)
	var held []*message.Delivery
	for range all {
		held = append(held, in.next())
	}
	for _, d := range held {
		settled(t, d, message.Ack)
	}
	if s := b.session(t); !s.settling.behind(defaultTiming.ackWait) {
		t.Log("the server was as fast")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := depthOf(t, n.url(), 0); got != 0 {
		t.Errorf("%d envelopes are left", got)
	}
}

// TestBehind: a server that confirms nothing is not waited for forever.
func TestBehind(t *testing.T) {
	s := &session{broker: &Broker{timing: impatient()}}
	s.settling.unconfirmed.Store(window)
	s.settling.lastConfirm.Store(time.Now().UnixNano())
	if !s.settling.behind(impatient().ackWait) {
		t.Error("a full window is not behind")
	}
	s.settling.lastConfirm.Store(time.Now().Add(-2 * impatient().ackWait).UnixNano())
	if s.settling.behind(impatient().ackWait) || s.settling.unconfirmed.Load() != 0 {
		t.Error("it waits forever")
	}
	s.ackConfirmed(0)
	if got := s.settling.unconfirmed.Load(); got != 0 {
		t.Errorf("a late confirm makes %d", got)
	}
}

// TestPendingAcks: what is not confirmed of a shard counts for it, but not for ever.
func TestPendingAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := settling{shards: map[int]*pendingAcks{}}
		const patience = time.Minute
		check := func(shard, want int) {
			t.Helper()
			if got := g.pending(shard, patience); got != want {
				t.Errorf("%d are pending of shard %d, want %d", got, shard, want)
			}
		}
		g.sent(0)
		g.sent(0)
		g.sent(1)
		check(0, 2)
		check(1, 1)
		time.Sleep(patience)
		g.confirmed(0)
		check(0, 1)
		time.Sleep(time.Second)
		check(0, 1)
		check(1, 0)    // nothing was confirmed of it for long
		g.confirmed(1) // late
		check(1, 0)
		g.sent(1)
		g.reset()
		check(0, 0)
		check(1, 0)
	})
}

// TestDeliversOnce lets the server deliver again what is held.
func TestDeliversOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	b := openBroker(t, Config{URL: n.url()})
	awaitReady(t, b)
	publish(t, b, envelope(0))
	in := consume(t, b, 0, 5)
	d := in.next()
	s := b.session(t)
	sub := s.subs.all()[0]
	sub.mu.Lock()
	var u *unacked
	for _, u = range sub.unacked {
		break
	}
	reply := u.reply
	sub.mu.Unlock()
	if err := s.conn.Publish(reply, []byte(nak)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		sub.mu.Lock()
		defer sub.mu.Unlock()
		return u.reply != reply
	}, func() string { return "it was not delivered again" })
	in.none(100 * time.Millisecond)
	settled(t, d, message.Ack)
	_ = b.Close()
	if got := depthOf(t, n.url(), 0); got != 0 {
		t.Errorf("%d envelopes are left", got)
	}
}

func TestConsumerDeleted(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	told := &events{}
	b := openBroker(t, Config{URL: n.url(), Events: told.add})
	awaitReady(t, b)
	e := envelope(1)
	publish(t, b, e)
	in := consume(t, b, 1, 5)
	old := in.next()
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		return js.DeleteConsumer(ctx, ShardStream, consumerOf(1))
	})
	again := in.next()
	if again.ID != e.ID {
		t.Errorf("got %q, want %q", again.ID, e.ID)
	}
	told.awaitState(t, event.Cancelled, "deleted")
	if err := old.Settle(message.Outcome{}); !errors.Is(err, broker.ErrStale) {
		t.Errorf("settling a delivery of the old consumer: %v, want ErrStale", err)
	}
	if got := depthOf(t, n.url(), 1); got != 1 {
		t.Errorf("%d envelopes, want the one that is held", got)
	}
	settled(t, again, message.Ack)
}

// TestDeadLetterFails fills the stream of the dead letters.
func TestDeadLetterFails(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	told := &events{}
	b := openTimed(t, Config{URL: n.url(), Events: told.add}, impatient())
	awaitReady(t, b)
	room := func(bytes int64) {
		admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
			cfg := b.deadLetters()
			cfg.MaxBytes = bytes
			_, err := js.UpdateStream(ctx, cfg)
			return err
		})
	}
	room(1)
	e := envelope(0)
	publish(t, b, e)
	in := consume(t, b, 0, 1)
	kept := make(chan error, 1)
	d := in.next()
	go func() { kept <- d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: "unreadable"}) }()
	told.await(t, failedDeadLetter, "maximum bytes")
	if b.Ready() != nil {
		t.Errorf("not ready because of the dead letters: %v", b.Ready())
	}
	room(-1)
	if err := <-kept; err != nil { // it was not given up
		t.Fatal(err)
	}
	told.await(t, deadLettered, "unreadable")

	// Repaired and published again with the same id, it may fail again.
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		stream, err := js.Stream(ctx, ShardStream)
		if err != nil {
			return err
		}
		return stream.Purge(ctx)
	})
	foreign(t, n.url(), 0, e.ID, e.Body)
	settled(t, in.next(), message.DeadLetter)
	if got := len(deadLettersOf(t, n.url())); got != 2 {
		t.Errorf("%d dead letters, want 2", got)
	}
}

func TestLameDuck(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	told := &events{}
	b := openBroker(t, Config{URL: n.url(), Events: told.add})
	awaitReady(t, b)
	n.Signal(syscall.SIGUSR2)
	told.awaitState(t, event.Lost, "about to stop")
	n.Kill()
	n.start(t)
	awaitReady(t, b)
	publish(t, b, envelope(0))
}
