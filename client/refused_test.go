package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// TestRefused: a refusal for ever ends the session, with a reason.
func TestRefused(t *testing.T) {
	status := func(code int) func(*fake) {
		return func(f *fake) {
			f.answers(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(code)
				fmt.Fprint(w, `{"detail":"the reason"}`)
				return true
			})
		}
	}
	closing := func(code websocket.StatusCode) func(*fake) {
		return func(f *fake) { f.serve = func(p *peer) { _ = p.ws.Close(code, "the reason") } }
	}
	for name, tc := range map[string]struct {
		set  func(*fake)
		want string
	}{
		"401":  {status(401), "the token is missing or wrong: the server answers 401 Unauthorized: the reason"},
		"403":  {status(403), "403 Forbidden: the reason"},
		"404":  {status(404), "it takes no WebSocket"},
		"405":  {status(405), "it takes no WebSocket"},
		"421":  {status(421), "the reason"},
		"426":  {status(426), "the reason"},
		"200":  {status(200), "it takes no WebSocket"},
		"501":  {status(501), "the reason"},
		"4401": {closing(4401), "the token is missing or wrong: the server closes the connection with 4401"},
		"4400": {closing(4400), `4400: "the reason"`},
		"1003": {closing(1003), "1003"},
		"1008": {closing(1008), "1008"},
		"1009": {closing(1009), "1009"},
		"frame too long": {func(f *fake) {
			f.serve = func(p *peer) {
				p.ws.SetReadLimit(10)
				_, _, _ = p.ws.Read(context.Background())
			}
		}, "1009"},
		"subprotocol": {func(f *fake) { f.speak = "chat" }, `the server speaks "", want adp.ingest.v1`},
		"limits":      {func(f *fake) { f.limits.Frame = 100 }, "leave no room"},
		"another count": {func(f *fake) {
			f.serve = func(p *peer) { in, _ := p.read(); in.Entries = nil; p.accepted(in); p.read() }
		}, "has accepted 0 entries of a batch of 1"},
		"another problem": {func(f *fake) {
			f.serve = func(p *peer) {
				in, _ := p.read()
				p.say("rejected", map[string]any{"ref": in.Ref, "problem": map[string]any{"status": 403, "detail": "the reason"}})
				p.read()
			}
		}, "rejects a batch with status 403: the reason"},
		"no handshake":     {func(f *fake) { f.answers(early) }, "not with a handshake"},
		"an early refusal": {func(f *fake) { f.serve = func(p *peer) { p.read(); _ = p.ws.Close(4400, "no") } }, "4400"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFake(t)
				tc.set(f)
				s := open(t, f.config())
				err := s.Send(patience(t), batch(1))
				if err == nil {
					err = s.Wait(patience(t))
				}
				if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v, want ErrRefused with %q", err, tc.want)
				}
				time.Sleep(time.Minute)
				if f.count() != 1 {
					t.Errorf("%d connections, want 1", f.count())
				}
			})
		})
	}
}

// early begins with an answer.
func early(w http.ResponseWriter, r *http.Request) bool {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Subprotocol}})
	if err != nil {
		return true
	}
	_ = ws.Write(r.Context(), websocket.MessageText, []byte(`{"type":"accepted","ref":"1"}`))
	_, _, _ = ws.Read(r.Context())
	return true
}

