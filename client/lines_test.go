package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// sending is lines on their way to a fake server.
type sending struct {
	*fake
	cfg      LinesConfig
	bad      bytes.Buffer
	rejected []string // "line: why"
}

func newSending(t tester) *sending {
	s := &sending{fake: newFake(t)}
	s.cfg = LinesConfig{Config: s.config(), Grace: 3 * time.Second, Bad: &s.bad}
	s.cfg.Rejected = func(line int64, why string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rejected = append(s.rejected, fmt.Sprint(line, ": ", why))
	}
	return s
}

func (s *sending) run(ctx context.Context, r io.Reader) (Report, error) {
	return NewLines(s.cfg).Run(ctx, r)
}

// bads has the server reject batches with entries of that value.
func (s *sending) bads(value string, most int) {
	s.serve = func(p *peer) {
		for in, ok := p.read(); ok; in, ok = p.read() {
			var bad []int
			for i, e := range in.Entries {
				if bytes.Contains(e, []byte(value)) && len(bad) < most {
					bad = append(bad, i)
				}
			}
			if len(bad) > 0 {
				p.reject(in, bad...)
				continue
			}
			p.accept(in)
		}
	}
}

// TestLines: each line is an entry, empty ones are none. What is no JSON, too long or
// rejected is told by its number, and goes to Bad as it was read. The others of its batch
// are accepted.
func TestLines(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		s.bads("bad", 2)
		long := `{"value":"` + strings.Repeat("x", 300<<10) + `"}`
		lines := []string{
			numbered(1), "", "  \t ", numbered(4) + "\r", `{"value":"bad 5"}`, "{", ` {"value":"bad 7"} `, `{"a":1,"a":2}`, "\xff", numbered(10),
			`{"value":"bad 11"}`, `{"value":"bad 12"}`, `{"value":"bad 13"}`, "{},{}", long, numbered(16), `{"value":"` + strings.Repeat("x", 1024) + `"}`, "]", numbered(19),
		}
		report, err := s.run(patience(t), strings.NewReader(strings.Join(lines, "\n"))) // without a newline at its end
		if err != nil {
			t.Fatal(err)
		}
		s.exactly(numbered(1), numbered(4), numbered(10), numbered(16), numbered(19))
		if want := (Report{Lines: 19, Empty: 2, Accepted: 5, Rejected: 12}); !reflect.DeepEqual(report, want) || report.OK(false) {
			t.Errorf("%+v, want %+v", report, want)
		}
		wrong := []int{5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 17, 18}
		for i, n := range wrong {
			if !slices.ContainsFunc(s.rejected, func(text string) bool { return strings.HasPrefix(text, fmt.Sprint(n, ": ")) }) || len(s.rejected) != len(wrong) {
				t.Errorf("line %d (the %d. of them) is not told: %q", n, i, s.rejected)
			}
			if !strings.Contains("\n"+s.bad.String(), "\n"+lines[n-1]+"\n") {
				t.Errorf("line %d is not as it was", n)
			}
		}
		for _, want := range []string{"5: /timestamp: it is wrong", "15: the line has more than 1 KiB", "17: the line has more than 1 KiB"} {
			if !slices.Contains(s.rejected, want) {
				t.Errorf("%q lacks %q", s.rejected, want)
			}
		}
		if n := strings.Count(s.bad.String(), "\n"); n != len(wrong) {
			t.Errorf("%d lines are bad, want %d", n, len(wrong))
		}
	})
}

// TestWholeBatchRejected: if no entry is named, the bad one is found all the same.
func TestWholeBatchRejected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		s.serve = func(p *peer) {
			for in, ok := p.read(); ok; in, ok = p.read() {
				if slices.ContainsFunc(in.Entries, func(e json.RawMessage) bool { return bytes.Contains(e, []byte("bad")) }) {
					p.reject(in, -1, 1000)
					continue
				}
				p.accept(in)
			}
		}
		lines := append(entries(1, 30), `{"value":"bad"}`, numbered(32))
		report, err := s.run(patience(t), strings.NewReader(strings.Join(lines, "\n")))
		if err != nil || report.Accepted != 30 || report.Rejected != 1 || !slices.Equal(s.rejected, []string{"30: errors lists some"}) {
			t.Errorf("%+v, %v, %q", report, err, s.rejected)
		}
		s.exactly(append(entries(1, 30), numbered(32))...)
	})
}

