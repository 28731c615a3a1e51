package jobs

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
)

// TestHostileFrames: what is not the protocol ends the connection, and nothing else.
func TestHostileFrames(t *testing.T) {
	hello := `{"type":"hello","v":1,"runner":"r1","slots":1}`
	attempts := strings.Repeat(`{"run":1,"attempt":1},`, 2)
	many := new(strings.Builder)
	for n := range frame.MaxAttempts + 1 {
		fmt.Fprintf(many, `{"run":%d,"attempt":1},`, n+1)
	}
	list := func(text string) string { return "[" + strings.TrimSuffix(text, ",") + "]" }
	labels := "[" + strings.TrimSuffix(strings.Repeat(`"a",`, maxLabels+1), ",") + "]"
	for name, frames := range map[string][]string{
		"no JSON":              {"hello"},
		"empty":                {""},
		"a list":               {"[]"},
		"deep":                 {strings.Repeat("[", 60_000)},
		"no hello":             {`{"type":"beat","seq":1}`},
		"another version":      {`{"type":"hello","v":2,"runner":"r1","slots":1}`},
		"no name":              {`{"type":"hello","v":1,"slots":1}`},
		"a name with a path":   {`{"type":"hello","v":1,"runner":"../r","slots":1}`},
		"no slots":             {`{"type":"hello","v":1,"runner":"r1"}`},
		"too many slots":       {`{"type":"hello","v":1,"runner":"r1","slots":65}`},
		"too many labels":      {`{"type":"hello","v":1,"runner":"r1","slots":1,"labels":` + labels + `}`},
		"a bad label":          {`{"type":"hello","v":1,"runner":"r1","slots":1,"labels":["a b"]}`},
		"an attempt twice":     {`{"type":"hello","v":1,"runner":"r1","slots":1,"attempts":` + list(attempts) + `}`},
		"too many attempts":    {`{"type":"hello","v":1,"runner":"r1","slots":1,"attempts":` + list(many.String()) + `}`},
		"hello twice":          {hello, hello},
		"an offer":             {hello, `{"type":"offer","run":1,"attempt":1}`},
		"no type":              {hello, `{}`},
		"no run":               {hello, `{"type":"take","attempt":1}`},
		"no attempt":           {hello, `{"type":"log","run":1}`},
		"a negative run":       {hello, `{"type":"take","run":-1,"attempt":1}`},
		"a huge run":           {hello, `{"type":"take","run":9223372036854775808,"attempt":1}`},
		"a huge attempt":       {hello, `{"type":"take","run":1,"attempt":2147483648}`},
		"an unknown outcome":   {hello, `{"type":"end","run":1,"attempt":1,"outcome":"lost"}`},
		"a huge exit code":     {hello, `{"type":"end","run":1,"attempt":1,"outcome":"exited","exit":2147483648}`},
		"a negative offset":    {hello, `{"type":"log","run":1,"attempt":1,"offset":-1}`},
		"a huge offset":        {hello, `{"type":"log","run":1,"attempt":1,"offset":1125899906842625}`},
		"a negative cut":       {hello, `{"type":"log","run":1,"attempt":1,"cut":-1}`},
		"a long part":          {hello, `{"type":"log","run":1,"attempt":1,"data":"` + strings.Repeat("QUFB", frame.MaxLogPart/3+1) + `"}`},
		"no base64":            {hello, `{"type":"log","run":1,"attempt":1,"data":"%"}`},
		"too many in one beat": {hello, `{"type":"beat","seq":1,"attempts":` + list(many.String()) + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(rg *rig) {
				e := rg.start("node", &hurtStore{hurts: true})
				p := e.dial(false)
				for _, text := range frames {
					p.socket.in <- []byte(text)
				}
				p.wantClose(closeBadFrame, "")
				if v := e.Runners(); len(v) != 0 {
					t.Errorf("the runners are %+v", v)
				}
				if len(p.socket.reason) > 123 {
					t.Logf("a long reason: %q", p.socket.reason)
				}
				e.stop()
			})
		})
	}
}

// TestFramesAreSmall: what a frame holds beyond its type takes no memory while it waits.
func TestFramesAreSmall(t *testing.T) {
	const waiting = 50
	long := strings.Repeat("x", 20<<10)
	text := func(kind string) []byte {
		return fmt.Appendf(nil, `{"type":%q,"run":1,"attempt":1,"outcome":"exited","why":%q,"args":%q,"job":%q,"node":%q,"version":%q,"runner":%q,
			"file":{"name":%q},"labels":[%q],"definitions":[{},{}]%s}`,
			kind, long, long, long, long, long, long, long, long, strings.Repeat(`,"attempts":[{"run":1,"attempt":1}]`, 2))
	}
	for _, kind := range []string{frame.Take, frame.Refuse, frame.Log, frame.End} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		kept := make([]frame.Frame, waiting)
		for i := range kept {
			f, err := parseFrame(text(kind))
			if err != nil {
				t.Fatal(err)
			}
			kept[i] = f
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if each := (int(after.HeapAlloc) - int(before.HeapAlloc)) / waiting; each > 2*frame.MaxWhy {
			t.Errorf("a %s of %d bytes takes %d bytes", kind, len(text(kind)), each)
		}
		if f := kept[0]; f.Why != long[:frame.MaxWhy] || f.Run != 1 || f.Attempt != 1 {
			t.Errorf("it is %+v", f)
		}
	}
}

// TestNoHello: a connection without a name does not stay.
func TestNoHello(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e := rg.start("node", rg.store)
		p := e.dial(false)
		time.Sleep(helloTimeout - time.Second)
		p.silent(0)
		p.wantClose(closeSlow, "no hello")
		e.stop()
		p = e.dial(false)
		p.wantClose(closeLater, "stops")
	})
}

// TestManyRunners: there is a bound.
func TestManyRunners(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e := rg.start("node", rg.store)
		for n := range maxRunners {
			e.connect(fmt.Sprint("r", n), 1, nil)
		}
		p := e.dial(false)
		p.say(frame.Frame{Type: frame.Hello, V: frame.Version, Runner: "one-more", Slots: 1})
		p.wantClose(closeLater, "as many runners")
		e.connect("r7", 1, nil) // again
	})
}

// TestSlowRunner: one that does not read is closed, and the engine does not wait for it.
func TestSlowRunner(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(1)
		p.socket.sent = make(chan []byte)
		for range 2 * maxWaiting {
			e.hub.all()[0].send(frame.Frame{Type: frame.Drain})
			if len(e.hub.all()) == 0 {
				break
			}
		}
		p.socket.Close(1006, "the server gives up to write")
		<-p.done
	})
}
