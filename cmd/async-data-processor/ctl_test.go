package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// TestCtl sends commands to a process by its address, with a token, and by the socket of
// its store.
func TestCtl(t *testing.T) {
	t.Chdir(t.TempDir())
	p := rig.Start(t, "standalone", "BROKER_URL=embedded:data/broker", "DATA_OUTPUT_DIR=data", "SHARDS_COUNT=12", "EMBEDDED_MIN_FREE=1048576", "OUTPUT_MIN_FREE=0", "ADMIN_TOKENS=ann:secret")
	p.AwaitShards(12)
	if err := os.WriteFile("token", []byte("ann:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctl := func(want int, args ...string) (out, told string) {
		t.Helper()
		return runs(t, want, append([]string{"ctl"}, args...)...)
	}
	url := "--url=http://" + p.Addr
	out, _ := ctl(exitClean, "pause", "shard", "11", url, "--token-file=token", "--reason", "moving the files", "--until", "2h")
	if !strings.HasPrefix(out, "shard 11: paused until ") || !strings.HasSuffix(out, "(was: running, 3 to 4 workers)\n") {
		t.Errorf("pause printed %q", out)
	}
	p.Await("the audit", func(l rig.Line) bool { return l.Message == "command received" })
	if _, told := ctl(exitFailure, "resume", "shard", "11", url); !strings.Contains(told, "401") || !strings.Contains(told, "ADMIN_TOKENS, name a file with --token-file") {
		t.Errorf("without a token: %q", told)
	}
	if out, _ := ctl(exitClean, "resize", "shard", "all", "--min", "1", "--max", "2"); strings.Count(out, "1 to 2 workers") != 12 || !strings.HasPrefix(out, "shard 0: running, 1 to 2 workers (was: running, 3 to 4 workers)\nshard 1:") {
		t.Errorf("by the socket it printed %q", out)
	}
	if _, told := ctl(exitFailure, "resize", "shard", "1", "--min", "3", "--max", "2"); !strings.Contains(told, "want 1 <= min <= max <= 32") {
		t.Errorf("a bad resize: %q", told)
	}
	if _, told := ctl(exitFailure, "pause", "shard", "77"); !strings.Contains(told, "there is no shard 77, there are shards 0 to 11") {
		t.Errorf("a shard that is not there: %q", told)
	}
	if out, _ := ctl(exitClean, "pause", "intake", "--reason", "maintenance"); !strings.HasPrefix(out, "intake at ") || !strings.HasSuffix(out, ": paused (was: open)\n") {
		t.Errorf("pause of the intake: %q", out)
	}
	ctl(exitClean, "resume", "intake")
	for _, wrong := range [][]string{{"flush", "intake"}, {"pause", "intake", "3"}, {"pause", "shard"}, {"resize", "intake", "--min", "1"}, {"pause", "server"}} {
		ctl(exitUsage, wrong...)
	}
	ctl(exitClean, "flush", "shard", "all")
	ctl(exitClean, "resume", "shard", "11")
	if code := p.Stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestCtlOfAnother: what is no answer of this program is no success, and a certificate
// is of no use without TLS.
func TestCtlOfAnother(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer s.Close()
	for _, args := range [][]string{{"--url", s.URL}, {"--url", s.URL, "--tls-cert", "x.pem"}} {
		var stdout, stderr bytes.Buffer
		code := run(append([]string{"ctl", "pause", "shard", "3"}, args...), environment{}.lookup, &stdout, &stderr, make(chan os.Signal))
		if code == exitClean || stderr.Len() == 0 {
			t.Errorf("%q: exit %d, %s%s", args, code, &stdout, &stderr)
		}
	}
}

// TestCtlWithoutOwner: a command that no owner answers may still be done.
func TestCtlWithoutOwner(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	defer s.Close()
	_, told := runs(t, exitFailure, "ctl", "pause", "shard", "3", "--timeout", "1s", "--id", "mine", "--url", s.URL)
	if !strings.Contains(told, "ask again with --id mine") {
		t.Errorf("it told %q", told)
	}
}

func TestUntil(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 500, time.UTC)
	for text, want := range map[string]string{"2h": "2026-11-29T14:00:00Z", "2026-12-24T18:00:00+01:00": "2026-12-24T18:00:00+01:00", "-2h": "", "0": "", "now": ""} {
		got, err := untilOf(text, now)
		if (err != nil) != (want == "") || err == nil && got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
}
