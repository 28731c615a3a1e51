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

// TestSocketHolds: what is written between hold and release leaves in one
// write, the rest each by itself.
func TestSocketHolds(t *testing.T) {
	w := &writes{}
	s := &socket{Conn: w, timeout: time.Second}
	write(t, s, "a", "b")
	for range 2 {
		s.hold()
		if err := s.release(); err != nil { // nothing to send
			t.Error(err)
		}
		s.hold()
		write(t, s, "c", "d", "e")
		if err := s.release(); err != nil {
			t.Error(err)
		}
	}
	write(t, s, "f")
	if want := []string{"a", "b", "cde", "cde", "f"}; !slices.Equal(w.all, want) {
		t.Errorf("written %q, want %q", w.all, want)
	}
}

// TestSocketHoldsSoMuch: a large convoy takes some writes, in order, and no more
// memory than that.
func TestSocketHoldsSoMuch(t *testing.T) {
	w := &writes{}
	s := &socket{Conn: w, timeout: time.Second}
	var want bytes.Buffer
	s.hold()
	for i := range 10 {
		part := bytes.Repeat([]byte{byte('a' + i)}, maxHeld/3)
		want.Write(part)
		write(t, s, string(part))
	}
	write(t, s, string(make([]byte, 2*maxHeld)))
	want.Write(make([]byte, 2*maxHeld))
	if err := s.release(); err != nil {
		t.Error(err)
	}
	var got bytes.Buffer
	for _, text := range w.all {
		got.WriteString(text)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes came, want the %d that were written", got.Len(), want.Len())
	}
	if cap(s.held) > 2*maxHeld {
		t.Errorf("it holds up to %d bytes, the limit is %d", cap(s.held), maxHeld)
	}
}

// TestSocketFails: after part of a frame is gone nothing is written any more,
// held or not, and everybody hears of it.
func TestSocketFails(t *testing.T) {
	for _, held := range []bool{true, false} {
		w := &writes{fails: true}
		s := &socket{Conn: w, timeout: time.Second}
		if held {
			s.hold()
			write(t, s, "abc", "def")
			if err := s.release(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("release: %v, want the deadline", err)
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
		s.hold()
		_, held := s.Write([]byte("h"))
		if err := s.release(); !errors.Is(held, os.ErrDeadlineExceeded) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("held after a failure: %v, %v", held, err)
		}
		if want := []string{"a"}; !slices.Equal(w.all, want) {
			t.Errorf("written %q, want %q", w.all, want)
		}
	}
}

// TestSocketHoldsOthers: nothing that others write meanwhile is lost or torn.
func TestSocketHoldsOthers(t *testing.T) {
	near, far := net.Pipe()
	s := &socket{Conn: near, timeout: 10 * time.Second}
	const writers, each = 4, 200
	var all sync.WaitGroup
	all.Go(func() {
		for range each {
			s.hold()
			write(t, s, "ab", "ab")
			if err := s.release(); err != nil {
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
	for _, held := range []bool{true, false} {
		near, far := net.Pipe()
		defer far.Close()
		s := &socket{Conn: near, timeout: 50 * time.Millisecond}
		go func() { _, _ = io.ReadFull(far, make([]byte, 1)) }()
		began := time.Now()
		if held {
			s.hold()
		}
		_, err := s.Write([]byte("ab"))
		if held {
			err = s.release()
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
// what was held takes longer than the timeout.
func TestSocketSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		s := &socket{Conn: near, timeout: 3 * time.Second}
		var peer sync.WaitGroup
		peer.Go(func() {
			for err := error(nil); err == nil; {
				time.Sleep(2 * time.Second)
				_, err = io.ReadFull(far, make([]byte, maxPiece))
			}
		})
		began := time.Now()
		s.hold()
		write(t, s, string(make([]byte, maxHeld)))
		if err := s.release(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 2*s.timeout {
			t.Errorf("it took %v, too little to tell", took)
		}
		_ = s.Close()
		peer.Wait()
	})
}
