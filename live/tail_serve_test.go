package live

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/httpstream"
	"async-data-processor/httpstream/streamtest"
)

// TestTailOutlivesTimeouts: the time-outs of the server are for requests that end, and a
// stream where nothing happens has a sign of life.
func TestTailOutlivesTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := &fakeTail{max: 1}
		p, stop := streamtest.Serve(tail.served(t))
		c, in, _ := p.Get(t, "/live")
		var alive int
		go func() {
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				if line == ":\n" {
					alive++
				}
			}
		}()
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		if len(tail.views()) != 1 || alive != 40 {
			t.Errorf("after 10 minutes there are %d views, and were %d signs of life, want 1 and 40", len(tail.views()), alive)
		}
		stop()
		c.Close()
	})
}

// TestTailSlowClients: clients that do not read lose their places, and nothing else
// waits for them. Clients whose machine is gone are such, too.
func TestTailSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := &fakeTail{max: 64}
		p, stop := streamtest.Serve(tail.served(t))
		var conns []net.Conn
		for range 10 {
			c, _, _ := p.Get(t, "/live") // it reads the head, and no more
			conns = append(conns, c)
		}
		synctest.Wait()
		time.Sleep(httpstream.TakeTimeout - time.Millisecond)
		if n := len(tail.views()); n != 10 {
			t.Errorf("%d views within the time, want 10", n)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := len(tail.views()); n != 0 {
			t.Errorf("%d views after the time, want none", n)
		}
		stop()
		for _, c := range conns {
			c.Close()
		}
	})
}

// TestTailDrains: a stream ends with a farewell when the process stops, and one whose
// client does not read does not hold that up.
func TestTailDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := &fakeTail{max: 2}
		p, stop := streamtest.Serve(tail.served(t))
		reading, in, _ := p.Get(t, "/live")
		text := make(chan string)
		go func() {
			got, _ := io.ReadAll(in)
			text <- string(got)
		}()
		stalled, _, _ := p.Get(t, "/live")
		synctest.Wait()
		began := time.Now()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			stop()
		}()
		if got := <-text; !strings.Contains(got, "retry: 1000\nevent: bye\ndata: {\"type\":\"bye\",\"why\":\"drain\",\"retry_ms\":1000}\n\n") {
			t.Errorf("the stream was %q", got)
		}
		<-stopped
		if took := time.Since(began); took > 2*httpstream.ByeTimeout {
			t.Errorf("the end took %v", took)
		}
		reading.Close()
		stalled.Close()
	})
}
