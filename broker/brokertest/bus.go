package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker"
)

var busCases = []testCase{
	{"a tell reaches all that listen", fansOut},
	{"all that answer are heard", gathers},
	{"asks end", endsAsks},
	{"tells keep their order", keepsOrder},
	{"a slow listener loses the oldest", dropsOldest},
	{"sizes are bounded", boundsBodies},
	{"a topic has a form", checksTopics},
	{"a thousand ask side by side", asksSideBySide},
	{"stop while a call runs", stopsUnderWay},
	{"close ends it all", closesBus},
	{"a peer vanishes", outlivesPeer}, // this, and the rest, in bus_faults.go
	{"connects again", reconnectsBus},
	{"messages of others", withstandsOthers},
}

// heard is what a listener heard.
type heard struct {
	body   string
	missed int
}

var begun = heard{"", broker.Reconnected}

// listen returns what a listener hears after it has begun.
func listen(t *testing.T, b broker.Bus, topic string) <-chan heard {
	t.Helper()
	hears := make(chan heard, 10_000)
	t.Cleanup(b.Listen(topic, func(body []byte, missed int) { hears <- heard{string(body), missed} }))
	hear(t, hears, begun)
	return hears
}

// hear checks what is heard next.
func hear(t *testing.T, hears <-chan heard, want heard) {
	t.Helper()
	select {
	case got := <-hears:
		if got != want {
			t.Fatalf("heard %.60q, %d missed; want %.60q, %d", got.body, got.missed, want.body, want.missed)
		}
	case <-time.After(patience):
		t.Fatalf("heard nothing within %v, want %.60q", patience, want.body)
	}
}

func hearNothing(t *testing.T, hears <-chan heard) {
	t.Helper()
	select {
	case got := <-hears:
		t.Errorf("heard %.60q, %d missed", got.body, got.missed)
	case <-time.After(quiet):
	}
}

func tell(t *testing.T, b broker.Bus, topic, body string) {
	t.Helper()
	if err := b.Tell(topic, []byte(body)); err != nil {
		t.Fatalf("Tell: %v", err)
	}
}

// answer answers until the test ends, and waits until b's own questions arrive.
func answer(t *testing.T, b broker.Bus, topic string, answer func([]byte) []byte) {
	t.Helper()
	t.Cleanup(b.Answer(topic, func(body []byte) []byte {
		if string(body) == "here?" {
			return body
		}
		return answer(body)
	}))
	eventually(t, func() bool { return len(ask(t, b, topic, "here?", 1)) == 1 }, func() string { return "no answer to " + topic })
}

// ask returns the answers, sorted, once there are n, or after a second.
func ask(t *testing.T, b broker.Bus, topic, body string, n int) (answers []string) {
	t.Helper()
	err := b.Ask(t.Context(), topic, []byte(body), func(answer []byte) bool {
		answers = append(answers, string(answer))
		return len(answers) < n
	})
	if err != nil {
		t.Fatalf("Ask: %v", err)
	}
	slices.Sort(answers)
	return answers
}

func fansOut(t *testing.T, e *Engine) {
	a, b := open(t, e), open(t, e)
	var all []<-chan heard
	for _, on := range []broker.Bus{a, b, b} {
		all = append(all, listen(t, on, "news"))
	}
	other := listen(t, b, "news.other")
	t.Cleanup(b.Answer("news", func([]byte) []byte { t.Error("it was told, and came as a question"); return nil }))
	body := []byte("1")
	if err := a.Tell("news", body); err != nil {
		t.Fatal(err)
	}
	body[0] = 'x' // it is the caller's again
	for _, hears := range all {
		hear(t, hears, heard{"1", 0})
	}
	tell(t, a, "news.other", "")
	hear(t, other, heard{"", 0})
	hearNothing(t, all[0])
}

func gathers(t *testing.T, e *Engine) {
	a, b := open(t, e), open(t, e)
	for name, on := range map[string]broker.Bus{"a": a, "b": b} {
		answer(t, on, "who", func(body []byte) []byte { return append([]byte(name), body...) })
	}
	answer(t, b, "who", func([]byte) []byte { return nil })
	told := listen(t, b, "who")
	for i := range 3 {
		body := fmt.Sprint(i)
		if got := ask(t, a, "who", body, 2); !slices.Equal(got, []string{"a" + body, "b" + body}) {
			t.Errorf("%q, want the answers of a and b", got)
		}
	}
	hearNothing(t, told)
}

