package jetstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
)

func TestJudge(t *testing.T) {
	answer := func(text string) *nats.Msg { return &nats.Msg{Data: []byte(text)} }
	failure := func(code jetstream.ErrorCode) *nats.Msg {
		return answer(fmt.Sprintf(`{"error":{"code":503,"err_code":%d,"description":"no"}}`, code))
	}
	for name, c := range map[string]struct {
		answer        *nats.Msg
		want          error
		missing, full bool
	}{
		"stored":             {answer: answer(`{"stream":"ASYNC_DATA_PROCESSOR","seq":7}`)},
		"stored before":      {answer: answer(`{"stream":"ASYNC_DATA_PROCESSOR","seq":7,"duplicate":true}`)},
		"no responders":      {answer: &nats.Msg{Header: nats.Header{"Status": {"503"}}}, want: broker.ErrRejected, missing: true},
		"stream not found":   {answer: failure(10059), want: broker.ErrRejected, missing: true},
		"maximum bytes":      {answer: failure(10077), want: broker.ErrRejected, full: true},
		"no space":           {answer: failure(10047), want: broker.ErrRejected, full: true},
		"resources":          {answer: failure(10023), want: broker.ErrRejected, full: true},
		"memory":             {answer: failure(10028), want: broker.ErrRejected, full: true},
		"account":            {answer: failure(10002), want: broker.ErrRejected, full: true},
		"too large":          {answer: failure(10054), want: broker.ErrRejected},
		"still in process":   {answer: failure(10158), want: broker.ErrUnknown},
		"of another stream":  {answer: answer(`{"stream":"OTHER","seq":7}`), want: broker.ErrUnknown},
		"without a sequence": {answer: answer(`{"stream":"ASYNC_DATA_PROCESSOR"}`), want: broker.ErrUnknown},
		"not JSON":           {answer: answer(`+OK`), want: broker.ErrUnknown},
		"empty":              {answer: answer(``), want: broker.ErrUnknown},
	} {
		got := judge(c.answer, ShardStream)
		if !errors.Is(got.err, c.want) || (c.want == nil) != (got.err == nil) || got.missing != c.missing || got.full != c.full {
			t.Errorf("%s: %v, missing %v, full %v; want %v, %v, %v", name, got.err, got.missing, got.full, c.want, c.missing, c.full)
		}
	}
}

func TestUnsent(t *testing.T) {
	s := &session{broker: &Broker{}}
	for err, want := range map[error]error{
		nats.ErrConnectionClosed: broker.ErrRejected,
		nats.ErrMaxPayload:       broker.ErrRejected,
		os.ErrDeadlineExceeded:   broker.ErrUnknown,
		net.ErrClosed:            broker.ErrUnknown,
	} {
		if got := s.unsent(err); !errors.Is(got, want) || !errors.Is(got, err) {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	missing, empty := filepath.Join(t.TempDir(), "missing"), filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cfg                  Config
		servers, name, wrong string
	}{
		{Config{URL: "nats://h"}, "nats://h:4222", "nats://h:4222", ""},
		{Config{URL: "tls://u:p%40w@h:1,k:2,tls://[::1]"}, "tls://h:1,tls://k:2,tls://[::1]:4222", "tls://u@h:1,k:2,[::1]:4222", ""},
		{Config{URL: "nats://secret@h,secret2"}, "nats://h:4222,nats://secret2:4222", "nats://h:4222,secret2:4222", ""},
		{Config{URL: "nats://u:secret@h,nats://u:secret@k/"}, "nats://h:4222,nats://k:4222", "nats://u@h:4222,k:4222", ""},
		{Config{}, "", "", "does not parse"},
		{Config{URL: "nats://u:secret%zz@h"}, "", "", "does not parse"},
		{Config{URL: "nats://u:secret@h,nats://u:other@k"}, "", "", "must be the same"},
		{Config{URL: "nats://h,nats://u:secret@k"}, "", "", "must be the same"},
		{Config{URL: "nats://h,tls://k"}, "", "", "scheme"},
		{Config{URL: "amqp://u:secret@h"}, "", "", "scheme"},
		{Config{URL: "nats://h/path"}, "", "", "does not parse"},
		{Config{URL: "nats://h?secret"}, "", "", "does not parse"},
		{Config{URL: "nats://"}, "", "", "does not parse"},
		{Config{URL: "nats://h", Cert: "x"}, "", "", "both or none"},
		{Config{URL: "nats://h", Cert: missing, Key: missing}, "", "", "certificate"},
		{Config{URL: "nats://h", CA: missing}, "", "", "authorities"},
		{Config{URL: "nats://h", CA: empty}, "", "", "no PEM"},
		{Config{URL: "nats://h", Credentials: missing}, "", "", "credentials"},
	} {
		got, err := parseTarget(c.cfg)
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: %v, want one with %q and no secret", c.cfg.URL, err, c.wrong)
			}
			continue
		}
		if err != nil || got.servers != c.servers || got.name != c.name {
			t.Errorf("%q: %q, %q, %v; want %q, %q", c.cfg.URL, got.servers, got.name, err, c.servers, c.name)
		}
	}
	for _, cfg := range []Config{{URL: "nats://h"}, {URL: "nats://h", Shards: 2001}, {URL: "nats://h", Shards: 1, Replicas: 6}, {Shards: 1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New(%+v) returned no error", cfg)
		}
	}
}