// TestStamp: entries without a timestamp get one. A rejected one is told as it was.
func TestStamp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		s.bads("bad", 100)
		s.cfg.Stamp = true
		lines := []string{
			`{"value":"1"}`, ` { "value":"bad 2"}`, `{}`, `{ }`, `{"timestamp":"2020-01-01T00:00:00Z","value":"5"}`, `{"user":{"timestamp":"x"}}`,
			`{"\u0074imestamp":"2021-01-01T00:00:00Z"}`, `{"timestamp":"bad 8"}`,
		}
		report, err := s.run(patience(t), strings.NewReader(strings.Join(lines, "\n")))
		if err != nil || report.Accepted != 6 || report.Rejected != 2 {
			t.Errorf("%+v, %v", report, err)
		}
		if got := s.bad.String(); got != lines[1]+"\n"+lines[7]+"\n" {
			t.Errorf("bad are %q", got)
		}
		stamp := regexp.MustCompile(`^(.*\{)"timestamp":"2000-01-01T00:00:00\.\d{6}Z",?(.*)$`)
		for text, n := range s.stored {
			if match := stamp.FindStringSubmatch(text); match != nil {
				text = match[1] + match[2]
			} else if text != lines[4] && text != lines[6] {
				t.Errorf("%s has no timestamp", text)
			}
			if n != 1 || !slices.Contains(lines, text) {
				t.Errorf("%s is stored %d times", text, n)
			}
		}
	})
}

// TestLoneLine: a line leaves at once, whatever follows, and more lines that are there
// leave together.
func TestLoneLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		var sizes []int
		s.serve = func(p *peer) {
			for in, ok := p.read(); ok; in, ok = p.read() {
				sizes = append(sizes, len(in.Entries))
				p.accept(in)
			}
		}
		r, w := io.Pipe()
		began := time.Now()
		go func() {
			for i, text := range []string{"{}\n", "{}\n{}\n{}\n", "{}\n{", "}\n"} {
				fmt.Fprint(w, text)
				synctest.Wait()
				if got := len(sizes); got != min(i+1, 4) || !time.Now().Equal(began) {
					t.Errorf("write %d: %d batches after %v", i, got, time.Since(began))
				}
			}
			w.Close()
		}()
		report, err := s.run(patience(t), r)
		if err != nil || !report.OK(false) || !slices.Equal(sizes, []int{1, 3, 1, 1}) {
			t.Errorf("%+v, %v, batches of %v", report, err, sizes)
		}
	})
}

// TestStop: after a signal what was read is waited for, for a while. What has no answer
// then is named by its lines.
func TestStop(t *testing.T) {
	for name, after := range map[string]time.Duration{"answered": time.Second, "late": time.Minute} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newSending(t)
				s.serve = func(p *peer) {
					for in, ok := p.read(); ok; in, ok = p.read() {
						if in.Ref == "2" {
							time.Sleep(after)
						}
						p.accept(in)
					}
				}
				r, w := io.Pipe()
				ctx, cancel := context.WithCancelCause(patience(t))
				stop := errors.New("a signal")
				go func() {
					fmt.Fprintln(w, "{}\n\n{}")
					synctest.Wait()
					fmt.Fprint(w, "{}\n{}\n{\"half\":") // the rest does not come
					synctest.Wait()
					cancel(stop)
					synctest.Wait()
					w.Close() // for the Read that is left
				}()
				began := time.Now()
				report, err := s.run(ctx, r)
				want := Report{Lines: 5, Empty: 1, Accepted: 4}
				if name == "late" {
					want = Report{Lines: 5, Empty: 1, Accepted: 2, Unknown: 2, UnknownLines: []Range{{4, 5}}}
				}
				if !errors.Is(err, stop) || !reflect.DeepEqual(report, want) {
					t.Errorf("%+v, %v, want %+v", report, err, want)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
				time.Sleep(after)
			})
		})
	}
}

