package server

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"async-data-processor/message"
)

// TestPause: a paused server refuses submissions and publishes nothing, stays ready, and
// takes them again when it is resumed or the pause is over.
func TestPause(t *testing.T) {
	rg := start(t, Config{})
	rg.server.Intake.Pause(&Pause{})
	wantProblem(t, rg.post(entry), intakePaused)
	if a := rg.do("GET", "/readyz", nil); a.StatusCode != 200 {
		t.Errorf("a paused server is not ready: %d", a.StatusCode)
	}
	rg.server.Intake.Pause(nil)
	want201(t, rg.post(entry), 1)

	var until time.Time
	var a answer
	accepted := 1
	for a.Response == nil || a.StatusCode == 201 && time.Now().After(until) { // the machine was so busy that it was over
		until = time.Now().Add(1500 * time.Millisecond)
		rg.server.Intake.Pause(&Pause{Until: until})
		if a = rg.post(entry); a.StatusCode == 201 {
			accepted++
		}
	}
	if after := a.Header.Get("Retry-After"); a.StatusCode != 503 || after != "2" && after != "1" {
		t.Errorf("status %d, retry after %q", a.StatusCode, after)
	}
	if detail := "until " + until.UTC().Format(time.RFC3339); !strings.Contains(string(a.body), detail) {
		t.Errorf("the problem lacks %q: %s", detail, a.body)
	}
	rg.server.Intake.Pause(&Pause{Until: time.Now()})
	want201(t, rg.post(entry), 1)
	if rg.server.Intake.Paused() {
		t.Error("a pause does not end")
	}
	rg.wantSubmitted(accepted + 1)
}

// TestPauseUnderWay: a server is not idle before what it publishes is confirmed. It refuses
// what was on its way when the pause began, which does not keep it from being idle.
func TestPauseUnderWay(t *testing.T) {
	rg := start(t, Config{})
	entered, release := make(chan struct{}, 2), make(chan struct{})
	rg.then = func(context.Context, message.Submission) error {
		entered <- struct{}{}
		<-release
		return nil
	}
	published := make(chan answer)
	go func() { published <- rg.post(entry) }()
	<-entered
	socket := rg.ingest("")
	socket.send(entry)
	<-entered
	c := rg.conn(upload(len(entry)) + entry[:5])
	for rg.server.budget.used.Load() < 2*firstChunk+minFrameBytes { // until all three have their share
		time.Sleep(time.Millisecond)
	}
	rg.server.Intake.Pause(&Pause{})
	if rg.server.Intake.Idle() {
		t.Error("idle while two submissions are under way")
	}
	release <- struct{}{}
	if rg.server.Intake.Idle() {
		t.Error("idle while a submission is under way")
	}
	close(release)
	want201(t, <-published, 1)
	socket.wantReplies("accepted 1")
	if !rg.server.Intake.Idle() {
		t.Error("not idle while bodies are on their way, which will be refused")
	}
	socket.send(framed("2"))
	socket.wantReplies("failed 2")
	if _, err := io.WriteString(c, entry[5:]); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, readConn(t, c, "POST"), intakePaused)
	if !rg.server.Intake.Idle() {
		t.Error("not idle when nothing is under way")
	}
	rg.wantSubmitted(2)
}
