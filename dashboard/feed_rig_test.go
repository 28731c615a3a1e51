package dashboard

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/httpstream/streamtest"
)

// system is what the parts of a Feed look at.
type system struct {
	mu       sync.Mutex // guards what follows
	keys     []string
	rows     map[string]string // the text by its key
	age      int               // in each text, and no news
	complete bool
	looks    int
	takes    time.Duration // a look
}

func newSystem() *system { return &system{rows: make(map[string]string), complete: true} }

func (s *system) set(key, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.rows[key]; !there {
		s.keys = append(s.keys, key)
	}
	s.rows[key] = text
}

func (s *system) remove(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rows, key)
	s.keys = slices.DeleteFunc(s.keys, func(k string) bool { return k == key })
}

func (s *system) look() State {
	s.mu.Lock()
	s.looks++
	s.age++
	takes := s.takes
	s.mu.Unlock()
	time.Sleep(takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	state := State{AsOf: time.Now(), Node: "no\"de", Complete: s.complete}
	for _, key := range s.keys {
		text, age := s.rows[key], s.age
		state.Rows = append(state.Rows, Row{`"` + key + `"`, []byte(text), func() []byte {
			row, _ := json.Marshal(map[string]any{"key": key, "text": text, "age": age})
			return row
		}})
	}
	return state
}

func (s *system) looked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks
}

// feed returns a Feed of one part, whose clients are told apart by the header Client.
func (s *system) feed(form Form) *Feed {
	return NewFeed([]Part{{Name: "things", Form: form, Look: s.look}}, clientOf)
}

func clientOf(r *http.Request) string { return r.Header.Get("Client") }

// page is what a client knows.
type page struct {
	conn  net.Conn
	ended chan struct{} // closed when the stream is over

	mu       sync.Mutex // guards what follows
	rows     map[string]string
	order    []string // of keys, as they came last
	complete bool
	wholes   int
	beats    int
	bye      string
	bytes    int
	last     time.Time // of a state
	broken   string    // what it could not read
}

const events = "/api/v1/events"

// open begins a stream, and reads it.
func open(t *testing.T, p streamtest.Pipes, client string) *page {
	conn, in, _ := p.Get(t, events+"?parts=things", "Client: "+client)
	c := &page{conn: conn, ended: make(chan struct{}), rows: make(map[string]string)}
	go c.read(in)
	return c
}

func (c *page) read(head *bufio.Reader) {
	defer close(c.ended)
	in := bufio.NewReaderSize(head, 64<<10)
	event := ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		c.mu.Lock()
		c.bytes += len(line) + 1
		if name, is := strings.CutPrefix(line, "event: "); is {
			event = name
		} else if data, is := strings.CutPrefix(line, "data: "); is {
			c.take(event, data)
		}
		c.mu.Unlock()
	}
}

func (c *page) take(event, data string) {
	var d struct {
		Part, Node      string
		Complete, Whole bool
		AsOf            time.Time `json:"as_of"`
		Rows, Points    []struct{ Key, Text string }
		Value           *struct{ Key, Text string }
		Gone            []string
		Why             string
	}
	if err := json.Unmarshal([]byte(data), &d); err != nil {
		c.broken = err.Error() + ": " + data[:min(len(data), 500)]
		return
	}
	switch event {
	case "beat":
		c.beats++
	case "bye":
		c.bye = d.Why
	case "state":
		if d.Node != `no"de` || d.AsOf.IsZero() {
			c.broken = data
		}
		if d.Whole && d.Part == "things" {
			c.rows, c.order = make(map[string]string), nil
			c.wholes++
		}
		for _, key := range d.Gone {
			delete(c.rows, key)
		}
		if d.Value != nil {
			d.Rows = append(d.Rows, *d.Value)
		}
		for _, r := range append(d.Rows, d.Points...) {
			c.rows[r.Key] = r.Text
			c.order = append(c.order, r.Key)
		}
		c.complete, c.last = d.Complete, time.Now()
	default:
		c.broken = event
	}
}

// see returns a copy of what the client knows.
func (c *page) see() *page {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &page{rows: make(map[string]string)}
	maps.Copy(p.rows, c.rows)
	p.order, p.complete, p.wholes, p.beats, p.bye, p.bytes, p.last, p.broken = slices.Clone(c.order), c.complete, c.wholes, c.beats, c.bye, c.bytes, c.last, c.broken
	return p
}

// discard reads what there is.
func discard(in io.Reader) { _, _ = io.Copy(io.Discard, in) }