// endsAsks: an ask ends when enough is heard, at its deadline, or after a second.
func endsAsks(t *testing.T, e *Engine) {
	b := open(t, e)
	answer(t, b, "who", func(body []byte) []byte { return body })
	answer(t, b, "who", func(body []byte) []byte { return body })
	if got := ask(t, b, "who", "", 1); len(got) != 1 {
		t.Errorf("%d answers, want one: it said that this is enough", len(got))
	}
	none := func([]byte) bool { t.Error("an answer to a topic that has none"); return true }
	for _, c := range []struct{ deadline, want time.Duration }{{0, broker.AskTimeout}, {quiet, quiet}} {
		ctx, cancel, began := t.Context(), func() {}, time.Now()
		if c.deadline > 0 {
			ctx, cancel = context.WithTimeout(ctx, c.deadline)
		}
		if err := b.Ask(ctx, "no.one", nil, none); err != nil {
			t.Errorf("Ask: %v, want no error without an answer", err)
		}
		if took := time.Since(began); took < c.want || took > c.want+slack {
			t.Errorf("it took %v, want %v", took, c.want)
		}
		cancel()
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Ask(over, "who", nil, none); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error: nothing was asked", err)
	}
}

func keepsOrder(t *testing.T, e *Engine) {
	const n = 400
	a, b := open(t, e), open(t, e)
	hears := listen(t, b, "order")
	listen(t, a, "order") // a is connected, too
	var tellers sync.WaitGroup
	for name, on := range map[string]broker.Bus{"a": a, "b": b} {
		tellers.Go(func() {
			for i := range n {
				if err := on.Tell("order", fmt.Appendf(nil, "%s %d", name, i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	tellers.Wait()
	next := map[string]int{}
	for range 2 * n {
		select {
		case got := <-hears:
			name, i, _ := strings.Cut(got.body, " ")
			if got.missed != 0 || i != fmt.Sprint(next[name]) {
				t.Fatalf("heard %q, %d missed; want number %d", got.body, got.missed, next[name])
			}
			next[name]++
		case <-time.After(patience):
			t.Fatalf("heard %v of %d each", next, n)
		}
	}
}

// dropsOldest: a listener that does not return loses what is too much, the oldest
// first, and costs the others nothing.
func dropsOldest(t *testing.T, e *Engine) {
	const more = 7 // than may wait
	b := open(t, e)
	slow := make(chan heard, 2000)
	entered, hold := make(chan struct{}, 2000), make(chan struct{})
	t.Cleanup(b.Listen("load", func(body []byte, missed int) {
		if missed != broker.Reconnected {
			entered <- struct{}{}
			<-hold
		}
		slow <- heard{string(body), missed}
	}))
	hear(t, slow, begun)
	fast := listen(t, b, "load")
	number := 0
	for number < 1+waiting+more {
		number++
		body := fmt.Sprint(number)
		tell(t, b, "load", body)
		hear(t, fast, heard{body, 0})
		if number == 1 {
			<-entered // it holds this one, which is not lost
		}
	}
	close(hold)
	hear(t, slow, heard{"1", 0})
	hear(t, slow, heard{fmt.Sprint(2 + more), more})
	for i := 3 + more; i <= number; i++ {
		hear(t, slow, heard{fmt.Sprint(i), 0})
	}
}

// waiting is how much waits for a listener, at most.
const waiting = 1000

func boundsBodies(t *testing.T, e *Engine) {
	a, b := open(t, e), open(t, e)
	hears := listen(t, b, "size")
	answer(t, b, "size", func(body []byte) []byte { return body })
	answer(t, b, "size.more", func(body []byte) []byte { return append(bytes.Clone(body), 'x') })
	listen(t, a, "connected")
	largest := strings.Repeat("x", broker.MaxBusBody)
	tell(t, a, "size", largest)
	hear(t, hears, heard{largest, 0})
	if got := ask(t, a, "size", largest, 1); !slices.Equal(got, []string{largest}) {
		t.Errorf("%d answers, want the largest that may be", len(got))
	}
	if got := ask(t, a, "size.more", largest, 1); len(got) != 0 {
		t.Errorf("%d answers that are a byte too long", len(got))
	}
	if err := a.Tell("size", []byte(largest+"x")); err == nil {
		t.Error("it told a byte more than may be")
	}
	err := a.Ask(t.Context(), "size", []byte(largest+"x"), func([]byte) bool { return false })
	if err == nil {
		t.Error("it asked a byte more than may be")
	}
	hearNothing(t, hears)
}

func checksTopics(t *testing.T, e *Engine) {
	b := open(t, e)
	listen(t, b, "connected")
	for _, topic := range []string{"", "#", "*", ">", "a.*", "a..b", "A", "a b", strings.Repeat("a", broker.MaxTopic+1)} {
		if err := b.Tell(topic, nil); err == nil {
			t.Errorf("told to %.20q", topic)
		}
		if err := b.Ask(t.Context(), topic, nil, func([]byte) bool { return false }); err == nil {
			t.Errorf("asked of %.20q", topic)
		}
		b.Listen(topic, func([]byte, int) { t.Errorf("heard of %.20q", topic) })()
		b.Answer(topic, func([]byte) []byte { t.Errorf("asked of %.20q", topic); return nil })()
	}
	longest := strings.Repeat("a", broker.MaxTopic)
	hears := listen(t, b, longest)
	tell(t, b, longest, "1")
	hear(t, hears, heard{"1", 0})
}

func asksSideBySide(t *testing.T, e *Engine) {
	a, b := open(t, e), open(t, e)
	answer(t, b, "echo", func(body []byte) []byte { return body })
	answer(t, a, "connected", func(body []byte) []byte { return body })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var asks sync.WaitGroup
	for i := range 1000 {
		asks.Go(func() {
			body, got := fmt.Sprint(i), ""
			err := a.Ask(ctx, "echo", []byte(body), func(answer []byte) bool {
				got += string(answer)
				return false
			})
			if err != nil || got != body {
				t.Errorf("%q, %v; want %q", got, err, body)
			}
		})
	}
	asks.Wait()
}

// stopsUnderWay: stop does not wait for a call that runs, and is the last word.
func stopsUnderWay(t *testing.T, e *Engine) {
	b := open(t, e)
	entered, hold := make(chan string, 10), make(chan struct{})
	stop := b.Listen("stop", func(body []byte, missed int) {
		if missed != broker.Reconnected {
			entered <- string(body)
			<-hold
		}
	})
	witness := listen(t, b, "stop")
	tell(t, b, "stop", "1")
	if got := <-entered; got != "1" {
		t.Fatalf("heard %q", got)
	}
	tell(t, b, "stop", "2")
	for _, body := range []string{"1", "2"} {
		hear(t, witness, heard{body, 0})
	}
	stop()
	stop()
	close(hold)
	tell(t, b, "stop", "3")
	hear(t, witness, heard{"3", 0})
	select {
	case got := <-entered:
		t.Errorf("heard %q after stop", got)
	case <-time.After(quiet):
	}
}

func closesBus(t *testing.T, e *Engine) {
	a, b := open(t, e), open(t, e)
	hears := listen(t, b, "news")
	witness := listen(t, a, "news")
	listen(t, b, "connected")
	asked := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		asked <- b.Ask(ctx, "no.one", nil, func([]byte) bool { return true })
	}()
	time.Sleep(quiet) // so that it has asked, most times
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-asked:
		if !errors.Is(err, broker.ErrClosed) {
			t.Errorf("Ask: %v, want ErrClosed", err)
		}
	case <-time.After(slack):
		t.Error("Ask goes on after Close")
	}
	b.Listen("news", func([]byte, int) { t.Error("heard after Close") })
	b.Answer("news", func([]byte) []byte { t.Error("asked after Close"); return nil })
	if err := b.Tell("news", nil); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Tell: %v, want ErrClosed", err)
	}
	if err := b.Ask(t.Context(), "news", nil, func([]byte) bool { return true }); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Ask: %v, want ErrClosed", err)
	}
	tell(t, a, "news", "1")
	hear(t, witness, heard{"1", 0})
	hearNothing(t, hears)
}