// TestRefusedWhileReading: a refusal is told at once, not at the next line.
func TestRefusedWhileReading(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		s.serve = func(p *peer) {
			time.Sleep(time.Second)
			_ = p.ws.Close(4401, "")
		}
		r, w := io.Pipe()
		report, err := s.run(patience(t), r)
		if !errors.Is(err, ErrRefused) || report.Lines != 0 {
			t.Errorf("%+v, %v", report, err)
		}
		w.Close()
	})
}

// TestReadNoFurther: what a window has no room for is not read.
func TestReadNoFurther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		s.serve = func(p *peer) {
			for _, ok := p.read(); ok; _, ok = p.read() {
			}
		}
		r := &endless{line: []byte(`{"value":"` + strings.Repeat("x", 500) + `"}` + "\n")}
		ctx, cancel := context.WithCancel(patience(t))
		time.AfterFunc(time.Minute, cancel)
		report, err := s.run(ctx, r)
		if !errors.Is(err, context.Canceled) || report.Unknown == 0 || report.Unknown != report.Lines {
			t.Errorf("%+v, %v", report, err)
		}
		if most := s.limits.WindowBytes + readBytes; r.n > most {
			t.Errorf("%d bytes were read, want at most %d", r.n, most)
		}
	})
}

// endless is lines without an end.
type endless struct {
	line []byte
	n    int // bytes that were read
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c := copy(p[n:], e.line[(e.n+n)%len(e.line):])
		n += c
	}
	e.n += n
	return n, nil
}

// TestBadFails: a run whose rejected lines cannot be kept ends.
func TestBadFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		s.cfg.Bad = full{}
		_, err := s.run(patience(t), &endless{line: []byte("bad\n")})
		if !errors.Is(err, errFull) {
			t.Errorf("%v", err)
		}
	})
}

var errFull = errors.New("no space left")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestLongLineMeanwhile: rejected lines that come while a long one is read do not end
// up within it.
func TestLongLineMeanwhile(t *testing.T) {
	var out bytes.Buffer
	b := bad{to: &out}
	end := b.begin()
	b.piece([]byte("lo"))
	b.line([]byte("other"))
	b.piece([]byte("ng"))
	end()
	b.line([]byte("last"))
	if out.String() != "long\nother\nlast\n" {
		t.Errorf("%q", out.String())
	}
}

// TestWantedLines: with Want, only what is written is well.
func TestWantedLines(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSending(t)
		s.cfg.Want = true
		s.serve = func(p *peer) {
			for in, ok := p.read(); ok; in, ok = p.read() {
				p.accept(in)
				switch in.Ref {
				case "1":
					p.say("written", map[string]any{"ref": in.Ref})
				case "2":
					p.say("dead", map[string]any{"ref": in.Ref, "dead": 1})
				}
			}
		}
		r, w := io.Pipe()
		ctx, cancel := context.WithCancel(patience(t))
		go func() {
			for _, text := range []string{"{}\n{}\n", "{}\n{}\n", "{}\n"} {
				fmt.Fprint(w, text)
				synctest.Wait()
			}
			cancel()
			w.Close()
		}()
		report, _ := s.run(ctx, r)
		want := Report{Lines: 5, Accepted: 5, Written: 3, Dead: 1, Unwritten: 1, UnwrittenLines: []Range{{5, 5}}, DeadLines: []Range{{3, 4}}}
		if !reflect.DeepEqual(report, want) || report.OK(true) || !report.OK(false) {
			t.Errorf("%+v, want %+v", report, want)
		}
	})
}
