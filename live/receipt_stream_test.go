package live

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/dashboard/openapitest"
	"async-data-processor/httpstream"
	"async-data-processor/httpstream/streamtest"
)

// TestReceiptEvents: changes are told as they come, at most four a second, and the end at
// once. What is told afterwards is nothing.
func TestReceiptEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeWatches(t)
		answer := make(chan receiptAnswer)
		go func() { answer <- f.get(t, "Accept", "text/event-stream") }()
		time.Sleep(time.Second)
		for i := range 200 { // two seconds
			r := receiptOf(1, 0)
			r.Accepted, r.Written = 300, i
			f.set(r, nil)
			time.Sleep(10 * time.Millisecond)
		}
		f.set(receiptOf(3, 0), nil)
		began := time.Now()
		a := <-answer
		if took := time.Since(began); took != 0 {
			t.Errorf("the end came after %v", took)
		}
		events := strings.Split(strings.TrimSuffix(a.Body.String(), "\n\n"), "\n\n")
		for i, e := range events[:len(events)-1] {
			if !strings.HasPrefix(e, "event: progress\ndata: {\"id\":\""+anID+"\",") {
				t.Errorf("event %d is %s", i, e)
			}
		}
		if last := events[len(events)-1]; !strings.HasPrefix(last, "id: done\nevent: done\ndata: {\"id\":") || !strings.Contains(last, `"written":3`) {
			t.Errorf("the last event is %s", last)
		}
		if n := len(events); n < 8 || n > 11 {
			t.Errorf("%d events in two seconds of changes: %q", n, events)
		}
		if a.Header().Get("Content-Type") != "text/event-stream" || a.Header().Get("X-Accel-Buffering") != "no" || !a.Flushed {
			t.Errorf("got the header %v", a.Header())
		}
		if again := f.get(t, "Accept", "text/event-stream", "Last-Event-ID", "done"); again.Code != 204 || again.Body.Len() > 0 {
			t.Errorf("a new connection after the end: got %d", again.Code)
		}
		if f.watched() != 0 {
			t.Error("it is still watched")
		}
	})
}

// TestReceiptLines: a terminal shows a line a change, and the reasons at the end.
func TestReceiptLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeWatches(t)
		answer := make(chan receiptAnswer)
		go func() { answer <- f.get(t, "Accept", "text/plain") }()
		for _, r := range []Receipt{receiptOf(1, 0), receiptOf(1, 0), receiptOf(1, 1), receiptOf(2, 1)} {
			time.Sleep(time.Second)
			if r.Dead == 1 && !r.Done {
				r.Unknown = []int{1, 3}
			}
			f.set(r, nil)
		}
		const want = "queued: 0 of 3 written, 0 dead, 3 pending\nwriting: 1 of 3 written, 0 dead, 2 pending\n" +
			"writing: 1 of 3 written, 1 dead, 1 pending; no answer for shards 1 3\ndead-letters: 2 of 3 written, 1 dead, 0 pending\ndead 0: <b>no number [31m</b>\n"
		if a := <-answer; a.Body.String() != want || a.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("got %q, want %q", a.Body, want)
		}
	})
}

// TestReceiptStreamsBounded: one client has half of the streams at most, and beyond all of
// them there is a problem before the stream.
func TestReceiptStreamsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeWatches(t)
		h := f.handler()
		ctx, stop := context.WithCancel(t.Context())
		open := func(client string) (refused int) {
			var mu sync.Mutex
			for range maxStreams {
				go func() {
					a := f.ask(ctx, h, "GET", "/submissions/"+anID, "Accept", "text/event-stream", "Client", client)
					mu.Lock()
					defer mu.Unlock()
					if a.Code == http.StatusServiceUnavailable && a.Header().Get("Retry-After") != "" {
						refused++
					}
				}()
			}
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return refused
		}
		if n := open("a"); n != maxStreams/2 {
			t.Errorf("%d of one client are refused", n)
		}
		if n := open("b"); n != maxStreams/2 {
			t.Errorf("%d of another client are refused", n)
		}
		if n := open("c"); n != maxStreams || f.watched() != maxStreams {
			t.Errorf("%d of a third client are refused, %d are watched", n, f.watched())
		}
		h.asks.share = maxStreams
		if a := f.ask(ctx, h, "GET", "/submissions/"+anID, "Client", "a"); a.Code != 200 {
			t.Errorf("JSON beside the streams: got %d", a.Code)
		}
		h.asks.share = maxStreams / 2
		if a := f.ask(ctx, h, "GET", "/submissions/"+anID, "Client", "a"); a.Code != 429 {
			t.Errorf("beyond a client's share: got %d", a.Code)
		}
		stop()
		synctest.Wait()
		if f.watched() != 0 || h.streams.taken+h.asks.taken != 0 || len(h.streams.of)+len(h.asks.of) != 0 {
			t.Errorf("%d are watched after the end, of clients %v", f.watched(), h.streams.of)
		}
	})
}

