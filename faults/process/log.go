package process

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
)

// Line is what the tests read of a line in the log.
type Line struct {
	Message    string `json:"message"`
	Level      string `json:"level"`
	Addr       string `json:"addr"`
	Worker     string `json:"worker"`
	Reason     string `json:"reason"`
	State      string `json:"state"`
	Messages   int    `json:"messages"`
	Batches    int    `json:"batches"`
	Duplicates int    `json:"duplicates"`
	Error      string `json:"error"`
	Shard      int    `json:"shard"`
}

// Log is what a process has printed.
type Log struct {
	mu     sync.Mutex // guards what follows
	rest   []byte     // of a line that has no end yet
	lines  []Line
	others []string      // what is no log line
	grown  chan struct{} // closed and replaced when a line comes
}

// Write takes what is printed.
func (g *Log) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	text := append(g.rest, p...)
	for {
		line, rest, complete := bytes.Cut(text, []byte("\n"))
		if !complete {
			break
		}
		text = rest
		var l Line
		if err := json.Unmarshal(line, &l); err != nil || l.Message == "" {
			g.others = append(g.others, string(line))
		} else {
			g.lines = append(g.lines, l)
		}
	}
	g.rest = bytes.Clone(text)
	close(g.grown)
	g.grown = make(chan struct{})
	return len(p), nil
}

// since returns the lines from one on, and a channel that the next one closes.
func (g *Log) since(seen int) ([]Line, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lines[seen:len(g.lines):len(g.lines)], g.grown
}

// Lines returns the log so far.
func (g *Log) Lines() []Line {
	lines, _ := g.since(0)
	return lines
}

// Crash returns what was printed of a data race or a panic.
func (g *Log) Crash() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, text := range g.others {
		if strings.Contains(text, "DATA RACE") || strings.HasPrefix(text, "panic:") || strings.HasPrefix(text, "fatal error:") {
			return strings.Join(g.others[i:], "\n")
		}
	}
	return ""
}

// History returns the last record of each worker; the process has exited.
func (g *Log) History() map[string]Line {
	records := make(map[string]Line)
	for _, l := range g.Lines() {
		if l.Message == "worker history" {
			records[l.Worker] = l
		}
	}
	return records
}

// Settled returns how many messages were written so far, and how many were
// duplicates.
func (g *Log) Settled() (sum Line) {
	for _, l := range g.Lines() {
		switch l.Message {
		case "batch written":
			sum.Messages += l.Messages
		case "duplicates not written again":
			sum.Duplicates += l.Duplicates
		}
	}
	return sum
}

// Errors returns what the log has of the level error.
func (g *Log) Errors() (found []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.lines {
		if l.Level == "error" {
			found = append(found, l.Message+": "+l.Error)
		}
	}
	return append(found, g.others...)
}

// Dump returns the end of the log.
func (g *Log) Dump() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var b strings.Builder
	for _, l := range g.lines[max(0, len(g.lines)-60):] {
		fmt.Fprintf(&b, "%+v\n", l)
	}
	return b.String() + strings.Join(g.others, "\n")
}
