package server

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRefusedBodyIsReadOn: a client that sends all of its body before it looks at
// the answer sees why it was refused.
func TestRefusedBodyIsReadOn(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"x"}})
	for name, tc := range map[string]struct {
		path, header string
		length       int
		kind         kind
	}{
		"no token":   {"/message", "Content-Type: application/json\r\n", 8 << 20, unauthorized},
		"too long":   {"/message", "Content-Type: application/json\r\nAuthorization: Bearer x\r\n", 24 << 20, tooLarge},
		"media type": {"/message", "Content-Type: text/csv\r\nAuthorization: Bearer x\r\n", 8 << 20, unsupportedMediaType},
		"encoding":   {"/message", "Content-Type: application/json\r\nContent-Encoding: br\r\nAuthorization: Bearer x\r\n", 8 << 20, unsupportedEncoding},
		"path":       {"/messages", "", 8 << 20, notFound},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " chunked ", chunked), func(t *testing.T) {
				framing, body := fmt.Sprintf("Content-Length: %d\r\n", tc.length), strings.Repeat(" ", tc.length)
				if chunked {
					framing, body = "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", tc.length, body)
				}
				c := rg.conn("POST " + tc.path + " HTTP/1.1\r\nHost: x\r\n" + tc.header + framing + "\r\n")
				for sent := 0; sent < len(body); { // slower than the server refuses
					n, err := io.WriteString(c, body[sent:min(len(body), sent+1<<20)])
					if err != nil {
						t.Fatalf("after %d bytes of the body: %v", sent, err)
					}
					sent += n
					time.Sleep(5 * time.Millisecond)
				}
				wantProblem(t, readConn(t, c, "POST"), tc.kind)
			})
		}
	}
	rg.wantSubmitted(0)
}

// TestContinuedBodyIsReadOn: a client that waited for the server to ask for the body,
// and then sends too much, sees why it was refused.
func TestContinuedBodyIsReadOn(t *testing.T) {
	rg := start(t, Config{})
	c := rg.conn("POST /message HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v", line, err)
	}
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<20, strings.Repeat(" ", 1<<20))
	for range 24 {
		if _, err := io.WriteString(c, chunk); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := io.WriteString(c, "0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(in, nil)
	must(t, err)
	wantProblem(t, readAnswer(t, res), tooLarge)
}

// TestSmallRefusalKeepsTheConnection: what the server reads anyway is no reason to
// close it.
func TestSmallRefusalKeepsTheConnection(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"x"}})
	for _, body := range []io.Reader{strings.NewReader(entry), struct{ io.Reader }{strings.NewReader(entry)}} {
		if a := rg.do("POST", "/message", body, "Content-Type", "application/json"); a.StatusCode != http.StatusUnauthorized || a.Close {
			t.Errorf("got %d, closed %v", a.StatusCode, a.Close)
		}
	}
}

// TestDiscardIsBounded: neither a body without end nor a client that stops sending
// keeps the connection.
func TestDiscardIsBounded(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"x"}})
	c := rg.conn("POST /message HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<20, strings.Repeat(" ", 1<<20))
	sent := 0
	for ; sent < 200; sent++ { // MiB
		if _, err := io.WriteString(c, chunk); err != nil {
			break
		}
	}
	if sent == 200 {
		t.Errorf("the server took %d MiB", sent)
	}
	inBubble(t, Config{Tokens: []string{"x"}}, func(t *testing.T, s *Server, p pipes) {
		c := p.dial()
		defer c.Close()
		go func() { _, _ = io.WriteString(c, upload(8<<20)) }()
		a, took := answerOf(t, c)
		wantProblem(t, a, unauthorized)
		if took > 0 {
			t.Errorf("answered after %v", took)
		}
		began := time.Now()
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > discardTimeout+time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}
