package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSession: batches are accepted, each once, whatever the order of the answers, and
// whether they come twice.
func TestSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		f.serve = func(p *peer) {
			var held []sent
			for in, ok := p.read(); ok; in, ok = p.read() {
				held = append(held, in)
				if len(held) < 3 {
					continue
				}
				slices.Reverse(held)
				for _, in := range held {
					p.accept(in)
					p.accepted(in)
					p.reject(in)
				}
				held = nil
			}
		}
		var got answers
		cfg := f.config()
		cfg.Answered = got.take
		s := open(t, cfg)
		for n := range 9 {
			if err := s.Send(patience(t), batch(n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Wait(patience(t)); err != nil {
			t.Fatal(err)
		}
		for n := range 9 {
			if kinds := got.kinds(n); !slices.Equal(kinds, []Kind{Accepted}) {
				t.Errorf("batch %d: %v", n, kinds)
			}
			f.exactly(entries(0, 9)...)
		}
		if a := got.all[0]; a.Ref != "3" || a.ID != "ID3" || a.Shards["0"] != 1 || string(a.Array) != "["+numbered(2)+"]" {
			t.Errorf("%+v", a)
		}
		if left := s.Close(); len(left) != 0 || f.count() != 1 {
			t.Errorf("%d left, %d connections", len(left), f.count())
		}
		if err := s.Send(patience(t), batch(1)); !errors.Is(err, ErrClosed) {
			t.Errorf("a batch behind the end: %v", err)
		}
	})
}

func entries(from, to int) (all []string) {
	for n := from; n < to; n++ {
		all = append(all, numbered(n))
	}
	return all
}

// TestResend: what has no answer when the connection is lost is sent again, under the
// same references and unchanged. What has one is not.
func TestResend(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		again := make(map[string]int)
		f.serve = func(p *peer) {
			for n := 1; ; n++ {
				in, ok := p.read()
				if !ok {
					return
				}
				again[in.Ref]++
				p.store(in)
				if p.number == 1 && n%2 == 0 {
					continue
				}
				p.accepted(in)
				if p.number == 1 && n == 5 {
					return
				}
			}
		}
		var got answers
		cfg := f.config()
		cfg.Answered = got.take
		s := open(t, cfg)
		for n := range 6 {
			if err := s.Send(patience(t), batch(10*n, 10*n+1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Wait(patience(t)); err != nil {
			t.Fatal(err)
		}
		for n := range 6 {
			if kinds := got.kinds(10 * n); !slices.Equal(kinds, []Kind{Accepted}) {
				t.Errorf("batch %d: %v", n, kinds)
			}
		}
		if again["1"] != 1 || again["2"] != 2 || again["3"] != 1 || again["4"] != 2 || again["5"] != 1 {
			t.Errorf("sent: %v, want those without an answer twice", again)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for e, n := range f.stored {
			if n != 1 {
				t.Errorf("%s is stored %d times", e, n)
			}
		}
	})
}

// TestFailed: a batch that has failed is sent again after the pause that the server asks
// for.
func TestFailed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		var times []time.Time
		f.serve = func(p *peer) {
			for in, ok := p.read(); ok; in, ok = p.read() {
				if times = append(times, time.Now()); len(times) < 4 {
					p.failed(in, 2*time.Second)
					p.failed(in, 2*time.Second)
					continue
				}
				p.accept(in)
			}
		}
		s := open(t, f.config())
		if err := errors.Join(s.Send(patience(t), batch(7)), s.Wait(patience(t))); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if pause := times[i+1].Sub(times[i]); pause < 2*time.Second || pause > 2500*time.Millisecond {
				t.Errorf("it came again after %v", pause)
			}
		}
		f.exactly(numbered(7))
		if len(times) != 4 || f.count() != 1 {
			t.Errorf("sent %d times over %d connections", len(times), f.count())
		}
	})
}

// TestDrain: behind the notice nothing is written any more, and the outstanding answers
// are taken.
func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		var late, first []string
		f.serve = func(p *peer) {
			if p.number > 1 {
				for in, ok := p.read(); ok; in, ok = p.read() {
					late = append(late, in.Ref)
					p.accept(in)
				}
				return
			}
			one, _ := p.read()
			two, _ := p.read()
			first = append(first, one.Ref, two.Ref)
			p.say("drain", map[string]any{})
			p.accept(two)
			time.Sleep(time.Second)
			p.accept(one)
			if _, text, err := p.ws.Read(contextOf(t, time.Second)); err == nil {
				t.Errorf("behind the drain came %s", text)
			}
		}
		s := open(t, f.config())
		for n := range 2 {
			if err := s.Send(patience(t), batch(n)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if err := errors.Join(s.Send(patience(t), batch(2)), s.Wait(patience(t))); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(first, []string{"1", "2"}) || !slices.Equal(late, []string{"3"}) {
			t.Errorf("%v before, %v after", first, late)
		}
		f.exactly(entries(0, 3)...)
	})
}

