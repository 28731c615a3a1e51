package rig

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Receipt is the answer to an accepted submission.
type Receipt struct {
	ID       string         `json:"id"`
	Accepted int            `json:"accepted"`
	Shards   map[string]int `json:"shards"`
	// Of a client that has waited.
	Written int  `json:"written"`
	Dead    int  `json:"dead"`
	Done    bool `json:"done"`
}

// IDs are the message ids of an accepted submission.
func (r Receipt) IDs() (ids []string) {
	for i := range r.Accepted {
		ids = append(ids, fmt.Sprintf("%s.%d", r.ID, i))
	}
	return ids
}

// Post sends a body, with headers as names and values in turn, and returns the
// status and, of a 201, the receipt. A connection that broke is the status 0.
func (p *Process) Post(body string, headers ...string) (int, Receipt, http.Header) {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+p.Addr+"/message", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, Receipt{}, nil
	}
	defer resp.Body.Close()
	var r Receipt
	if resp.StatusCode == http.StatusCreated {
		if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
			p.t.Error("receipt:", err)
		}
	}
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, r, resp.Header
}

// Get returns the status of what the process answers, and its text. A connection that broke
// is the status 0, and the text says why.
func (p *Process) Get(path string) (status int, text string) {
	return read(http.Get("http://" + p.Addr + path))
}

// Send posts JSON, likewise.
func (p *Process) Send(path, body string) (status int, text string) {
	return read(http.Post("http://"+p.Addr+path, "application/json", strings.NewReader(body)))
}

func read(resp *http.Response, err error) (status int, text string) {
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(all)
}

// Entries returns a JSON array of n entries with times of their own.
func Entries(from, n int) string {
	start := time.Date(2019, 10, 12, 8, 10, 54, 0, time.UTC)
	parts := make([]string, n)
	for i := range parts {
		at := start.Add(time.Duration(from+i) * 250 * time.Millisecond)
		parts[i] = fmt.Sprintf(`{"timestamp":%q,"value":"v%d"}`, at.Format(time.RFC3339Nano), from+i)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// PostAll posts submissions of size entries each from several clients at once
// and returns the ids of what was accepted. What is not taken now, as on a busy machine,
// is posted again.
func (p *Process) PostAll(submissions, size int) []string {
	p.t.Helper()
	const clients = 8
	var (
		mu  sync.Mutex
		ids []string
		wg  sync.WaitGroup
	)
	for c := range clients {
		wg.Go(func() {
			for i := c; i < submissions; i += clients {
				body, key, again := Entries(i*size, size), rand.Text(), time.Now().Add(Patience)
				status, r, _ := p.Post(body, "Idempotency-Key", key)
				for status == http.StatusServiceUnavailable && time.Now().Before(again) {
					time.Sleep(100 * time.Millisecond)
					status, r, _ = p.Post(body, "Idempotency-Key", key)
				}
				if status != http.StatusCreated || r.Accepted != size {
					p.t.Errorf("submission %d: status %d, accepted %d", i, status, r.Accepted)
				}
				mu.Lock()
				ids = append(ids, r.IDs()...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ids
}
