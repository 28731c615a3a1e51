package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
)

// network is processes with a Series each, over a bus in memory.
type network struct {
	t      *testing.T
	memory *brokertest.Memory
	names  []string // of those that are there
	away   bool     // the bus
	ends   sync.WaitGroup
	stops  []context.CancelFunc
	began  time.Time
}

func newNetwork(t *testing.T) *network {
	return &network{t: t, memory: brokertest.NewMemory(1), began: time.Now()}
}

// end ends all processes.
func (n *network) end() {
	for _, stop := range n.stops {
		stop()
	}
	n.ends.Wait()
	_ = n.memory.Close()
}

// worker is a process, and what it counts.
type worker struct {
	*Series
	looks atomic.Int32
}

// start starts a process whose numbers are those of a time since its start.
func (n *network) start(name string, numbers func(since time.Duration) Numbers) *worker {
	w, client, began := &worker{}, n.memory.Open(nil), time.Now()
	w.Series = NewSeries(SeriesConfig{
		Bus: client, Skips: new(broker.Skips), Node: func() string { return name },
		Others: func() ([]string, bool) {
			return slices.DeleteFunc(slices.Clone(n.names), func(o string) bool { return o == name }), !n.away
		},
		Numbers: func() Numbers {
			w.looks.Add(1)
			return numbers(time.Since(began))
		},
	})
	n.names = append(n.names, name)
	ctx, stop := context.WithCancel(context.Background())
	n.stops = append(n.stops, stop)
	n.ends.Go(func() {
		w.Run(ctx)
		_ = client.Close()
	})
	synctest.Wait()
	return w
}

// writes is a process that writes so many messages a second.
func writes(rate float64, queued int64) func(time.Duration) Numbers {
	return func(since time.Duration) (n Numbers) {
		written, dead, oldest := int64(rate*since.Seconds()), int64(since/time.Minute), time.Duration(queued)*time.Second
		return Numbers{Written: &written, Dead: &dead, Queued: &queued, Oldest: &oldest}
	}
}

func accepts(rate float64) func(time.Duration) Numbers {
	return func(since time.Duration) (n Numbers) {
		accepted := int64(rate * since.Seconds())
		return Numbers{Accepted: &accepted}
	}
}

func near(got *float64, want float64) bool { return got != nil && math.Abs(*got-want) <= 1 }

// TestSeries: every process sums up those of all, whose samples are not of the same time.
// What a process has counted is in the points, once.
func TestSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		defer n.end()
		all := []*worker{n.start("a", writes(10, 3))}
		time.Sleep(1700 * time.Millisecond)
		all = append(all, n.start("b", writes(20, 4)))
		time.Sleep(2900 * time.Millisecond)
		all = append(all, n.start("c", accepts(35)))
		time.Sleep(10 * time.Minute)
		all = append(all, n.start("late", writes(100, 0)))
		time.Sleep(4 * time.Minute)
		for _, w := range all[:3] {
			a := w.Answer()
			if !a.Complete || len(a.Points) < 160 || a.Step != 5 {
				t.Fatalf("%d points, complete %v", len(a.Points), a.Complete)
			}
			dead := int64(0)
			for i, p := range a.Points {
				written := 30.0
				if p.At.Sub(n.began) > 10*time.Minute+20*time.Second {
					written = 130
				}
				settled := i > 2 && (p.At.Sub(n.began) < 10*time.Minute || written > 30)
				if dead += *p.Dead; settled && (!near(p.Written, written) || !near(p.Accepted, 35) || *p.Queued != 7 || *p.Oldest != 4) {
					text, _ := json.Marshal(p)
					t.Errorf("point %d is %s, want %v written", i, text, written)
				}
				if i > 0 && p.At.Sub(a.Points[i-1].At) != seriesStep {
					t.Errorf("point %d is %v after the one before", i, p.At.Sub(a.Points[i-1].At))
				}
			}
			if dead < 14+13+3 || dead > 14+14+4 {
				t.Errorf("%d dead letters", dead)
			}
			if last := a.Points[len(a.Points)-1]; time.Since(last.At) > seriesStep {
				t.Errorf("the last point is %v old", time.Since(last.At))
			}
		}
		time.Sleep(time.Hour)
		if a := all[0].Answer(); len(a.Points) != maxSamples-1 || len(all[0].seen()) != maxSamples {
			t.Errorf("%d points after an hour", len(a.Points))
		}
	})
}

// TestSeriesPointsStay: a client that was told points, and then only the new ones, misses
// nothing of what was written. A process of another phase, whose numbers are split among two
// points, is in them, too.
func TestSeriesPointsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		defer n.end()
		a := n.start("a", accepts(0))
		time.Sleep(2499 * time.Millisecond)
		n.start("b", func(since time.Duration) Numbers { // by fits and starts
			written := int64(since/(7*time.Second)) * 700
			zero := int64(0)
			return Numbers{Written: &written, Dead: &zero, Queued: &zero}
		})
		seen, sum := time.Time{}, 0.0
		for range 1000 {
			time.Sleep(477 * time.Millisecond)
			for _, p := range a.Answer().Points {
				if p.At.After(seen) && p.Written != nil {
					sum += *p.Written * seriesStep.Seconds()
					seen = p.At
				}
			}
		}
		if want := 100 * seen.Sub(n.began.Add(2499*time.Millisecond)).Seconds(); math.Abs(sum-want) > 705 {
			t.Errorf("the points sum up to %.0f messages, want %.0f", sum, want)
		}
	})
}

