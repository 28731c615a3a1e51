package jetstream

import (
	"io"
	"net"
	"sync"
	"testing"

	"async-data-processor/broker/brokertest"
)

// proxy stands between clients and a node. It can cut the connections and let
// bytes go lost.
type proxy struct {
	listener net.Listener
	target   string
	loops    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	conns  map[net.Conn]bool
	closed bool
	loss   brokertest.Loss
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.loops.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.cut()
		p.loops.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.closed {
			_ = client.Close()
			_ = server.Close()
		}
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		p.loops.Go(func() { p.copy(server, client, brokertest.Requests) })
		p.loops.Go(func() { p.copy(client, server, brokertest.Answers) })
	}
}

func (p *proxy) copy(to, from net.Conn, kind brokertest.Loss) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		lost := p.loss == kind
		p.mu.Unlock()
		if !lost {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err != io.EOF {
				p.forget(to, from)
			}
			return
		}
	}
}

func (p *proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

func (p *proxy) lose(what brokertest.Loss) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loss = what
}

// cut resets all connections, and lets nothing go lost any more.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
		delete(p.conns, c)
	}
	p.loss = brokertest.Nothing
}
