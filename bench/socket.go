package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// socketWindow is how many frames a WebSocket has under way.
const socketWindow = 64

// stream is load by WebSocket: each connection keeps socketWindow frames under way, of
// one submission each. As with HTTP, it speaks just enough of the protocol.
func (g load) stream() *posting {
	p := &posting{load: g}
	return p.begin(p.stream)
}

// stream is one connection.
func (p *posting) stream(first int) error {
	conn, r, err := openSocket(p.load.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	var (
		out         []byte
		asked       [2 * socketWindow]time.Time // by ref, modulo
		sent, heard int
	)
	for ; !p.ended.Load() || heard < sent; out = out[:0] {
		now := time.Now()
		for sent-heard < socketWindow && !p.ended.Load() {
			sent++
			asked[sent%len(asked)] = now
			out = append(out, p.load.requests[(first+sent)%len(p.load.requests)]...)
		}
		if _, err := conn.Write(out); err != nil {
			return err
		}
		for more := true; more; more = r.Buffered() > 0 {
			ref, err := readReply(r)
			if err != nil {
				return err
			}
			// The refs are the numbers of the frames. One that is refused is not sent again.
			heard++
			if ref == 0 {
				p.refused.Add(1)
				continue
			}
			p.posted.Add(1)
			p.times.add(time.Since(asked[ref%len(asked)]))
		}
	}
	return nil
}

// newSocketLoad prepares frames of so many entries.
func newSocketLoad(addr string, entries, conns int) load {
	frames := make([][]byte, max(16, 1024/entries))
	for i := range frames {
		body := array(entries, i*entries)
		frames[i] = binary.BigEndian.AppendUint16([]byte{0x81, 0x80 | 126}, uint16(len(body)))
		frames[i] = append(frames[i], 0, 0, 0, 0) // the masking key; this one leaves the text as it is
		frames[i] = append(frames[i], body...)
	}
	return load{addr: addr, requests: frames, entries: entries, conns: conns, sockets: true}
}

// openSocket opens a WebSocket, and reads the server's handshake.
func openSocket(addr string) (net.Conn, *bufio.Reader, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	_, err = fmt.Fprintf(conn, "GET /message HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: adp.ingest.v1\r\n\r\n", addr)
	r := bufio.NewReaderSize(conn, 16<<10)
	if err == nil {
		var res *http.Response
		if res, err = http.ReadResponse(r, nil); err == nil && res.StatusCode != http.StatusSwitchingProtocols {
			err = fmt.Errorf("no WebSocket: %s", res.Status)
		}
	}
	if err == nil {
		_, err = readFrame(r)
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, r, nil
}

// readReply returns the ref of a frame that was accepted; 0 if it failed.
func readReply(r *bufio.Reader) (ref int, err error) {
	text, err := readFrame(r)
	if err != nil {
		return 0, err
	}
	digits, accepted := bytes.CutPrefix(text, []byte(`{"type":"accepted","ref":"`))
	if !accepted {
		if bytes.HasPrefix(text, []byte(`{"type":"failed"`)) {
			return 0, nil
		}
		return 0, fmt.Errorf("not accepted: %s", text)
	}
	digits, _, _ = bytes.Cut(digits, []byte{'"'})
	return strconv.Atoi(string(digits))
}

// readFrame returns the text of the server's next frame, valid until the next read.
func readFrame(r *bufio.Reader) ([]byte, error) {
	for {
		head, err := r.Peek(2)
		if err != nil {
			return nil, err
		}
		length, opcode, skip := int(head[1]), head[0]&0xf, 2
		if length == 126 {
			if head, err = r.Peek(4); err != nil {
				return nil, err
			}
			length, skip = int(binary.BigEndian.Uint16(head[2:])), 4
		}
		text, err := r.Peek(skip + length)
		if err != nil {
			return nil, errors.Join(err, io.ErrUnexpectedEOF)
		}
		if _, err := r.Discard(skip + length); err != nil {
			return nil, err
		}
		switch opcode {
		case 1:
			return text[skip:], nil
		case 8:
			return nil, fmt.Errorf("the server closes the WebSocket: %q", text[skip:])
		}
	}
}

// sockets compares the ingest of single entries by WebSocket with that by as many HTTP
// connections, and with a bare HTTP server.
func sockets(ctx context.Context, l *lab) ([]result, error) {
	r, srv, err := l.serverOverRabbit(ctx)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	echo, err := startEcho(ctx)
	if err != nil {
		return nil, err
	}
	defer echo.Kill()
	by := contender{"WebSocket", func(ctx context.Context) (sample, error) {
		s, _, err := l.rateOf(ctx, newSocketLoad(srv.Addr, 1, singleConns), l.with(map[string]int{"server": srv.PID()}))
		return s, errors.Join(err, r.drop(productQueues, shardCount))
	}}
	http, err := l.compare(ctx, result{
		Target: 15, Name: "sockets", Unit: "submissions/s", Want: 5,
		What: fmt.Sprintf("ingest of single entries over RabbitMQ, %d WebSockets ÷ as many HTTP connections", singleConns),
	}, by, l.overRabbit("HTTP", r, srv, 1, singleConns))
	if err != nil {
		return nil, err
	}
	bare, err := l.compare(ctx, result{
		Target: 15, Name: "sockets", Unit: "submissions/s", Want: 1,
		What: fmt.Sprintf("the same by %d WebSockets ÷ bare HTTP", singleConns),
	}, by, l.bareHTTP(echo, 1, singleConns))
	return []result{http, bare, memoryRow("sockets", "server under sockets", srv)}, err
}
