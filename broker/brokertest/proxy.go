package brokertest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy stands between clients and an engine that speaks TCP. It can cut the
// connections and let bytes go lost.
type Proxy struct {
	listener net.Listener
	target   string
	loops    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	conns  map[net.Conn]bool
	closed bool
	loss   Loss
}

// NewProxy starts a proxy to the address target; it ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}}
	p.loops.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Cut()
		p.loops.Wait()
	})
	return p
}

// Addr is where clients connect instead.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

func (p *Proxy) accept() {
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
		p.loops.Go(func() { p.copy(server, client, Requests) })
		p.loops.Go(func() { p.copy(client, server, Answers) })
	}
}

func (p *Proxy) copy(to, from net.Conn, kind Loss) {
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

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// Lose lets what is sent in one direction go lost, until Cut.
func (p *Proxy) Lose(what Loss) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loss = what
}

// Cut resets all connections, and lets nothing go lost any more.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
		delete(p.conns, c)
	}
	p.loss = Nothing
}
