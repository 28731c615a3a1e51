package rig

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
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

// log is what a process has printed.
type log struct {
	mu     sync.Mutex // guards what follows
	lines  []Line
	others []string      // what is no log line
	grown  chan struct{} // closed and replaced when a line comes
}

// read takes what is printed, until its end.
func (g *log) read(stderr io.Reader) {
	for in := bufio.NewScanner(stderr); in.Scan(); {
		var l Line
		err := json.Unmarshal(in.Bytes(), &l)
		g.mu.Lock()
		if err != nil || l.Message == "" {
			g.others = append(g.others, in.Text())
		} else {
			g.lines = append(g.lines, l)
		}
		close(g.grown)
		g.grown = make(chan struct{})
		g.mu.Unlock()
	}
}

// crash returns what was printed of a data race or a panic.
func (g *log) crash() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, text := range g.others {
		if strings.Contains(text, "DATA RACE") || strings.HasPrefix(text, "panic:") || strings.HasPrefix(text, "fatal error:") {
			return strings.Join(g.others[i:], "\n")
		}
	}
	return ""
}

// Lines returns the log so far.
func (p *Process) Lines() []Line {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return p.log.lines[:len(p.log.lines):len(p.log.lines)]
}

// Await returns the first line in the log, old or new, that is as wanted.
func (p *Process) Await(what string, wanted func(Line) bool) Line {
	p.t.Helper()
	expired := time.After(Patience)
	for seen := 0; ; {
		p.log.mu.Lock()
		fresh, grown := p.log.lines[seen:], p.log.grown
		p.log.mu.Unlock()
		for _, l := range fresh {
			if wanted(l) {
				return l
			}
		}
		seen += len(fresh)
		select {
		case <-grown:
		case <-p.exited:
			p.t.Fatalf("exit %d before %s:\n%s", p.code, what, p.Dump())
		case <-expired:
			p.t.Fatalf("no %s in the log:\n%s", what, p.Dump())
		}
	}
}

// History returns the last record of each worker; the process has exited.
func (p *Process) History() map[string]Line {
	records := make(map[string]Line)
	for _, l := range p.Lines() {
		if l.Message == "worker history" {
			records[l.Worker] = l
		}
	}
	return records
}

// Settled returns how many messages were written so far, and how many were
// duplicates.
func (p *Process) Settled() (sum Line) {
	for _, l := range p.Lines() {
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
func (p *Process) Errors() (found []string) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	for _, l := range p.log.lines {
		if l.Level == "error" {
			found = append(found, l.Message+": "+l.Error)
		}
	}
	return append(found, p.log.others...)
}

// Dump returns the end of the log.
func (p *Process) Dump() string {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	var b strings.Builder
	for _, l := range p.log.lines[max(0, len(p.log.lines)-60):] {
		fmt.Fprintf(&b, "%+v\n", l)
	}
	return b.String() + strings.Join(p.log.others, "\n")
}