// TestComesBack: whatever else ends a connection, the session makes another one, after
// a pause that grows.
func TestComesBack(t *testing.T) {
	for name, end := range map[string]func(*fake, *peer){
		"1001": func(_ *fake, p *peer) { p.say("drain", map[string]any{}); _ = p.ws.Close(1001, "") },
		"1011": func(_ *fake, p *peer) { _ = p.ws.Close(1011, "") },
		"1013": func(_ *fake, p *peer) { _ = p.ws.Close(1013, "") },
		"4408": func(_ *fake, p *peer) { _ = p.ws.Close(4408, "") },
		"cut":  func(_ *fake, p *peer) {},
		"part": func(_ *fake, p *peer) {
			_ = p.ws.Write(context.Background(), websocket.MessageText, []byte(`{"type":"acc`))
		},
		"503": func(f *fake, _ *peer) {
			f.answers(func(w http.ResponseWriter, _ *http.Request) bool {
				f.answers(nil)
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(503)
				return true
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFake(t)
				serve := f.serve
				f.serve = func(p *peer) {
					if p.number < 4 {
						end(f, p)
						return
					}
					serve(p)
				}
				var pauses []time.Duration
				cfg := f.config()
				cfg.Lost = func(_ error, pause time.Duration) { pauses = append(pauses, pause) }
				s := open(t, cfg)
				if err := errors.Join(s.Send(patience(t), batch(1)), s.Wait(patience(t))); err != nil {
					t.Fatal(err)
				}
				f.exactly(numbered(1))
				want := 3
				if name == "503" {
					want = 6
				}
				if len(pauses) != want || pauses[0] < firstPause/2 || pauses[0] > firstPause || pauses[2] <= pauses[0] {
					t.Errorf("pauses %v", pauses)
				}
				if name == "503" && pauses[1] != 7*time.Second {
					t.Errorf("the pause after Retry-After is %v, want 7s", pauses[1])
				}
			})
		})
	}
}

// TestRetryPause: what a server asks for is bounded, whatever it is.
func TestRetryPause(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		-1 << 63: leastRetry, -1: leastRetry, 0: leastRetry, 2 * time.Second: 2 * time.Second, 1<<63 - 1: mostRetry,
	} {
		if pause := retryPause(asked); pause < want || pause > want*5/4 {
			t.Errorf("%v: %v, want %v to a quarter more", asked, pause, want)
		}
	}
}

// TestTransient: what a server refuses now it may take later, unless the client has to
// change, or the server.
func TestTransient(t *testing.T) {
	for status, want := range map[int]bool{
		408: true, 425: true, 429: true, 500: true, 502: true, 503: true, 504: true,
		200: false, 400: false, 401: false, 404: false, 413: false, 426: false, 501: false, 505: false,
	} {
		if transient(status) != want {
			t.Errorf("%d is transient: %v", status, !want)
		}
	}
}

// TestRejectedForNow: a batch that is rejected for no fault of its own is sent again.
func TestRejectedForNow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFake(t)
		times := 0
		f.serve = func(p *peer) {
			for in, ok := p.read(); ok; in, ok = p.read() {
				if times++; times < 3 {
					status := map[int]int{1: 503, 2: 429}[times]
					p.say("rejected", map[string]any{"ref": in.Ref, "problem": map[string]any{"status": status, "detail": "paused"}})
					continue
				}
				p.accept(in)
			}
		}
		s := open(t, f.config())
		if err := errors.Join(s.Send(patience(t), batch(7)), s.Wait(patience(t))); err != nil || times != 3 {
			t.Errorf("%v after %d times", err, times)
		}
		f.exactly(numbered(7))
	})
}

// TestRejectedAfterAccepted: what one server has accepted, and one with other rules
// rejects, is not taken apart and sent anew. It would be written twice.
func TestRejectedAfterAccepted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		s.cfg.Want = true
		asked := 0
		s.serve = func(p *peer) {
			for in, ok := p.read(); ok; in, ok = p.read() {
				asked++
				switch p.number {
				case 1:
					p.accept(in)
					return
				case 2: // too busy to say: the question is asked again
					p.say("rejected", map[string]any{"ref": in.Ref, "problem": map[string]any{"status": 429}})
					return
				}
				p.reject(in, 0)
			}
		}
		report, err := s.run(patience(t), strings.NewReader("{}\n{\"a\":1}\n{\"a\":2}\n"))
		want := Report{Lines: 3, Accepted: 3, Unwritten: 3, UnwrittenLines: []Range{{1, 3}}}
		if err != nil || !reflect.DeepEqual(report, want) || len(s.rejected) > 0 || asked != 3 {
			t.Errorf("%+v, %v, rejected %q, asked %d times, want %+v", report, err, s.rejected, asked, want)
		}
		s.exactly("{}", `{"a":1}`, `{"a":2}`)
	})
}

