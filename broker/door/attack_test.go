package door

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker"
)

// knock connects and writes.
func knock(t *testing.T, dir, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, text) // the other side may have had enough of it
	return c
}

const (
	post   = "POST " + Path + " HTTP/1.1\r\nHost: x\r\n"
	chunks = post + "Transfer-Encoding: chunked\r\n\r\n"
)

// TestStrangers: what is no verdict does nothing, whatever it is, and holds up no one.
func TestStrangers(t *testing.T) {
	for name, c := range map[string]struct {
		text, answer string // what comes at least, and is the whole before the other side closes
		left         int
		walks        bool
	}{
		"garbage":             {text: "\x00\xff\n\n\n", answer: "400 Bad Request", left: 3},
		"half a request":      {text: "POST /dead-le", left: 3},
		"half a header":       {text: post + "A: ", left: 3},
		"a huge header":       {text: post + "A: " + strings.Repeat("a", 2<<20), answer: "431 Request Header", left: 3},
		"no body":             {text: post + "\r\n", answer: `no verdict: EOF`, left: 3, walks: true},
		"silence":             {text: chunks, answer: `i/o timeout`, left: 3, walks: true},
		"silence after one":   {text: chunks + "7\r\nremove\n\r\n", answer: `i/o timeout`, left: 2, walks: true},
		"torn verdict":        {text: post + "Content-Length: 6\r\n\r\nremove", answer: `no verdict: EOF`, left: 3, walks: true},
		"another word":        {text: post + "Content-Length: 7\r\n\r\ndelete\n", answer: `no verdict: \"delete\\n\"`, left: 3, walks: true},
		"an endless word":     {text: chunks + "ffffff\r\n" + strings.Repeat("remove", 1000), answer: "buffer full", left: 3, walks: true},
		"a broken chunk":      {text: chunks + "x\r\n", answer: "invalid byte in chunk length", left: 3, walks: true},
		"more than there are": {text: post + "Content-Length: 70000\r\n\r\n" + strings.Repeat("remove\n", 10000), answer: "{}\n", left: 0, walks: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, there := t.TempDir(), newLetters(3)
			serve(t, dir, handler{there, time.Second})
			answer, err := io.ReadAll(knock(t, dir, c.text))
			if !strings.Contains(string(answer), c.answer) {
				t.Errorf("answer %q, %v; want %q", answer, err, c.answer)
			}
			if c.walks {
				<-there.walks
			}
			left := 0
			if err := (Process{dir}).DeadLetters(t.Context(), func(broker.DeadLetter) broker.Verdict { left++; return broker.Keep }); err != nil {
				t.Error(err)
			}
			if left != c.left {
				t.Errorf("%d dead letters are left, want %d", left, c.left)
			}
		})
	}
}

// TestDeadClient: what it has decided is done, and nothing else.
func TestDeadClient(t *testing.T) {
	dir, there := t.TempDir(), newLetters(5)
	serve(t, dir, Handler(there))
	c := knock(t, dir, chunks+"7\r\nremove\n\r\n")
	for in := bufio.NewReader(c); ; {
		text, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, `"ID":"1"`) {
			break
		}
	}
	c.Close()
	if err := <-there.walks; err == nil || len(there.ids) != 4 {
		t.Errorf("%v, and %q are left, want an error and all but the first", err, there.ids)
	}
}

// TestDeaf: a client that reads nothing does not hold the walk for ever.
func TestDeaf(t *testing.T) {
	dir, there := t.TempDir(), newLetters(1000)
	there.ids[0] = strings.Repeat("x", 10<<20)
	serve(t, dir, handler{there, time.Second})
	knock(t, dir, chunks)
	if err := <-there.walks; err == nil {
		t.Error("no error")
	}
}

// TestManyClients: connections beyond the limit wait, and those that ask for nothing
// are closed.
func TestManyClients(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, Handler(newLetters(1)))
	for range 3 * maxConnections {
		knock(t, dir, "")
	}
	if err := (Process{dir}).DeadLetters(t.Context(), keep); err != nil {
		t.Error(err)
	}
}

// TestDeadProcess: a process that ends, or is another program, is an error.
func TestDeadProcess(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"ends at once":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"ends later":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"letter":{}}`) },
		"has no letters": http.NotFound,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			serve(t, dir, h)
			if err := (Process{dir}).DeadLetters(t.Context(), keep); err == nil || errors.Is(err, ErrNoProcess) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v, want an error that names the folder", err)
			}
		})
	}
}
