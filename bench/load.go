package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// load is prepared requests for a server. It speaks just enough HTTP/1.1 over
// connections that it keeps: net/http's client would take more of the
// processors than the servers it loads.
type load struct {
	addr     string
	requests [][]byte
	entries  int // of a request
	conns    int
	sockets  bool // requests are frames for WebSockets
}

// newLoad prepares requests to post arrays of so many entries.
func newLoad(addr string, entries, conns int) load {
	// Enough different ones that single entries go to every shard alike.
	requests := make([][]byte, max(16, 1024/entries))
	for i := range requests {
		body := array(entries, i*entries)
		requests[i] = fmt.Appendf(nil,
			"POST /message HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", addr, len(body), body)
	}
	return load{addr: addr, requests: requests, entries: entries, conns: conns}
}

// array is n entries of about 60 bytes each; the first one has the number.
func array(n, first int) []byte {
	var b bytes.Buffer
	for i := range n {
		n := first + i
		fmt.Fprintf(&b, `,{"timestamp":"2019-10-12T%02d:%02d:%02d.52Z","value":"reading %05d"}`, n/3600%24, n/60%60, n%60, n%1e5)
	}
	b.Bytes()[0] = '['
	b.WriteByte(']')
	return b.Bytes()
}

// posting is a load under way.
type posting struct {
	load   load
	limit  int64        // of requests
	asked  atomic.Int64 // requests begun
	posted atomic.Int64 // requests answered with 201
	// refused are requests answered with 503: on a machine that stalls the broker
	// may not answer in time. They are not counted as done, but told.
	refused atomic.Int64
	times   durations   // of the answers with 201
	held    atomic.Bool // whether to wait before the next request
	ended   atomic.Bool

	conns sync.WaitGroup
	mu    sync.Mutex // guards err
	err   error
}

// post begins to send up to limit requests; 0 is without a limit.
func (g load) post(limit int) *posting {
	p := &posting{load: g, limit: int64(limit)}
	return p.begin(p.run)
}

// begin runs the connections.
func (p *posting) begin(run func(first int) error) *posting {
	for i := range p.load.conns {
		p.conns.Go(func() {
			if err := run(i); err != nil {
				p.ended.Store(true)
				p.mu.Lock()
				p.err = errors.Join(p.err, err)
				p.mu.Unlock()
			}
		})
	}
	return p
}

// entries is a counter of what was accepted.
func (p *posting) entries() (float64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return float64(p.posted.Load() * int64(p.load.entries)), p.err
}

// stop ends the load after the requests under way.
func (p *posting) stop() error {
	p.ended.Store(true)
	return p.wait()
}

// wait returns when the limit is reached.
func (p *posting) wait() error {
	p.conns.Wait()
	return p.err
}

// run is one connection.
func (p *posting) run(first int) error {
	conn, err := net.Dial("tcp", p.load.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer := make([]byte, 4<<10)
	for i := first; !p.ended.Load(); i++ {
		if p.held.Load() {
			time.Sleep(time.Millisecond)
			continue
		}
		if p.limit > 0 && p.asked.Add(1) > p.limit {
			return nil
		}
		if err := p.send(conn, p.load.requests[i%len(p.load.requests)], answer); err != nil {
			return err
		}
	}
	return nil
}

// send sends a request until it is accepted or the load has ended, for a while.
func (p *posting) send(conn net.Conn, request, answer []byte) error {
	for began := time.Now(); !p.ended.Load(); time.Sleep(refusedPause) {
		asked := time.Now()
		_, err := conn.Write(request)
		if err == nil {
			err = accepted(conn, answer)
		}
		switch {
		case err == nil:
			p.posted.Add(1)
			p.times.add(time.Since(asked))
			return nil
		case !errors.Is(err, errRefused) || time.Since(began) > patience:
			return err
		}
		p.refused.Add(1)
	}
	return nil
}

// errRefused: the server did not take it, now.
var errRefused = errors.New("refused")

// refusedPause is before the next request to a server that refuses.
const refusedPause = 50 * time.Millisecond

// accepted reads one answer, which must have a Content-Length and fit the
// buffer, and be a 201; a 503 is errRefused.
func accepted(r io.Reader, buf []byte) error {
	const length = "\r\nContent-Length: "
	n := 0
	for {
		m, err := r.Read(buf[n:])
		if err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		n += m
		head, body, complete := bytes.Cut(buf[:n], []byte("\r\n\r\n"))
		if !complete {
			continue
		}
		_, rest, ok := bytes.Cut(head, []byte(length))
		digits, _, _ := bytes.Cut(rest, []byte("\r"))
		want, err := strconv.Atoi(string(digits))
		switch {
		case !ok || err != nil:
			return fmt.Errorf("no length in %s", head)
		case len(body) < want:
			continue
		case bytes.HasPrefix(head, []byte("HTTP/1.1 201 ")):
			return nil
		case bytes.HasPrefix(head, []byte("HTTP/1.1 503 ")):
			return fmt.Errorf("%w: %s", errRefused, body)
		default:
			return fmt.Errorf("not accepted: %s", buf[:n])
		}
	}
}

// fill posts so many entries, in arrays of 1,000, through a server.
func fill(ctx context.Context, addr string, entries int) error {
	const size = 1000
	p := newLoad(addr, size, 16).post((entries + size - 1) / size)
	defer context.AfterFunc(ctx, func() { p.ended.Store(true) })()
	return errors.Join(p.wait(), ctx.Err())
}
