package dashboard

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/httpstream/streamtest"
)

// TestFeedTellsAll: whatever becomes of the rows, a client that puts together what it is
// told knows them as they are: one of the first hour, one that came later, one that read
// nothing for a while.
func TestFeedTellsAll(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			s := newSystem()
			p, stop := streamtest.Serve(s.feed(Rows))
			clients := []*page{open(t, p, "a")}
			long := strings.Repeat("<x>", 300) // so that a part takes several events
			for range 60 {
				for range 1 << random.IntN(10) {
					key := fmt.Sprint(random.IntN(500))
					switch random.IntN(5) {
					case 0:
						s.remove(key)
					case 1:
						s.remove(key)
						s.set(key, "again")
					default:
						s.set(key, fmt.Sprint(random.IntN(3), long[:random.IntN(len(long))]))
					}
				}
				if random.IntN(10) == 0 {
					for _, key := range slices.Clone(s.keys) {
						s.remove(key)
					}
				}
				s.mu.Lock()
				s.complete = random.IntN(2) == 0
				s.mu.Unlock()
				if random.IntN(10) == 0 {
					clients = append(clients, open(t, p, "a"))
				}
				time.Sleep(time.Duration(random.IntN(3)) * 400 * time.Millisecond)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			for i, c := range clients {
				if got := c.see(); !maps.Equal(got.rows, s.rows) || got.complete != s.complete || got.broken != "" || got.bye != "" {
					t.Errorf("seed %d: client %d has %d rows, want %d; %q %q", seed, i, len(got.rows), len(s.rows), got.broken, got.bye)
				}
			}
			stop()
		})
	}
}

// TestFeedTellsNews: a change is told within a second, in one row; what only time changes
// is not told. With nothing new, the stream says every two seconds that it is alive.
func TestFeedTellsNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem()
		for i := range 1024 {
			s.set(fmt.Sprint(i), "idle")
		}
		p, stop := streamtest.Serve(s.feed(Rows))
		c := open(t, p, "a")
		time.Sleep(time.Second)
		before := c.see()
		if len(before.rows) != 1024 || before.wholes != 1 || !slices.Equal(before.order, s.keys) {
			t.Errorf("%d rows at first, %d times whole", len(before.rows), before.wholes)
		}
		time.Sleep(time.Minute)
		if idle := c.see(); idle.bytes-before.bytes > 3000 || idle.beats < 29 || idle.beats > 31 || len(idle.order) != 1024 {
			t.Errorf("in a minute without news %d bytes and %d beats were sent", idle.bytes-before.bytes, idle.beats)
		}
		for range 20 {
			time.Sleep(1234 * time.Millisecond)
			began, was := time.Now(), len(c.see().order)
			s.set("7", began.String())
			time.Sleep(time.Second)
			synctest.Wait()
			got := c.see()
			if took := got.last.Sub(began); took > lookInterval || got.rows["7"] != began.String() || len(got.order) != was+1 {
				t.Errorf("after %v it has %q, with %d rows", took, got.rows["7"], len(got.order)-was)
			}
		}
		stop()
	})
}

// TestFeedForms: the one row of a value comes whole, points that are old go without a word.
func TestFeedForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		value, points := newSystem(), newSystem()
		value.set("overview", "1")
		f := NewFeed([]Part{{Name: "value", Form: Value, Look: value.look}, {Name: "points", Form: Points, Look: points.look}}, clientOf)
		p, stop := streamtest.Serve(f)
		_, in, _ := p.Get(t, events, "Client: a")
		c := &page{ended: make(chan struct{}), rows: make(map[string]string)}
		go c.read(in)
		for i := range 10 {
			points.set(fmt.Sprint("p", i), "x")
			if i > 2 {
				points.remove(fmt.Sprint("p", i-3))
			}
			time.Sleep(time.Second)
		}
		value.mu.Lock()
		value.complete = false // news without a new row
		value.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		got := c.see()
		want := []string{"overview", "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9", "overview"}
		if got.rows["overview"] != "1" || got.complete || !slices.Equal(got.order, want) || got.broken != "" {
			t.Errorf("it was told %v, %q, and complete is %v", got.order, got.broken, got.complete)
		}
		stop()
	})
}

// TestFeedLooks: without a stream nothing is looked at; with any number of them, that come
// and go, twice a second.
func TestFeedLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem()
		f := s.feed(Rows)
		p, stop := streamtest.Serve(f)
		time.Sleep(time.Minute)
		if n := s.looked(); n != 0 {
			t.Errorf("%d looks without a stream", n)
		}
		began := time.Now()
		for i := range 200 {
			c := open(t, p, fmt.Sprint(i))
			time.Sleep(time.Duration(1+i%10) * 10 * time.Millisecond)
			if i%5 > 0 {
				c.conn.Close()
			}
		}
		if n, most := s.looked(), int(time.Since(began)/lookInterval)+2; n > most {
			t.Errorf("%d looks in %v", n, time.Since(began))
		}
		stop()
		synctest.Wait()
		n := s.looked()
		time.Sleep(time.Minute)
		if s.looked() != n || f.running || len(f.viewers) != 0 || f.parts[0].viewers != 0 {
			t.Errorf("%d looks after the last stream; %d streams", s.looked()-n, len(f.viewers))
		}
	})
}

// TestFeedComesBack: a stream that begins after a while is told what is, not what was.
func TestFeedComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem()
		s.set("1", "old")
		p, stop := streamtest.Serve(s.feed(Rows))
		first := open(t, p, "a")
		time.Sleep(time.Second)
		first.conn.Close()
		time.Sleep(time.Minute)
		s.set("1", "new")
		s.set("2", "new")
		s.mu.Lock()
		s.takes = 700 * time.Millisecond
		s.mu.Unlock()
		c := open(t, p, "a")
		time.Sleep(time.Second)
		if got := c.see(); !slices.Equal(got.order, []string{"1", "2"}) || got.rows["1"] != "new" || got.wholes != 1 {
			t.Errorf("it was told %v, %v", got.order, got.rows)
		}
		stop()
		time.Sleep(time.Second)
	})
}

