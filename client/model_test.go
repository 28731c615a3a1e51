package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world is a run of Lines against a server that does everything wrong that the protocol
// allows, over connections that break at any byte.
type world struct {
	seed        uint64
	lines, bad  int
	faults      int
	want, stamp bool
}

// TestModel: whatever breaks, each good line is stored once, and each bad one named.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world{
			seed:  rapid.Uint64().Draw(t, "seed"),
			lines: rapid.IntRange(0, 400).Draw(t, "lines"), bad: rapid.IntRange(2, 50).Draw(t, "bad"),
			faults: rapid.IntRange(0, 30).Draw(t, "faults"),
			want:   rapid.Bool().Draw(t, "want"), stamp: rapid.Bool().Draw(t, "stamp"),
		}
		rapid.SyncTest(t, func(t *rapid.T) {
			b := &bubbled{T: t}
			defer b.end()
			w.run(b)
		})
	})
}

// bubbled is a check whose cleanup is in its bubble.
type bubbled struct {
	*rapid.T
	cleanups []func()
}

func (b *bubbled) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }

func (b *bubbled) end() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
}

// run sends lines, good and bad ones, and looks at what became of them.
func (w world) run(t *bubbled) {
	s, rng := newSending(t), rand.New(rand.NewPCG(w.seed, 0))
	s.cfg.Want, s.cfg.Stamp = w.want, w.stamp
	m := &mischief{fake: s.fake, world: w, rng: rng, left: w.faults}
	s.wrap, s.serve = m.wrap, m.serve

	var text bytes.Buffer
	var good, bad []string
	var badLines []int64
	for n := range w.lines {
		line := fmt.Sprintf(`{"value":"good %d"}`, n)
		switch {
		case n%w.bad == w.bad-1:
			line = fmt.Sprintf(`{"value":"bad %d"}`, n)
			if n%3 == 0 {
				line = fmt.Sprintf(`{"value":"bad %d"`, n)
			}
			bad, badLines = append(bad, line), append(badLines, int64(n+1))
		case n%7 == 3:
			line = ""
		default:
			good = append(good, line)
		}
		fmt.Fprintln(&text, line)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
	defer cancel()
	report, err := s.run(ctx, &bursts{rest: text.Bytes(), rng: rand.New(rand.NewPCG(w.seed, 1))})
	time.Sleep(time.Minute) // for the server's ends of connections
	if err != nil || report.OK(w.want) != (len(bad) == 0) || int(report.Accepted) != len(good) || int(report.Rejected) != len(bad) || report.Unknown != 0 {
		t.Errorf("%+v, %v; want %d good and %d bad", report, err, len(good), len(bad))
	}
	var named []int64
	for _, text := range s.rejected {
		n, _, _ := strings.Cut(text, ":")
		line, _ := strconv.ParseInt(n, 10, 64)
		named = append(named, line)
	}
	slices.Sort(named)
	kept := strings.Split(strings.TrimSuffix(s.bad.String(), "\n"), "\n")
	slices.Sort(kept)
	slices.Sort(bad)
	if !slices.Equal(named, badLines) || len(bad) > 0 && !slices.Equal(kept, bad) {
		t.Errorf("named %v and kept %q, want %v and %q", named, kept, badLines, bad)
	}
	stored := make(map[string]int)
	for text, n := range s.stored {
		_, value, _ := strings.Cut(text, `"value"`)
		stored[`{"value"`+value] += n
	}
	for _, line := range good {
		if stored[line] != 1 {
			t.Errorf("%s is stored %d times", line, stored[line])
		}
	}
	if len(stored) != len(good) {
		t.Errorf("%d entries are stored, want %d", len(stored), len(good))
	}
}

// mischief is the server and the network.
type mischief struct {
	*fake
	world

	lock sync.Mutex // guards what follows
	rng  *rand.Rand
	left int // faults
}

// fault tells whether there is one now, with the chance of one in n.
func (m *mischief) fault(n int) bool {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.left == 0 || m.rng.IntN(n) > 0 {
		return false
	}
	m.left--
	return true
}

func (m *mischief) number(n int) int {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.rng.IntN(n)
}

// wrap has some connections break after a number of bytes.
func (m *mischief) wrap(conn net.Conn) net.Conn {
	b := &breaking{Conn: conn, in: 1 << 30, out: 1 << 30}
	switch {
	case m.fault(4):
		b.in = m.number(600)
	case m.fault(4):
		b.out = m.number(2500)
	case m.fault(4):
		b.in = m.number(4000)
	case m.fault(4):
		b.out = m.number(20_000)
	}
	return b
}

// serve answers a frame at once, later, twice, or never and then breaks off.
func (m *mischief) serve(p *peer) {
	frames := make(chan sent)
	go func() {
		defer close(frames)
		for in, ok := p.read(); ok; in, ok = p.read() {
			frames <- in
		}
	}()
	defer func() {
		_ = p.ws.CloseNow()
		for range frames {
		}
	}()
	var held []sent
	answer := func() {
		for _, i := range m.shuffled(len(held)) {
			m.reply(p, held[i])
		}
		held = nil
	}
	for !m.fault(12) {
		select {
		case in, ok := <-frames:
			switch {
			case !ok:
				return
			case m.fault(20): // stored, and the client never hears of it
				m.keep(p, in)
				return
			}
			if held = append(held, in); len(held) > m.number(4) {
				answer()
			}
		case <-time.After(time.Duration(1+m.number(100)) * time.Millisecond):
			answer()
		}
		if m.fault(20) {
			p.say("drain", map[string]any{})
			answer()
			_ = p.ws.Close(1001, "")
			return
		}
	}
}

func (m *mischief) shuffled(n int) []int {
	m.lock.Lock()
	defer m.lock.Unlock()
	return m.rng.Perm(n)
}

func bads(in sent) (found []int) {
	for i, e := range in.Entries {
		if bytes.Contains(e, []byte("bad")) && len(found) < 3 {
			found = append(found, i)
		}
	}
	return found
}

func (m *mischief) keep(p *peer, in sent) {
	if len(bads(in)) == 0 {
		p.store(in)
	}
}

func (m *mischief) reply(p *peer, in sent) {
	if bad := bads(in); len(bad) > 0 {
		p.reject(in, bad...)
		if m.fault(5) {
			p.reject(in, bad...)
		}
		return
	}
	if m.fault(6) {
		if m.number(2) == 0 {
			p.store(in)
		}
		p.failed(in, time.Duration(m.number(3000))*time.Millisecond)
		return
	}
	p.accept(in)
	if m.want {
		p.say("written", map[string]any{"ref": in.Ref})
	}
	if m.fault(5) {
		p.accepted(in)
	}
}

// breaking is a connection that breaks after a number of bytes.
type breaking struct {
	net.Conn
	in, out int
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.in == 0 {
		_ = b.Close()
		return 0, net.ErrClosed
	}
	n, err := b.Conn.Read(p[:min(len(p), b.in)])
	b.in -= n
	return n, err
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) <= b.out {
		b.out -= len(p)
		return b.Conn.Write(p)
	}
	n, _ := b.Conn.Write(p[:b.out])
	b.out = 0
	_ = b.Close()
	return n, net.ErrClosed
}

// bursts yields a text by pieces of any size, with pauses.
type bursts struct {
	rest []byte
	rng  *rand.Rand
}

func (b *bursts) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	if b.rng.IntN(3) == 0 {
		time.Sleep(time.Duration(b.rng.IntN(200)) * time.Millisecond)
	}
	n := copy(p[:min(len(p), 1+b.rng.IntN(3000))], b.rest)
	b.rest = b.rest[n:]
	return n, nil
}
