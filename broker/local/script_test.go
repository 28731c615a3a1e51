package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/message"
)

// What is known of an envelope. A script says so by making a folder "marks/ID FATE N"
// on its disk, which tells its test in order with all that it does to the store.
const (
	publishing = "publishing" // it may be there
	published  = "published"  // it is
	unknown    = "unknown"    // it may be there, and may be settled
	rejected   = "rejected"   // it is not
	settling   = "settling"   // it may be there
	gone       = "gone"       // settled, and the store was closed
	burying    = "burying"    // it is there, or a dead letter
	buried     = "buried"
)

// script is a process that works on a store and says what it does.
type script struct {
	t     *testing.T
	root  string
	round string
	rng   *rand.Rand

	mu          sync.Mutex
	fates       map[string]string
	last, marks int
}

// TestScript is the process of the tests of lost power and of failing disks. It is
// one of its own, as its disk is served by theirs.
func TestScript(t *testing.T) {
	root, round, _ := bytes.Cut([]byte(os.Getenv("LOCAL_SCRIPT")), []byte(" "))
	if len(root) == 0 {
		return // it works for other tests
	}
	seed, _ := strconv.ParseUint(string(round), 10, 64)
	s := &script{t: t, root: string(root), round: string(round), rng: rand.New(rand.NewPCG(seed, 1)), fates: map[string]string{}}
	for part := range 2 {
		e, file := s.open()
		life := s.work(e, file, part)
		if part == 0 && e.Close() == nil && e.life == life {
			s.mu.Lock()
			for id, fate := range s.fates {
				if fate == settling {
					s.mark(id, gone)
				}
			}
			s.mu.Unlock()
		}
	}
	if !t.Failed() {
		os.Exit(0) // as a crash, with all that waits
	}
}

// mark says what becomes of an envelope. mu is held.
func (s *script) mark(id, fate string) {
	s.fates[id] = fate
	s.marks++
	if err := os.Mkdir(filepath.Join(s.root, "marks", fmt.Sprint(id, " ", fate, " ", s.round, ".", s.marks)), 0o700); err != nil {
		s.t.Fatal(err)
	}
}

// open opens the store, on a disk that may fail for a while.
func (s *script) open() (*Engine, *File) {
	for attempt := 0; ; attempt++ {
		file, err := OpenFile(filepath.Join(s.root, "store"), nil)
		if err == nil {
			e := New(Config{Store: file})
			e.pause = backoff.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}
			if err = e.Open(context.Background()); err == nil {
				if file.db != nil {
					file.db.AllocSize = 1 << 16 // the file grows often
				}
				return e, file
			}
			err = errors.Join(err, e.Close())
		}
		if attempt == 200 || errors.Is(err, ErrDamaged) {
			s.t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// work publishes and settles, and makes the file smaller at last. It returns the life
// of the store in which all was settled.
func (s *script) work(e *Engine, file *File, part int) (life *life) {
	c := e.Client(2, nil)
	deliveries := make(chan *message.Delivery)
	for shard := range 2 {
		go func() {
			if err := c.Consume(context.Background(), shard, 4, deliveries); errors.Is(err, ErrDamaged) {
				s.t.Error(err)
			}
		}()
	}
	for range 8 {
		s.publish(c, 1+s.rng.IntN(3))
		for range s.rng.IntN(4) {
			s.settle(deliveries, false)
		}
	}
	s.scarceFiles(e, c)
	for busy := true; busy; {
		s.settle(deliveries, true)
		zero, _ := e.Depth(0)
		one, _ := e.Depth(1)
		e.mu.Lock()
		busy, life = zero+one > 0 || e.running || e.down != nil, e.life
		e.mu.Unlock()
	}
	var beside sync.WaitGroup
	if part > 0 {
		beside.Go(func() { s.publish(c, 1) })
	}
	if err := file.Compact(0); errors.Is(err, ErrDamaged) {
		s.t.Error(err)
	}
	beside.Wait()
	s.publish(c, 2)
	s.settle(deliveries, true)
	return life
}

// publish publishes some envelopes, and returns when the engine is ready again.
func (s *script) publish(c *Client, n int) {
	s.mu.Lock()
	envelopes := make([]message.Envelope, n)
	for i := range envelopes {
		s.last++
		id := fmt.Sprintf("%s-%d", s.round, s.last)
		envelopes[i] = message.Envelope{ID: id, Shard: s.last % 2, Count: 1, Body: bodyOf(id)}
		s.mark(id, publishing)
	}
	s.mu.Unlock()
	c.Publish(context.Background(), envelopes, func(i int, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case err == nil:
			s.mark(envelopes[i].ID, published)
		case errors.Is(err, broker.ErrRejected):
			s.mark(envelopes[i].ID, rejected)
		case errors.Is(err, broker.ErrUnknown):
			s.mark(envelopes[i].ID, unknown)
		default:
			s.t.Error(err)
		}
	})
	for began := time.Now(); c.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			s.t.Fatal("it does not go on by itself: ", c.Ready())
		}
	}
}

// bodyOf is the body of an envelope: some are small, some take many pages, so that a
// file gets large and then free.
func bodyOf(id string) []byte {
	h := fnv.New32a()
	h.Write([]byte(id))
	return bytes.Repeat([]byte(id+"\n"), 1<<(h.Sum32()%16))
}

// settle settles the next delivery, if there is one soon, for good if last.
func (s *script) settle(deliveries <-chan *message.Delivery, last bool) {
	select {
	case d := <-deliveries:
		s.mu.Lock()
		defer s.mu.Unlock()
		chance, fate := s.rng.IntN(10), s.fates[d.ID]
		switch {
		case !bytes.Equal(d.Body, bodyOf(d.ID)) || fate == rejected || fate == buried || fate == gone:
			s.t.Errorf("a delivery of %s, which is %q", d.ID, fate)
		case fate == publishing: // maybe not durable yet
			_ = d.Settle(message.Outcome{Kind: message.Return})
		case chance == 0 && !last:
			_ = d.Settle(message.Outcome{Kind: message.Return})
		case chance == 1 && fate == published && len(d.Body) < 1<<12:
			s.mark(d.ID, burying)
			if d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: "bad"}) == nil {
				s.mark(d.ID, buried)
			}
		default:
			s.mark(d.ID, settling)
			_ = d.Settle(message.Outcome{})
		}
	case <-time.After(10 * time.Millisecond):
	}
}

// scarceFiles has the store opened again while the process may open no file.
func (s *script) scarceFiles(e *Engine, c *Client) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		s.t.Fatal(err)
	}
	few := limit
	few.Cur = 3 // no descriptor but stdin, stdout and stderr is given out
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		s.t.Fatal(err)
	}
	for began := time.Now(); !errors.Is(c.Ready(), unix.EMFILE); time.Sleep(time.Millisecond) {
		e.Fail(errors.New("by the test")) // again, as one that is being opened takes no notice
		if time.Since(began) > time.Minute {
			s.t.Fatal("without files to open: ", c.Ready())
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		s.t.Fatal(err)
	}
	s.publish(c, 1)
}