func TestExplain(t *testing.T) {
	target, err := parseTarget(Config{URL: "nats://u:secret@h"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err     error
		want    string
		refusal bool
	}{
		{errors.New("why\nsecret not"), "nats://u@h:4222: why *** not", false},
		{nats.ErrAuthExpired, "nats://u@h:4222: access refused, check", true},
		{fmt.Errorf("%w: publish", nats.ErrPermissionViolation), "nats://u@h:4222: the user may not do this", true},
		{&tls.CertificateVerificationError{Err: errors.New("no")}, "nats://u@h:4222: the server's certificate is not trusted", true},
		{conn.Refused(errors.New("x")), "nats://u@h:4222: x", true},
	} {
		got := target.explain(c.err)
		if !strings.HasPrefix(got.Error(), c.want) || conn.IsRefused(got, 0) != c.refusal || target.explain(got) != got {
			t.Errorf("%v: %q, want %q, refusal: %v", c.err, got, c.want, c.refusal)
		}
	}
}

func TestHeaderText(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "plain": "plain", "two\r\nlines: x": "two  lines: x", " \xffä\x00 ": "\ufffdä", strings.Repeat("x", 20): strings.Repeat("x", 10),
	} {
		if got := headerText(text, 10); got != want && len(text) < 11 || len(got) > 12 {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for text, want := range map[string]int{"3": 3, "0": 0, "": 0, "-1": 0, "9": 0, "99999999999999999999": 0, "x": 0} {
		if got := count(&nats.Msg{Header: nats.Header{countHeader: {text}}, Data: []byte("12345")}); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestGate(t *testing.T) {
	g := &gate{}
	no := errors.New("no")
	if g.set(nil) || !g.set(no) || g.set(no) || g.reason() != no {
		t.Error("closing a gate is news once")
	}
	if g.over(true, time.Hour) {
		t.Error("a reason that never showed is over at once")
	}
	if !g.over(true, 0) {
		t.Error("a reason that never showed is never over")
	}
	if g.over(false, 0) || !g.over(true, time.Hour) {
		t.Error("a reason that showed is over when it does not show any more")
	}
	if !g.set(nil) || g.over(true, 0) {
		t.Error("an open gate is not over")
	}
}

// TestNothingComesLate publishes into a silence. What was rejected is not in
// the queue afterwards, and the silence ends the connection by itself.
func TestNothingComesLate(t *testing.T) {
	t.Parallel()
	n := newNode(t, "")
	told := &events{}
	b := openBroker(t, Config{URL: n.url(), Events: told.add})
	awaitReady(t, b)
	n.Signal(syscall.SIGSTOP)
	defer n.Signal(syscall.SIGCONT)
	rejected, unknown := 0, 0
	try := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		switch err := brokertest.Publish(ctx, b, envelope(0)); {
		case errors.Is(err, broker.ErrRejected):
			rejected++
		case errors.Is(err, broker.ErrUnknown):
			unknown++
		default:
			t.Errorf("%v from a silent server", err)
		}
	}
	try()
	eventually(t, func() bool { try(); return rejected > 10 }, func() string {
		return fmt.Sprintf("%d unknown, %d rejected", unknown, rejected)
	})
	told.awaitState(t, event.Lost, "")
	n.Signal(syscall.SIGCONT)
	awaitReady(t, b)
	last := envelope(0)
	publish(t, b, last)
	if got := depthOf(t, n.url(), 0); got > unknown+1 {
		t.Errorf("%d envelopes, but only %d may be there", got, unknown+1)
	}
}
