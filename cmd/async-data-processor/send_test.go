package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/client"
)

// TestProgress: a terminal has the progress in its last line, other lines take its
// place. Nothing else gets it.
func TestProgress(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			s := &sendScreen{out: &out, terminal: terminal, began: time.Now()}
			done := s.watch(client.NewLines(client.LinesConfig{}))
			time.Sleep(progressInterval + 1)
			s.rejected(17, "it is wrong")
			done()
			want := eraseLine + "0 lines read: 0 accepted, 0 rejected, 0 a second" + eraseLine
			if !terminal {
				want = ""
			}
			if want += "line 17 is rejected: it is wrong\n"; out.String() != want {
				t.Errorf("terminal %v: %q, want %q", terminal, out.String(), want)
			}
		})
	}
}

// TestLostConnection: one that stays lost is told once in a while, and that there is one
// again.
func TestLostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &sendScreen{out: &out}
		for range 30 {
			s.lost(errors.New("refused"), 0)
			time.Sleep(time.Second)
		}
		s.connected(client.Handshake{Node: "writer"})
		s.connected(client.Handshake{Node: "writer"})
		want := strings.Repeat("no connection, trying again: refused\n", 3) + "connected to writer\n"
		if out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	})
}

// TestSendIsPlain: a server cannot have a terminal obey.
func TestSendIsPlain(t *testing.T) {
	const bad = "\x1b[2J\nx"
	var out bytes.Buffer
	s := &sendScreen{out: &out}
	s.rejected(1, bad)
	s.lost(errors.New(bad), 0)
	s.refused(errors.New(bad), 0)
	s.connected(client.Handshake{Node: bad})
	s.answer(&out, client.Answer{
		Kind: client.Rejected, ID: bad, Shards: map[string]int{bad: 1}, Problem: client.Problem{Detail: bad},
	}, []client.Range{{First: 1, Last: 1}})
	out.WriteString((&send{want: "accepted"}).outcome(client.Report{}, errors.New(bad)).Error())
	if text := out.String(); strings.Contains(text, "\x1b") || strings.Count(text, "\n") != 5 {
		t.Errorf("%q", text)
	}
}

// TestRefusals: that the server takes nothing is told once while it lasts, and once in a
// while if it comes and goes.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &sendScreen{out: &out}
		for range 30 {
			s.refused(errors.New("a pause"), 4*time.Second)
			time.Sleep(4 * time.Second)
		}
		for range 19 {
			s.refused(nil, 0)
			s.refused(errors.New("a pause"), 4*time.Second)
			time.Sleep(time.Second)
		}
		const told = "the server takes no entries now, trying again in 4s: a pause\n"
		if want := strings.Repeat(told+"the server takes entries again\n", 3); out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	})
}

// TestSummary: what is accepted is not told as unknown, nor is what is certainly not.
func TestSummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &sendScreen{out: &out, wanted: true, began: time.Now()}
		s.summary(client.Report{
			Lines: 6, Accepted: 3, Written: 1, Unwritten: 2, UnwrittenLines: []client.Range{{First: 2, Last: 3}},
			Unsent: 1, UnsentLines: []client.Range{{First: 4, Last: 4}}, Unknown: 2, UnknownLines: []client.Range{{First: 5, Last: 6}},
		})
		const want = `6 lines read: 3 accepted, 1 written, 0 dead, 0 rejected, 2 not known to be written, 1 not accepted, 2 unknown; 0s
not accepted, and to be sent again: 4
accepted, and not known to be written: 2-3
unknown lines, which may be accepted or not: 5-6
`
		if out.String() != want {
			t.Errorf("%s, want %s", out.String(), want)
		}
	})
}

// TestTokenFile: it holds one token, and one that a header can have.
func TestTokenFile(t *testing.T) {
	for text, want := range map[string]string{
		"ann:a": "a", " # of ann\n\n b \n": "b", "": "holds 0 tokens", "a\nb\n": "holds 2 tokens", "a\x00b": "holds no token", "é": "holds no token", "ann:": "holds no token",
	} {
		r := remote{tokenFile: filepath.Join(t.TempDir(), "token")}
		if err := os.WriteFile(r.tokenFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := r.readToken()
		if refused := strings.HasPrefix(want, "holds"); refused != (err != nil) || refused && !strings.Contains(err.Error(), want) || !refused && r.token != want {
			t.Errorf("%q: %q, %v, want %q", text, r.token, err, want)
		}
	}
}

// TestSendOutcome: only what is wholly well is no error.
func TestSendOutcome(t *testing.T) {
	well, rejected := client.Report{Lines: 3, Empty: 1, Accepted: 2}, client.Report{Lines: 2, Accepted: 1, Rejected: 1}
	written := client.Report{Lines: 2, Accepted: 2, Written: 1, Dead: 1}
	for name, tc := range map[string]struct {
		send   send
		report client.Report
		err    error
		want   string // in the error; empty for none
	}{
		"well":                {send{want: "accepted"}, well, nil, ""},
		"rejected":            {send{want: "accepted"}, rejected, nil, "not every line was accepted"},
		"dead":                {send{want: "written"}, written, nil, "not every line was written"},
		"dead, not wanted":    {send{want: "accepted"}, written, nil, ""},
		"signal":              {send{want: "accepted"}, well, errStop, "before the end of the input"},
		"signal for beeps":    {send{want: "accepted", every: 1}, well, errStop, ""},
		"beep rejected":       {send{want: "accepted", every: 1}, rejected, errStop, "not every line was accepted"},
		"refused":             {send{want: "accepted"}, well, client.ErrRefused, "refused"},
		"the read has failed": {send{want: "accepted"}, well, context.DeadlineExceeded, "not all was read and sent"},
	} {
		err := tc.send.outcome(tc.report, tc.err)
		if _, failed := errors.AsType[failure](err); (err != nil) != failed || (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
