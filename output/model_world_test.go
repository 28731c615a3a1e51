package output

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// world is a shard's queue, its folder and the processes that want it.
type world struct {
	dir      *Dir // its lock is all that is used of it
	memory   *brokertest.Memory
	roll     Roll
	together int // messages of batches that leave together

	// Only used by the schedule's goroutine.
	lines     []string        // every message that was ever published, or tried
	confirmed map[string]bool // their ids, once a publish of them was confirmed

	mu           sync.Mutex // guards what follows
	disk         *modelDisk
	faults       []fault
	settleFaults []verdict
	panics       int           // how often a call has panicked
	ahead        time.Duration // of the clock
	// processes has one that is always started again, and a standby or none.
	processes [2]*process
	over      bool // nothing is started any more
	records   records
}

// longestHang is how long a call may hang.
const longestHang = 20 * time.Second

// run goes through a schedule, ends all trouble, and checks what is left.
func (w *world) run(steps []step) {
	w.confirmed = map[string]bool{}
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		for p := w.launch(0); p != nil; p = w.launch(0) {
			<-p.ended
		}
	}()
	for _, s := range steps {
		synctest.Wait()
		s.do(w)
	}

	w.mu.Lock()
	w.faults, w.settleFaults, w.records.faults, w.records.away = nil, nil, nil, time.Time{}
	w.mu.Unlock()
	for began := time.Now(); w.memory.Depth(0) > 0; time.Sleep(time.Second) {
		if time.Since(began) > 10*time.Minute {
			w.breach("%d envelopes are stuck without any trouble", w.memory.Depth(0))
			break
		}
	}
	w.checkRolled()
	w.mu.Lock()
	w.over = true
	processes := w.processes
	w.mu.Unlock()
	for _, p := range processes {
		if p != nil {
			p.drain(time.Hour)
			<-p.ended
		}
	}
	<-kept
	time.Sleep(longestHang)

	w.takeOver()
	w.checkRecorded()
	w.mu.Lock()
	w.disk.losePower(0)
	w.mu.Unlock()
	w.account()
}

// checkRolled checks that without any trouble no message stays hidden for long.
func (w *world) checkRolled() {
	if w.roll.Interval == 0 {
		return
	}
	time.Sleep(longestHang + w.roll.Interval + 2*modelTick)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range w.disk.names() {
		if ParseName(name) == Rolling && len(w.disk.live[name].written) > 0 {
			w.disk.breach("%s is late", name)
		}
	}
}

// account checks that every message is where it has to be.
func (w *world) account() {
	known := map[string]bool{}
	for _, l := range w.lines {
		known[l] = true
	}
	found := map[string]bool{}
	for _, name := range w.disk.names() {
		for l := range strings.Lines(string(w.disk.live[name].written)) {
			if !known[strings.TrimSuffix(l, "\n")] {
				w.breach("%s has a line that was never sent: %s", name, l)
			}
			found[idOf([]byte(l))] = true
		}
	}
	for _, d := range w.memory.Dead() {
		if w.panics == 0 {
			w.breach("a dead letter although nothing has panicked: %+v", d)
		}
		for l := range bytes.Lines(d.Body) {
			found[idOf(l)] = true
		}
	}
	for id := range w.confirmed {
		if !found[id] {
			w.breach("%s is lost", id)
		}
	}
}

// now is what the clock of the processes says.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

func idOf(line []byte) string { return message.Message{Line: line}.ID() }

// planned takes the fault that is planned for a call of the kind, if any.
func (w *world) planned(kind string) fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.faults {
		f := &w.faults[i]
		if f.call != "" && f.call != kind {
			continue
		}
		if f.skip--; f.skip >= 0 {
			continue
		}
		hit := *f
		if f.more--; f.more >= 0 {
			f.call, f.hang = "", 0
		} else {
			w.faults = slices.Delete(w.faults, i, i+1)
		}
		return hit
	}
	return fault{}
}

// publish publishes n messages as an envelope, the first ones again, as a
// client's retry would, and insists until it is confirmed.
func (w *world) publish(n, again int, failures ...brokertest.Failure) {
	from := max(0, len(w.lines)-again)
	for len(w.lines) < from+n {
		i := len(w.lines)
		w.lines = append(w.lines, fmt.Sprintf(`{"message_id":"01JD8Y6G5V3X9Q2R7T4B%06d.%d","timestamp":"2019-10-12T08:10:54.52Z"}`, i/7, i%7))
	}
	lines := w.lines[from : from+n]
	e := message.Envelope{ID: message.NewID(), Count: n, Body: content(lines)}
	w.memory.FailPublish(failures...)
	for range failures {
		if brokertest.Publish(context.Background(), w.memory, e) == nil {
			w.breach("a publish did not fail as planned")
		}
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		err := brokertest.Publish(context.Background(), w.memory, e)
		if err == nil {
			break
		}
		if time.Since(began) > time.Minute {
			w.breach("publish: %v", err)
			break
		}
	}
	for _, l := range lines {
		w.confirmed[idOf([]byte(l))] = true
	}
}
