package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"async-data-processor/client"
)

// frames is a server of a tail that sends frames, then says good-bye for ever.
func frames(t *testing.T, all ...string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, f := range append(all, `bye {"retry_ms":0}`) {
			kind, data, _ := strings.Cut(f, " ")
			fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, data)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestListenPrints the entries alone, or all frames; what is not shown is told beside
// them.
func TestListenPrints(t *testing.T) {
	url := frames(
		t, `hello {"type":"hello"}`, `message {"type":"message","id":"a.0","entry":{"value":"<é>"}}`, `message {"type":"message","id":"a.1"}`,
		`message {"type":"message","id":"a.2","truncated":true,"entry":"{\"value\":"}`, `gap {"missed":1,"why":"slow"}`, `gap {"missed":7,"why":"node"}`,
		`gap {"missed":0,"at_least":true,"why":"new\u001b[2J"}`, `gap {"missed":7,"at_least":true,"why":"ring"}`, `sample {"matched":5}`, `sample {"matched":6}`, `stats {}`, `reset {"why":"epoch"}`,
	)
	for args, want := range map[string]string{
		"":          "{\"value\":\"<é>\"}\na.1\n\"{\\\"value\\\":\"\n",
		"--frames ": "{\"type\":\"hello\"}\n{\"type\":\"message\",\"id\":\"a.0\",\"entry\":{\"value\":\"<é>\"}}\n",
	} {
		out, told := runs(t, exitClean, strings.Fields("listen "+args+url)...)
		if !strings.HasPrefix(out, want) || args == "" && out != want {
			t.Errorf("printed\n%s\nwant\n%s", out, want)
		}
		const said = `listen: 1 message is not shown: they came faster than this program, or the connection, took them
listen: 7 messages are not shown: a process could not tell them
listen: an unknown number of messages is not shown: "new\x1b[2J"
listen: at least 7 messages are not shown: the connection was lost for too long
listen: more messages pass than are shown: --rate 0 shows all
listen: the process has started anew, or has forgotten this listener: what passed meanwhile is not shown
`
		if told != said {
			t.Errorf("said\n%s\nwant\n%s", told, said)
		}
	}
}

// TestEventID: a frame is printed with the id behind which a later stream may resume.
func TestEventID(t *testing.T) {
	for text, want := range map[string]string{
		`{"type":"bye"}`: `{"type":"bye","event_id":"e-\"1"}`, `{"type":"bye","why":"limit"}`: `{"type":"bye","event_id":"e-\"1","why":"limit"}`, `{"why":"other"}`: `{"why":"other"}`,
	} {
		if got := string(withEventID(client.Frame{Type: "bye", ID: `e-"1`, JSON: []byte(text)})); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if got := string(withEventID(client.Frame{Type: "bye", JSON: []byte(text)})); got != text {
			t.Errorf("%s without an id, want %s", got, text)
		}
	}
}

// TestPrintable: no entry reaches a terminal with what it obeys, and all of it stays
// JSON.
func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":"é \n"}`: `{"a":"é \n"}`, "\"\u009b2J\u007f\"": `"\u009b2J\u007f"`, "\"\u202e\U000e0001\"": `"\u202e\udb40\udc01"`,
	} {
		if got := string(printable([]byte(text))); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestListenEndsWithItsReader, although there is nothing to print.
func TestListenEndsWithItsReader(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer s.Close()
	reader, writer := pipe(t)
	done := make(chan int, 1)
	var errs strings.Builder
	go func() {
		done <- run([]string{"listen", s.URL}, environment{}.lookup, writer, &errs, nil)
	}()
	select {
	case code := <-done:
		t.Fatalf("exit %d while it has a reader: %s", code, &errs)
	case <-time.After(2 * readerPoll * time.Millisecond):
	}
	reader.Close()
	select {
	case code := <-done:
		if code != 0 {
			t.Errorf("exit %d: %s", code, &errs)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on without a reader")
	}
}

func pipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = reader.Close(), writer.Close() })
	return reader, writer
}