// TestReceiptStreamLasts: the time-outs of the server are for requests that end. A stream
// says every 15 s that it is alive.
func TestReceiptStreamLasts(t *testing.T) {
	for form, alive := range map[string]string{"text/event-stream": ":\n\n", "text/plain": "queued:"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeWatches(t)
			p, stop := streamtest.Serve(openapitest.Handler(t, f.handler()))
			conn, in, _ := p.Get(t, "/submissions/"+anID, "Accept: "+form)
			time.AfterFunc(10*time.Minute, func() { f.set(receiptOf(3, 0), nil) })
			text, err := io.ReadAll(readUntil(in, "0\r\n\r\n"))
			if n := strings.Count(string(text), alive); err != nil || n < 39 || n > 42 || !strings.Contains(string(text), "3 of 3") && !strings.Contains(string(text), "event: done") {
				t.Errorf("%s: %v, it says %d times that it is alive: %s", form, err, n, text)
			}
			_ = conn.Close()
			stop()
		})
	}
}

// readUntil reads to the end of a chunked body.
func readUntil(in *bufio.Reader, end string) io.Reader {
	r, w := io.Pipe()
	go func() {
		for {
			line, err := in.ReadString('\n')
			if _, failed := io.WriteString(w, line); err != nil || failed != nil || line == end[:3] {
				_ = w.Close()
				return
			}
		}
	}()
	return r
}

// TestReceiptSlowReader: a client that does not read loses its stream after ten seconds.
func TestReceiptSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeWatches(t)
		p, stop := streamtest.Serve(openapitest.Handler(t, f.handler()))
		conn, _, _ := p.Get(t, "/submissions/"+anID, "Accept: text/event-stream") // nothing after the head is read
		time.Sleep(httpstream.TakeTimeout - time.Second)
		if n := f.watched(); n != 1 {
			t.Errorf("%d are watched", n)
		}
		time.Sleep(2 * time.Second)
		if n := f.watched(); n != 0 {
			t.Errorf("%d are watched", n)
		}
		_ = conn.Close()
		stop()
	})
}

// TestReceiptDrain: a stream ends with a last word when the process stops, and does not
// hold it up, also if its client does not read.
func TestReceiptDrain(t *testing.T) {
	for form, want := range map[string]string{"text/event-stream": "event: bye\ndata: {\"why\":\"drain\",\"retry_ms\":1000}\n\n", "text/plain": "the process stops, ask again\n"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeWatches(t)
			p, stop := streamtest.Serve(openapitest.Handler(t, f.handler()))
			deaf, _, _ := p.Get(t, "/submissions/"+anID, "Accept: "+form)
			conn, in, _ := p.Get(t, "/submissions/"+anID, "Accept: "+form)
			text := make(chan string)
			go func() {
				all, _ := io.ReadAll(readUntil(in, "0\r\n\r\n"))
				text <- string(all)
			}()
			time.Sleep(time.Second)
			began := time.Now()
			stop()
			if took := time.Since(began); took > time.Second {
				t.Errorf("%s: the stop took %v", form, took)
			}
			if all := <-text; !strings.Contains(all, want) {
				t.Errorf("got %q, want the last word %q", all, want)
			}
			_, _ = deaf.Close(), conn.Close()
		})
	}
}
