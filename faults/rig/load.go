package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// answerTimeout is when a client gives up. It is beyond every answer that the
// server promises, so that one it never gives shows.
const answerTimeout = 2 * time.Minute

// LoadConfig says what the clients of a Load do. The zero value is a load.
type LoadConfig struct {
	Clients int           // 4
	Size    int           // entries of a submission, up to maxSubmission; 100
	Pause   time.Duration // of a client between its submissions
	Limit   int           // submissions in all; 0 is until Stop
}

// Load is clients that post as users are told to: what was not answered they
// send again, with the same Idempotency-Key. Every eighth submission has none
// and is sent once. It keeps what was answered.
type Load struct {
	t       testing.TB
	cfg     LoadConfig
	http    http.Client
	addr    atomic.Pointer[string]
	stop    chan struct{}
	clients sync.WaitGroup
	live    atomic.Int64 // clients that have not ended
	once    sync.Once

	mu       sync.Mutex // guards what follows
	ids      []string   // by submission; empty as long as it is not answered with 201
	accepted int        // entries
	last     time.Time  // of the last 201
	newest   time.Time  // when the submission was begun, of all answered with 201 the latest
	tally    Tally
}

// Tally is what the clients of a Load saw.
type Tally struct {
	Refused, Broken int           // answers 503 or 429, and none
	Outage          time.Duration // the longest time between two 201
	Slowest         time.Duration // the longest wait for an answer that came
}

// StartLoad starts clients that post to p. The test's end stops them.
func StartLoad(t testing.TB, p *Process, cfg LoadConfig) *Load {
	if cfg.Clients == 0 {
		cfg.Clients = 4
	}
	if cfg.Size == 0 {
		cfg.Size = 100
	}
	l := &Load{
		t: t, cfg: cfg, stop: make(chan struct{}), last: time.Now(),
		http: http.Client{Timeout: answerTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Clients}},
	}
	l.Aim(p)
	l.live.Store(int64(cfg.Clients))
	for range cfg.Clients {
		l.clients.Go(l.client)
	}
	t.Cleanup(l.Stop)
	return l
}

// Aim lets the clients post to p from now on.
func (l *Load) Aim(p *Process) { l.addr.Store(&p.Addr) }

// Stop ends the clients when they have their answers, or have none. What they
// would have sent again stays unknown.
func (l *Load) Stop() {
	l.once.Do(func() {
		close(l.stop)
		l.clients.Wait()
		l.http.CloseIdleConnections()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tally.Outage = max(l.tally.Outage, time.Since(l.last))
	})
}

// Done waits until the clients have made all submissions of the limit.
func (l *Load) Done() {
	l.clients.Wait()
	l.Stop()
}

// Accepted returns how many entries were answered with 201.
func (l *Load) Accepted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted
}

// Newest returns when the latest of the submissions that were answered with 201 was begun.
func (l *Load) Newest() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest
}

// Tally returns what the clients have seen so far.
func (l *Load) Tally() Tally {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tally
}

// More waits until so many more entries are accepted.
func (l *Load) More(entries int) {
	l.t.Helper()
	goal := l.Accepted() + entries
	Eventually(l.t, "more accepted entries", func() error {
		if got := l.Accepted(); got < goal && l.live.Load() > 0 {
			return fmt.Errorf("%d accepted, want %d; %+v", got, goal, l.Tally())
		}
		return nil
	})
}

// client makes submissions, one after the other.
func (l *Load) client() {
	defer l.live.Add(-1)
	var body []byte
	for {
		n, ok := l.next()
		if !ok {
			return
		}
		body = appendSubmission(body[:0], n, l.size(n))
		for !l.submit(n, body) && l.keyed(n) {
			if !l.pause(20 * time.Millisecond) {
				return
			}
		}
		if !l.pause(l.cfg.Pause) {
			return
		}
	}
}

// next returns the number of a new submission.
func (l *Load) next() (n int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = len(l.ids)
	if l.cfg.Limit > 0 && n >= l.cfg.Limit {
		return 0, false
	}
	l.ids = append(l.ids, "")
	return n, true
}

// pause returns false when the load is to stop.
func (l *Load) pause(d time.Duration) bool {
	select {
	case <-l.stop:
		return false
	case <-time.After(d):
		return true
	}
}

func (l *Load) keyed(n int) bool { return n%8 != 7 }

// size is how many entries a submission has: now and then just one.
func (l *Load) size(n int) int {
	if n%16 == 3 {
		return 1
	}
	return l.cfg.Size
}

// submit posts a submission once and tells whether it was accepted.
func (l *Load) submit(n int, body []byte) bool {
	req, err := http.NewRequest(http.MethodPost, "http://"+*l.addr.Load()+"/message", bytes.NewReader(body))
	if err != nil {
		l.t.Error(err)
		return true
	}
	req.Header.Set("Content-Type", "application/json")
	if l.keyed(n) {
		req.Header.Set("Idempotency-Key", fmt.Sprint("submission-", n))
	}
	began := time.Now()
	status, r, err := l.answer(req)
	took := time.Since(began)

	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.tally.Broken++
		if took >= answerTimeout {
			l.t.Errorf("submission %d has no answer after %v", n, took)
		}
		return false
	case status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests:
		l.tally.Refused++
	case status != http.StatusCreated || r.Accepted != l.size(n):
		l.t.Errorf("submission %d: status %d, %d accepted", n, status, r.Accepted)
		return true
	}
	l.tally.Slowest = max(l.tally.Slowest, took)
	if status != http.StatusCreated {
		return false
	}
	l.ids[n] = r.ID
	l.accepted += r.Accepted
	if began.After(l.newest) {
		l.newest = began
	}
	l.tally.Outage = max(l.tally.Outage, time.Since(l.last))
	l.last = time.Now()
	return true
}

func (l *Load) answer(req *http.Request) (status int, r Receipt, err error) {
	resp, err := l.http.Do(req)
	if err != nil {
		return 0, r, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		err = json.NewDecoder(resp.Body).Decode(&r)
	}
	if _, failed := io.Copy(io.Discard, resp.Body); err == nil {
		err = failed
	}
	return resp.StatusCode, r, err
}
