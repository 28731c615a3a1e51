package faults

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// senders are clients that repeat a submission, always with the same key, until
// it is accepted, from whatever process serves then.
type senders struct {
	mu       sync.Mutex // guards what follows
	next     int
	open     []int    // submissions that were sent and not accepted
	accepted []string // ids of messages
}

// take returns the number of the submission to send next.
func (s *senders) take() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.open); n > 0 {
		i := s.open[n-1]
		s.open = s.open[:n-1]
		return i
	}
	s.next++
	return s.next - 1
}

// body is submission i: up to seven entries, and now and then a large one, so
// that the broker begins new files, too.
func body(i int) string {
	entries := rig.Entries(7*i, 1+i%7)
	if i%16 == 0 {
		entries = strings.ReplaceAll(entries, `"value":"`, `"value":"`+strings.Repeat("large", 10_000))
	}
	return entries
}

// send reports whether submission i was accepted.
func (s *senders) send(p *rig.Process, i int) bool {
	status, r, _ := p.Post(body(i), "Idempotency-Key", fmt.Sprint(i))
	s.mu.Lock()
	defer s.mu.Unlock()
	if status != http.StatusCreated {
		s.open = append(s.open, i)
		return false
	}
	s.accepted = append(s.accepted, r.IDs()...)
	return true
}

// start lets some clients send until the process ends or stop is called.
func (s *senders) start(p *rig.Process) (stop func()) {
	quit := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				if !s.send(p, s.take()) {
					select {
					case <-time.After(10 * time.Millisecond): // as a client would that is told to retry
					case <-quit:
						return
					case <-p.Exited():
						return
					}
				}
				select {
				case <-quit:
					return
				default:
				}
			}
		})
	}
	return func() {
		close(quit)
		clients.Wait()
	}
}

// count returns how many messages were accepted.
func (s *senders) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accepted)
}

// finish repeats what is open, waits until all that was accepted is in files,
// stops the processes, and checks that nothing is there twice.
func (s *senders) finish(t *testing.T, output string, server *rig.Process, others ...*rig.Process) {
	t.Helper()
	rig.Eventually(t, "every submission accepted", func() error {
		for {
			s.mu.Lock()
			left := len(s.open)
			s.mu.Unlock()
			if left == 0 {
				return nil
			}
			if !s.send(server, s.take()) {
				return fmt.Errorf("%d are not", left)
			}
		}
	})
	rig.Eventually(t, "every accepted message in a file", func() error {
		if n, example := rig.ReadTree(t, output, 5, 5).Missing(s.accepted); n > 0 {
			return fmt.Errorf("%d of %d missing, one is %s", n, len(s.accepted), example)
		}
		return nil
	})
	for _, p := range append([]*rig.Process{server}, others...) {
		if code := p.Stop(); code != 0 {
			t.Errorf("exit %d", code)
		}
	}
	tree := rig.ReadTree(t, output, 5, 5)
	if n, example := tree.Twice(); n > 0 {
		t.Errorf("%d messages are in files twice, one is %s", n, example)
	}
	if n, sent := len(tree.Lines), len(s.accepted); n != sent {
		t.Errorf("%d messages in files, %d accepted", n, sent)
	}
	if left := rig.Temporary(t, output); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}