// TestFeedForgetsGone: a part that has lost more rows than it remembers is told anew.
func TestFeedForgetsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem()
		s.set("stays", "x")
		f := s.feed(Rows)
		p, stop := streamtest.Serve(f)
		c := open(t, p, "a")
		for i := range 3 {
			for n := range 3000 {
				s.set(fmt.Sprint(i, "-", n), "x")
			}
			time.Sleep(time.Second)
			for n := range 3000 {
				s.remove(fmt.Sprint(i, "-", n))
			}
			time.Sleep(time.Second)
		}
		synctest.Wait()
		// A look may come amid the changes, and so the gone are forgotten once, or twice more.
		if got := c.see(); len(got.rows) != 1 || got.wholes < 2 || got.wholes > 4 || got.broken != "" || len(f.parts[0].gone) > maxGone {
			t.Errorf("%d rows, %d times whole, %d are remembered as gone", len(got.rows), got.wholes, len(f.parts[0].gone))
		}
		stop()
	})
}

// TestFeedPlaces: one client may have all places. If another one comes, the first loses
// its oldest, and cannot take it back.
func TestFeedPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem()
		f := s.feed(Rows)
		p, stop := streamtest.Serve(f)
		var all []*page
		for range MaxViewers {
			all = append(all, open(t, p, "a"))
			synctest.Wait()
		}
		refused := func(client string) bool {
			conn, in, head := p.Get(t, events, "Client: "+client)
			go discard(in)
			defer conn.Close()
			return strings.Contains(head, "503 Service Unavailable") && strings.Contains(head, "Retry-After: 10\r\n")
		}
		if !refused("a") {
			t.Error("a client got one more than there may be")
		}
		other := open(t, p, "b")
		time.Sleep(time.Second)
		if got := all[0].see(); got.bye != "places" {
			t.Errorf("the oldest ends with %q", got.bye)
			stop()
			return
		}
		<-all[0].ended
		if !refused("a") || len(f.viewers) != MaxViewers || other.see().bye != "" {
			t.Error("the client took its place back")
		}
		stop()
	})
}

// TestFeedSlowReader: a client that does not read loses its stream after ten seconds, and
// no other waits for it. One that is slow gets the latest rows, not all that were.
func TestFeedSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem()
		s.set("1", "0")
		f := s.feed(Rows)
		p, stop := streamtest.Serve(f)
		deaf, _, _ := p.Get(t, events, "Client: a")
		slow, in, _ := p.Get(t, events, "Client: a")
		c := open(t, p, "a")
		for i := range 36 {
			s.set("1", fmt.Sprint(i))
			time.Sleep(250 * time.Millisecond)
		}
		if len(f.viewers) != 3 || len(c.see().order) < 17 {
			t.Errorf("%d streams, and one was told %d rows", len(f.viewers), len(c.see().order))
		}
		late := &page{ended: make(chan struct{}), rows: make(map[string]string)}
		go late.read(in)
		time.Sleep(3 * time.Second)
		if got := late.see(); got.rows["1"] != "35" || len(got.order) > 3 {
			t.Errorf("the slow one was told %d rows, the last is %q", len(got.order), got.rows["1"])
		}
		if len(f.viewers) != 2 {
			t.Errorf("%d streams, want 2 without the one that does not read", len(f.viewers))
		}
		deaf.Close()
		slow.Close()
		stop()
	})
}

// TestFeedRate: a stream writes a mebibyte a second at most, however much is new.
func TestFeedRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem()
		p, stop := streamtest.Serve(s.feed(Rows))
		c := open(t, p, "a")
		for i := range 20 {
			for n := range 2000 {
				s.set(fmt.Sprint(n), fmt.Sprint(i, strings.Repeat("x", 1000)))
			}
			time.Sleep(500 * time.Millisecond)
		}
		if got := c.see(); got.bytes > 12*maxRate || got.bytes < 8*maxRate {
			t.Errorf("%d bytes in 10 s", got.bytes)
		}
		time.Sleep(10 * time.Second)
		if got := c.see(); !maps.Equal(got.rows, s.rows) {
			t.Error("it does not have the latest rows")
		}
		stop()
	})
}

// TestFeedDrain: a stream ends with a last word when the process stops, and does not hold
// it up, also if its client does not read.
func TestFeedDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem()
		s.set("1", strings.Repeat("x", 100_000))
		p, stop := streamtest.Serve(s.feed(Rows))
		deaf, _, _ := p.Get(t, events, "Client: a")
		c := open(t, p, "a")
		time.Sleep(3 * time.Second)
		began := time.Now()
		stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
		<-c.ended
		if got := c.see(); got.bye != "drain" {
			t.Errorf("the last word is %q", got.bye)
		}
		deaf.Close()
	})
}

// TestFeedQuery: parts that there are not, and other parameters, are a problem.
func TestFeedQuery(t *testing.T) {
	for _, query := range []string{"parts=", "parts=things,", "parts=x", "parts=things&parts=things", "part=things", "parts=things&x=1", "parts=%zz", "parts=" + strings.Repeat("things,", 1000)} {
		w := httptest.NewRecorder()
		newSystem().feed(Rows).ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/events?"+query, nil))
		var problem struct{ Type string }
		if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil || w.Code != 400 || !strings.HasSuffix(problem.Type, ":invalid-query") {
			t.Errorf("%.50s: %d %s", query, w.Code, w.Body)
		}
	}
}
