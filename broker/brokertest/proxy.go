package brokertest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between clients and an engine that speaks TCP. It can cut the
// connections, let bytes go lost, and let them trickle.
type Proxy struct {
	listener net.Listener
	loops    sync.WaitGroup
	ended    chan struct{}

	mu     sync.Mutex // guards what follows
	target string
	conns  map[net.Conn]bool
	closed bool
	loss   Loss
	pace   time.Duration // how long each byte takes; 0 for no time
}

// NewProxy starts a proxy to the address target; it ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	return ListenProxy(t, "127.0.0.1:0", target)
}

// ListenProxy is NewProxy at an address.
func ListenProxy(t testing.TB, at, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, ended: make(chan struct{}), conns: map[net.Conn]bool{}}
	p.loops.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		close(p.ended)
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
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		server, err := net.Dial("tcp", target)
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
		lost := p.loss == kind || p.loss == Everything
		p.mu.Unlock()
		if !lost {
			if err := p.write(to, buf[:n]); err != nil {
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

// write writes at the pace that holds when each byte's turn comes.
func (p *Proxy) write(to net.Conn, b []byte) error {
	for len(b) > 0 {
		p.mu.Lock()
		pace := p.pace
		p.mu.Unlock()
		n := 1
		if pace == 0 {
			n = len(b)
		} else {
			select {
			case <-time.After(pace):
			case <-p.ended:
				return net.ErrClosed
			}
		}
		if _, err := to.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// Aim has the connections of new clients lead to another address.
func (p *Proxy) Aim(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Lose lets what is sent go lost, until Cut.
func (p *Proxy) Lose(what Loss) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loss = what
}

// Trickle lets bytes through one at a time, each after the pace; 0 ends that.
func (p *Proxy) Trickle(pace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pace = pace
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