// TestSilence: a server from which nothing comes is left, one that pings is not.
func TestSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		serve, began := f.serve, time.Now()
		f.serve = func(p *peer) {
			switch p.number {
			case 1:
				in, _ := p.read()
				gone := p.ws.CloseRead(context.Background())
				for range 10 {
					time.Sleep(30 * time.Second)
					if err := p.ws.Ping(gone); err != nil {
						t.Error(err)
					}
				}
				p.accept(in)
				<-gone.Done()
			default:
				serve(p)
			}
		}
		lost := make(chan error, 10)
		cfg := f.config()
		cfg.Lost = func(err error, _ time.Duration) { lost <- err }
		s := open(t, cfg)
		if err := errors.Join(s.Send(patience(t), batch(1)), s.Wait(patience(t))); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 5*time.Minute || len(lost) != 0 {
			t.Errorf("answered after %v, lost the connection %d times", took, len(lost))
		}
		err, took := <-lost, time.Since(began)
		if want := "nothing has come from the server for 40s"; err.Error() != want || took != 5*time.Minute+40*time.Second {
			t.Errorf("lost after %v: %v, want %q", took, err, want)
		}
	})
}

func contextOf(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// patience bounds what a test waits for.
func patience(t *testing.T) context.Context { return contextOf(t, time.Hour) }

// TestExpired: what the server may have forgotten is not sent again.
func TestExpired(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		f.dedupe = 60
		serve := f.serve
		f.serve = func(p *peer) {
			if p.number == 1 {
				in, _ := p.read()
				p.store(in)
				f.answers(func(w http.ResponseWriter, _ *http.Request) bool {
					w.WriteHeader(503)
					return true
				})
				return
			}
			serve(p)
		}
		var got answers
		cfg := f.config()
		cfg.Answered = got.take
		s := open(t, cfg)
		if err := s.Send(patience(t), batch(1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := s.Send(patience(t), batch(2)); err != nil { // it was never sent
			t.Fatal(err)
		}
		f.answers(nil)
		if err := s.Wait(patience(t)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.kinds(1), []Kind{Expired}) || !slices.Equal(got.kinds(2), []Kind{Accepted}) {
			t.Errorf("%v and %v", got.kinds(1), got.kinds(2))
		}
		f.exactly(numbered(1), numbered(2))
	})
}

// TestWant: a batch is over when it is written or dead, also over two connections.
func TestWant(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		f.serve = func(p *peer) {
			for n := 1; ; n++ {
				in, ok := p.read()
				if !ok {
					return
				}
				if p.number == 2 && n == 1 { // there is no room for the question
					p.store(in)
					p.say("accepted", map[string]any{"ref": in.Ref, "id": "ID1", "accepted": 1, "want": "unavailable"})
					continue
				}
				p.accept(in)
				switch {
				case p.number == 1 && n == 2:
					return
				case p.number == 1:
				case in.Ref == "1":
					p.say("written", map[string]any{"ref": in.Ref, "id": "ID1"})
				case in.Ref == "2":
					p.say("dead", map[string]any{"ref": in.Ref, "id": "ID2", "dead": 1})
				}
			}
		}
		var got answers
		cfg := f.config()
		cfg.Answered, cfg.Want = got.take, true
		s := open(t, cfg)
		if err := errors.Join(s.Send(patience(t), batch(1)), s.Send(patience(t), batch(2, 3)), s.Wait(patience(t))); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.kinds(1), []Kind{Accepted, Written}) || !slices.Equal(got.kinds(2), []Kind{Accepted, Dead}) {
			t.Errorf("%v and %v", got.kinds(1), got.kinds(2))
		}
		f.exactly(entries(1, 4)...)
	})
}

// TestWindow: no more is on its way than the server's window takes, in batches and in
// bytes.
func TestWindow(t *testing.T) {
	for name, size := range map[string]int{"batches": 1, "bytes": 3000} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFake(t)
				got, answer := 0, make(chan struct{})
				f.serve = func(p *peer) {
					for in, ok := p.read(); ok; in, ok = p.read() {
						got++
						go func() {
							<-answer
							p.accept(in)
						}()
					}
				}
				s := open(t, f.config())
				text := fmt.Sprintf(`[{"value":"%s"}]`, strings.Repeat("x", size))
				done := 0
				go func() {
					for range 100 {
						if s.Send(patience(t), Batch{Array: []byte(text), Count: 1}) != nil {
							return
						}
						done++
					}
				}()
				synctest.Wait()
				want := min(f.limits.Window, f.limits.WindowBytes/(len(text)+30))
				if got != want || done != want {
					t.Errorf("%d batches sent, %d of them arrived, want %d", done, got, want)
				}
				answer <- struct{}{}
				synctest.Wait()
				if got != want+1 || done != want+1 {
					t.Errorf("after an answer %d batches sent, %d of them arrived, want %d", done, got, want+1)
				}
				if err := s.Send(patience(t), Batch{Array: make([]byte, 4096), Count: 1}); err == nil {
					t.Error("a batch beyond the frame was taken")
				}
				s.Close()
				close(answer)
			})
		})
	}
}