// TestFullFrame: a batch that a longest entry fills up is not longer than a frame.
func TestFullFrame(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		line := func(size int) string { return `{"v":"` + strings.Repeat("x", size-len(`{"v":""}`)) + `"}` }
		limits := fakeLimits
		for most, extra := limits.Frame-frameRoom-limits.Entry, -5; extra < 1; extra++ {
			third := most + extra - len("[,\n,\n") - 2*1000 // with it the array has so many bytes
			text := strings.Join([]string{line(1000), line(1000), line(third), line(limits.Entry), ""}, "\n")
			if report, err := s.run(patience(t), strings.NewReader(text)); err != nil || !report.OK(false) {
				t.Errorf("%d bytes and a longest entry: %+v, %v", most+extra, report, err)
			}
		}
	})
}

// TestDeadLinesInOrder: they are told in order, whatever that of the answers is.
func TestDeadLinesInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		s.cfg.Want = true
		s.serve = func(p *peer) {
			var all []sent
			for in, ok := p.read(); ok; in, ok = p.read() {
				p.accept(in)
				if all = append(all, in); len(all) < 2 {
					continue
				}
				for _, in := range slices.Backward(all) {
					p.say("dead", map[string]any{"ref": in.Ref, "dead": 1})
				}
			}
		}
		r, w := io.Pipe()
		go func() {
			fmt.Fprint(w, "{}\n")
			synctest.Wait()
			fmt.Fprint(w, "{}\n{}\n")
			w.Close()
		}()
		if report, err := s.run(patience(t), r); err != nil || !slices.Equal(report.DeadLines, []Range{{1, 3}}) {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

// TestPaused: a server that takes nothing now is asked again at least every 5 s, and its
// reason is told. What it has refused each time is not unknown when the run is stopped.
func TestPaused(t *testing.T) {
	for name, tc := range map[string]struct {
		first string // kind of the first answer; empty for a lost connection
		ends  bool   // the pause ends
		want  Report
	}{
		"resumed":         {"unavailable", true, Report{Lines: 2, Accepted: 2}},
		"stopped":         {"unavailable", false, Report{Lines: 2, Unsent: 2, UnsentLines: []Range{{1, 2}}}},
		"unknown before":  {"unknown", false, Report{Lines: 2, Unknown: 2, UnknownLines: []Range{{1, 2}}}},
		"lost before":     {"", false, Report{Lines: 2, Unknown: 2, UnknownLines: []Range{{1, 2}}}},
		"overload before": {"overloaded", false, Report{Lines: 2, Unsent: 2, UnsentLines: []Range{{1, 2}}}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newSending(t)
				began, times := time.Now(), 0
				s.serve = func(p *peer) {
					for in, ok := p.read(); ok; in, ok = p.read() {
						kind := "unavailable"
						if times++; times == 1 {
							kind = tc.first
						}
						switch {
						case kind == "":
							return
						case tc.ends && time.Since(began) > time.Minute:
							p.accept(in)
						default:
							p.say("failed", map[string]any{"ref": in.Ref, "kind": kind, "title": "The intake is paused", "retry_ms": 30_000})
						}
					}
				}
				var told []string
				s.cfg.Refused = func(err error, pause time.Duration) {
					if told = append(told, fmt.Sprint(err)); pause > 5*time.Second {
						t.Errorf("the next attempt is in %v", pause)
					}
				}
				ctx, cancel := context.WithTimeout(patience(t), 2*time.Minute)
				defer cancel()
				report, _ := s.run(ctx, strings.NewReader("{}\n{}\n"))
				if !reflect.DeepEqual(report, tc.want) {
					t.Errorf("%+v, want %+v", report, tc.want)
				}
				if took := time.Since(began); tc.ends && took > 66*time.Second {
					t.Errorf("it took %v", took)
				}
				if len(told) < 12 || told[1] != "The intake is paused" || slices.Contains(told, "<nil>") != tc.ends {
					t.Errorf("told %q", told)
				}
			})
		})
	}
}
