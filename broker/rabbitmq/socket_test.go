package rabbitmq

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writes is a peer that notes what each write brought.
type writes struct {
	net.Conn
	all    []string
	fails  bool // after a byte
	closed bool
}

func (w *writes) Write(p []byte) (int, error) {
	if w.closed {
		return 0, net.ErrClosed
	}
	if w.fails {
		w.all = append(w.all, string(p[:1]))
		return 1, os.ErrDeadlineExceeded
	}
	w.all = append(w.all, string(p))
	return len(p), nil
}

func (w *writes) SetWriteDeadline(time.Time) error { return nil }

func (w *writes) Close() error { w.closed = true; return nil }

// write writes and expects no error.
func write(t *testing.T, s *socket, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if n, err := s.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("%d bytes of %q are written: %v", n, text, err)
		}
	}
}

// TestSocketCorks: what is written between cork and uncork leaves in one
// write, the rest each by itself.
func TestSocketCorks(t *testing.T) {
	w := &writes{}
	s := newSocket(w, time.Second)
	write(t, s, "a", "b")
	for range 2 {
		s.cork()
		if err := s.uncork(); err != nil { // nothing to send
			t.Error(err)
		}
		s.cork()
		write(t, s, "c", "d", "e")
		if err := s.uncork(); err != nil {
			t.Error(err)
		}
	}
	write(t, s, "f")
	if want := []string{"a", "b", "cde", "cde", "f"}; !slices.Equal(w.all, want) {
		t.Errorf("written %q, want %q", w.all, want)
	}
}

// TestSocketCorksSoMuch: a large call takes some writes, in order, and no more
// memory than that.
func TestSocketCorksSoMuch(t *testing.T) {
	w := &writes{}
	s := newSocket(w, time.Second)
	var want bytes.Buffer
	s.cork()
	for i := range 10 {
		part := bytes.Repeat([]byte{byte('a' + i)}, maxCorked/3)
		want.Write(part)
		write(t, s, string(part))
	}
	write(t, s, string(make([]byte, 2*maxCorked)))
	want.Write(make([]byte, 2*maxCorked))
	if err := s.uncork(); err != nil {
		t.Error(err)
	}
	var got bytes.Buffer
	for _, text := range w.all {
		got.WriteString(text)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes came, want the %d that were written", got.Len(), want.Len())
	}
	if cap(s.gathered) > 2*maxCorked {
		t.Errorf("it gathers up to %d bytes, the limit is %d", cap(s.gathered), maxCorked)
	}
}

// TestSocketFails: after part of a frame is gone nothing is written any more,
// corked or not, and every caller hears of it.
func TestSocketFails(t *testing.T) {
	for _, corked := range []bool{true, false} {
		w := &writes{fails: true}
		s := newSocket(w, time.Second)
		if corked {
			s.cork()
			write(t, s, "abc", "def")
			if err := s.uncork(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("uncork: %v, want the deadline", err)
			}
		} else if _, err := s.Write([]byte("abc")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v, want the deadline", err)
		}
		w.fails = false
		if !w.closed {
			t.Error("the connection is not closed")
		}
		w.closed = false // even if it took more
		if n, err := s.Write([]byte("g")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write after a failure: %d bytes, %v", n, err)
		}
		s.cork()
		_, corked := s.Write([]byte("h"))
		if err := s.uncork(); !errors.Is(corked, os.ErrDeadlineExceeded) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("corked after a failure: %v, %v", corked, err)
		}
		if want := []string{"a"}; !slices.Equal(w.all, want) {
			t.Errorf("written %q, want %q", w.all, want)
		}
	}
}

// TestSocketCorksOthers: nothing that others write meanwhile is lost or torn.
func TestSocketCorksOthers(t *testing.T) {
	near, far := net.Pipe()
	s := newSocket(near, 10*time.Second)
	const writers, each = 4, 200
	var all sync.WaitGroup
	all.Go(func() {
		for range each {
			s.cork()
			write(t, s, "ab", "ab")
			if err := s.uncork(); err != nil {
				t.Error(err)
			}
		}
	})
	for range writers {
		all.Go(func() {
			for range each {
				write(t, s, "ab")
			}
		})
	}
	got := make([]byte, (writers+2)*each*2)
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if !bytes.Equal(got, bytes.Repeat([]byte("ab"), len(got)/2)) {
		t.Error("writes are torn")
	}
}

// TestSocketBoundsWrites: a peer that reads nothing costs the timeout, no more.
func TestSocketBoundsWrites(t *testing.T) {
	for _, corked := range []bool{true, false} {
		near, far := net.Pipe()
		defer far.Close()
		s := newSocket(near, 50*time.Millisecond)
		go func() { _, _ = io.ReadFull(far, make([]byte, 1)) }()
		began := time.Now()
		if corked {
			s.cork()
		}
		_, err := s.Write([]byte("ab"))
		if corked {
			err = s.uncork()
		}
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took > 5*time.Second {
			t.Errorf("%v after %v, want the deadline", err, took)
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Errorf("closing twice: %v", err)
		}
	}
}

// TestSocketSlow: a peer that reads slowly costs nothing while bytes flow, though
// what was gathered takes longer than the timeout.
func TestSocketSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		s := newSocket(near, 3*time.Second)
		var peer sync.WaitGroup
		peer.Go(func() {
			for err := error(nil); err == nil; {
				time.Sleep(2 * time.Second)
				_, err = io.ReadFull(far, make([]byte, maxPiece))
			}
		})
		began := time.Now()
		s.cork()
		write(t, s, string(make([]byte, maxCorked)))
		if err := s.uncork(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 2*s.timeout {
			t.Errorf("it took %v, too little to tell", took)
		}
		_ = s.Close()
		peer.Wait()
	})
}