// TestSeriesUnknown: what no process tells is null, never 0. A process that does not
// answer is left out, and said to be.
func TestSeriesUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		defer n.end()
		a := n.start("a", accepts(5))
		if got := a.Answer(); got.Points == nil || len(got.Points) != 0 || !got.Complete {
			t.Errorf("%d points at first, complete %v", len(got.Points), got.Complete)
		}
		time.Sleep(11 * time.Second)
		text, _ := json.Marshal(a.Answer().Points[1])
		if !strings.HasSuffix(string(text), `"accepted_per_s":5,"written_per_s":null,"dead":null,"queued":null,"oldest_unwritten_age_s":null}`) {
			t.Errorf("got %s", text)
		}
		n.start("b", func(time.Duration) Numbers { zero := int64(0); return Numbers{Written: &zero, Dead: &zero} })
		time.Sleep(11 * time.Second)
		points := a.Answer().Points
		text, _ = json.Marshal(points[len(points)-1])
		if !strings.HasSuffix(string(text), `"accepted_per_s":5,"written_per_s":0,"dead":0,"queued":null,"oldest_unwritten_age_s":null}`) {
			t.Errorf("got %s", text)
		}
		n.names = append(n.names, "silent")
		time.Sleep(6 * time.Second)
		began := time.Now()
		if got := a.Answer(); got.Complete || !near(got.Points[2].Written, 0) || time.Since(began) != time.Second {
			t.Errorf("complete %v after %v", got.Complete, time.Since(began))
		}
		n.away = true
		time.Sleep(6 * time.Second)
		if got := a.Answer(); got.Complete || got.Points[2].Written != nil || !near(got.Points[2].Accepted, 5) {
			t.Errorf("without the bus: complete %v", got.Complete)
		}
	})
}

// TestSeriesFlood: any number of requests, and of questions on the bus, cost one question a
// step, and one look a second.
func TestSeriesFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		defer n.end()
		a, b := n.start("a", writes(1, 0)), n.start("b", writes(1, 0))
		time.Sleep(time.Minute + time.Second)
		looks := b.looks.Load()
		for range 100 {
			time.Sleep(50 * time.Millisecond)
			for range 10 {
				w := httptest.NewRecorder()
				a.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/series", nil))
				if w.Code != 200 || w.Header().Get("Cache-Control") != "no-store" {
					t.Fatal(w.Code)
				}
			}
		}
		if more := b.looks.Load() - looks; more > 3 {
			t.Errorf("another process looked %d times in 5 s, want one sample and one for the question", more)
		}
		for range 1000 {
			time.Sleep(time.Millisecond)
			b.answer(nil)
		}
		if more := b.looks.Load() - looks; more > 6 {
			t.Errorf("it looked %d times", more)
		}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/series?x=1", nil))
		if w.Code != 400 {
			t.Errorf("with a parameter: %d", w.Code)
		}
	})
}

// TestSeriesHostileAnswers: what is no series, or of a process that is not known, changes
// nothing.
func TestSeriesHostileAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		defer n.end()
		a := n.start("a", writes(10, 1))
		n.names = append(n.names, "b")
		begin := `{"v":1,"node":"b","points":[`
		bodies := []string{
			"", "[]", `{"v":2}`, strings.Repeat("[", 200_000), `{"v":1,"node":"x","points":[[0,5,5,5,5,5]]}`, `{"v":1,"node":"a","points":[[0,5,5,5,5,5]]}`,
			`{"v":1,"node":"b"}`, begin + `[]]}`, begin + `[-1]]}`, begin + `[0,-1]]}`, begin + `[0,9007199254740993]]}`, begin + `[1e300]]}`,
			begin + `[5],[4]]}`, begin + `[0,1],[5,2]]}`, begin + `[0,1],[5,null]]}`, begin + `[99999999]]}`, begin + strings.Repeat("[0],", 1000) + `[0]]}`,
		}
		for _, body := range bodies {
			stop := a.cfg.Bus.Answer(seriesTopic, func([]byte) []byte { return []byte(body) })
			time.Sleep(seriesStep + time.Second)
			if got := a.Answer(); got.Complete || len(got.Points) > 0 && !near(got.Points[0].Written, 10) || len(got.Points) > 0 && got.Points[0].Accepted != nil {
				t.Errorf("%.80s: complete %v, %d points", body, got.Complete, len(got.Points))
			}
			stop()
		}
		if foreign, broken := a.cfg.Skips.Counts(); foreign != 1 || broken != int64(len(bodies)-3) {
			t.Errorf("%d and %d were skipped", foreign, broken)
		}
		for _, odd := range []string{begin + `[0,0]]}`, begin + `[0,null,7,7,null,9007199254740992],[0,null,0,0]]}`} {
			stop := a.cfg.Bus.Answer(seriesTopic, func([]byte) []byte { return []byte(odd) })
			time.Sleep(seriesStep + time.Second)
			got := a.Answer()
			if _, err := json.Marshal(got); err != nil || !got.Complete {
				t.Errorf("%s: complete %v, %v", odd, got.Complete, err)
			}
			stop()
		}
	})
}

// BenchmarkSeriesSum sums up the series of a hundred processes.
func BenchmarkSeriesSum(b *testing.B) {
	began := time.Now()
	var own []sample
	for i := range maxSamples {
		n := writes(float64(i), 1)(time.Hour - time.Duration(i)*seriesStep)
		own = append(own, sample{began.Add(-time.Duration(i) * seriesStep), n})
	}
	var all [][]aged
	for range 100 {
		all = append(all, age(own, began))
	}
	for b.Loop() {
		if got := sum(own, all, began); len(got) != maxSamples-1 {
			b.Fatal(fmt.Sprint(len(got)))
		}
	}
}
