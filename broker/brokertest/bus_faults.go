package brokertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker"
)

// busEngineCases disturb the engine as a whole.
var busEngineCases = []testCase{
	{"the bus survives the engine", survivesBus},
	{"the bus never waits", neverWaits},
}

// outlivesPeer: one that was asked closes before it answers; the others are heard.
func outlivesPeer(t *testing.T, e *Engine) {
	a, b, c := open(t, e), open(t, e), open(t, e)
	entered, hold := make(chan struct{}, 1), make(chan struct{})
	answer(t, b, "who", func([]byte) []byte { return []byte("b") })
	answer(t, c, "who", func([]byte) []byte {
		entered <- struct{}{}
		<-hold
		return []byte("c")
	})
	answer(t, a, "connected", func(body []byte) []byte { return body })
	go func() {
		<-entered
		_ = c.Close()
		close(hold)
	}()
	if got := ask(t, a, "who", "", 3); !slices.Equal(got, []string{"b"}) {
		t.Errorf("%q, want the answer of b", got)
	}
	if got := ask(t, a, "who", "", 1); !slices.Equal(got, []string{"b"}) {
		t.Errorf("%q, want the answer of b", got)
	}
}

// reconnectsBus: after the loss of its connection a listener is told, and hears again.
func reconnectsBus(t *testing.T, e *Engine) {
	a, b := open(t, e), open(t, e)
	all := []<-chan heard{listen(t, a, "news"), listen(t, b, "news")}
	answer(t, b, "who", func(body []byte) []byte { return body })
	for i := range 2 {
		e.Break(t)
		if !e.BusInProcess {
			for _, hears := range all {
				hear(t, hears, begun)
			}
		}
		for _, on := range []broker.Bus{a, b} {
			body := fmt.Sprint(i)
			tell(t, on, "news", body)
			for _, hears := range all {
				hear(t, hears, heard{body, 0})
			}
		}
		eventually(t, func() bool { return len(ask(t, a, "who", "again", 1)) == 1 }, func() string { return "no answer" })
	}
	a.awaitReady()
}

// withstandsOthers: what other programs send is heard if it could be ours, and harms
// nothing if not.
func withstandsOthers(t *testing.T, e *Engine) {
	if e.BusForeign == nil {
		return // no other program can reach it
	}
	b := open(t, e)
	hears := listen(t, b, "news")
	answer(t, b, "who", func(body []byte) []byte { return body })
	large := make([]byte, broker.MaxBusBody+1)
	for _, topic := range []string{"news", "who", "", ".", "a..b", "NEWS", strings.Repeat("a", broker.MaxTopic+1)} {
		for _, kind := range []string{"tell.", "ask.", "", "other.", "check."} {
			e.BusForeign(t, kind+topic, "", large)
			if topic != "news" {
				e.BusForeign(t, kind+topic, "", []byte("{"))
			}
		}
	}
	for _, reply := range e.BusForeignReplies {
		e.BusForeign(t, "ask.who", reply, []byte("{"))
	}
	e.BusForeign(t, "tell.news", "", []byte("{"))
	hear(t, hears, heard{"{", 0})
	if got := ask(t, b, "who", "1", 2); !slices.Equal(got, []string{"1"}) {
		t.Errorf("%q, want one answer", got)
	}
	hearNothing(t, hears) // the connection has stayed, too
	depth(t, e, 0, 0)     // no answer went into a queue
}

// survivesBus: without the engine nothing can be sent, and it comes back by itself.
func survivesBus(t *testing.T, e *Engine) {
	if e.BusInProcess {
		return // it needs no engine
	}
	b := open(t, e)
	hears := listen(t, b, "news")
	e.Stop(t)
	eventually(t, func() bool { return b.Tell("news", nil) != nil }, func() string { return "told without a broker" })
	ctx, cancel := context.WithTimeout(t.Context(), quiet)
	defer cancel()
	began := time.Now()
	if err := b.Ask(ctx, "news", nil, func([]byte) bool { return true }); err == nil {
		t.Error("asked without a broker")
	}
	if took := time.Since(began); took > quiet+slack {
		t.Errorf("Ask outlived its context by %v", took-quiet)
	}
	for len(hears) > 0 {
		<-hears // of what was told before it noticed
	}
	e.Start(t)
	hear(t, hears, begun)
	tell(t, b, "news", "1")
	hear(t, hears, heard{"1", 0})
	b.awaitReady()
}

// neverWaits: whatever the engine does, a tell takes no time, and the bus goes on when
// it is over.
func neverWaits(t *testing.T, e *Engine) {
	b := open(t, e)
	listen(t, b, "news")
	for _, disturb := range []struct{ begin, end func(testing.TB) }{{e.Block, e.Unblock}, {e.Stall, e.Resume}} {
		disturb.begin(t)
		for range 100 {
			began := time.Now()
			_ = b.Tell("news", make([]byte, broker.MaxBusBody)) // it may have gone, or be refused
			if took := time.Since(began); took > slack {
				t.Errorf("Tell took %v", took)
			}
		}
		disturb.end(t)
		b.awaitReady()
		c := open(t, e)
		hears := listen(t, c, "later")
		eventually(t, func() bool {
			_ = b.Tell("later", nil)
			return len(hears) > 0
		}, func() string { return "nothing is heard any more" })
	}
}
