package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"async-data-processor/client"
)

const (
	// progressInterval is the time between two progress lines, lostInterval between two
	// lines about one lost connection.
	progressInterval = 200 * time.Millisecond
	lostInterval     = 10 * time.Second
	// maxRanges is how many ranges of lines are listed.
	maxRanges = 100
	// eraseLine moves to the begin of a terminal's line, and erases it.
	eraseLine = "\r\x1b[K"
)

// sendScreen is what send says on stderr. On a terminal its last line is the progress.
type sendScreen struct {
	out      io.Writer
	terminal bool
	wanted   bool // to be written
	began    time.Time

	mu       sync.Mutex // guards what follows
	shown    bool       // there is a progress line
	lostText string     // why there is no connection, as last told
	lostAt   time.Time

	refusedText string // why the server takes no batch now, as last told; empty while it does
	refusedAt   time.Time
}

// line prints a line in place of the progress, which the next look brings back.
func (s *sendScreen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown {
		fmt.Fprint(s.out, eraseLine)
		s.shown = false
	}
	fmt.Fprintf(s.out, format+"\n", args...)
}

func (s *sendScreen) rejected(line int64, why string) {
	s.line("line %d is rejected: %s", line, plain(why))
}

// lost tells why there is no connection, once in a while as long as it is the same.
func (s *sendScreen) lost(err error, _ time.Duration) {
	s.mu.Lock()
	text := err.Error()
	again := text == s.lostText && time.Since(s.lostAt) < lostInterval
	if !again {
		s.lostText, s.lostAt = text, time.Now()
	}
	s.mu.Unlock()
	if !again {
		s.line("no connection, trying again: %s", plain(text))
	}
}

// refused tells why the server takes no batch now: once while it stays so, and not often
// if it comes and goes.
func (s *sendScreen) refused(err error, pause time.Duration) {
	s.mu.Lock()
	told := s.refusedText != ""
	tell := err != nil && (!told || err.Error() != s.refusedText) && time.Since(s.refusedAt) >= lostInterval
	switch {
	case err == nil:
		s.refusedText = ""
	case tell:
		s.refusedText, s.refusedAt = err.Error(), time.Now()
	}
	s.mu.Unlock()
	switch {
	case tell:
		s.line("the server takes no entries now, trying again in %v: %s", pause.Round(time.Second), plain(err.Error()))
	case err == nil && told:
		s.line("the server takes entries again")
	}
}

func (s *sendScreen) connected(h client.Handshake) {
	s.mu.Lock()
	lost := s.lostText != ""
	s.lostText = ""
	s.mu.Unlock()
	if lost {
		s.line("connected to %s", plain(h.Node))
	}
}

// answer prints what became of an entry that send has made.
func (s *sendScreen) answer(out io.Writer, a client.Answer, lines []client.Range) {
	var text strings.Builder
	fmt.Fprintf(&text, "beep %v: %s", lines[0], a.Kind)
	if a.ID != "" {
		text.WriteString(" " + a.ID)
	}
	for _, shard := range slices.Sorted(maps.Keys(a.Shards)) {
		text.WriteString(" in shard " + shard)
	}
	if a.Kind == client.Rejected {
		text.WriteString(": " + a.Problem.Error())
	}
	fmt.Fprintf(out, "%s after %v\n", plain(text.String()), a.After.Round(100*time.Microsecond)) // results keeps the error
}

// watch shows the progress until done, on a terminal.
func (s *sendScreen) watch(lines *client.Lines) (done func()) {
	if !s.terminal {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-time.After(progressInterval):
				s.progress(lines.Report())
			case <-stop:
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-ended
	}
}

func (s *sendScreen) progress(r client.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%s%s, %.0f a second", eraseLine, s.counts(r), float64(r.Accepted)/time.Since(s.began).Seconds())
	s.shown = true
}

func (s *sendScreen) counts(r client.Report) string {
	text := fmt.Sprintf("%d lines read: %d accepted, ", r.Lines, r.Accepted)
	if s.wanted {
		text += fmt.Sprintf("%d written, %d dead, ", r.Written, r.Dead)
	}
	text += fmt.Sprintf("%d rejected", r.Rejected)
	if r.Empty > 0 {
		text += fmt.Sprintf(", %d empty", r.Empty)
	}
	return text
}

// summary is the last word.
func (s *sendScreen) summary(r client.Report) {
	text := s.counts(r)
	if r.Unwritten > 0 {
		text += fmt.Sprintf(", %d not known to be written", r.Unwritten)
	}
	if r.Unsent > 0 {
		text += fmt.Sprintf(", %d not accepted", r.Unsent)
	}
	s.line("%s, %d unknown; %v", text, r.Unknown, time.Since(s.began).Round(time.Millisecond))
	if r.Unsent > 0 {
		s.line("not accepted, and to be sent again: %s", ranges(r.UnsentLines))
	}
	if r.Unwritten > 0 {
		s.line("accepted, and not known to be written: %s", ranges(r.UnwrittenLines))
	}
	if r.Unknown > 0 {
		s.line("unknown lines, which may be accepted or not: %s", ranges(r.UnknownLines))
	}
	if r.Dead > 0 {
		s.line("the dead ones are among these lines; dead-letters lists them: %s", ranges(r.DeadLines))
	}
}

func ranges(all []client.Range) string {
	texts := make([]string, 0, maxRanges)
	for _, r := range all[:min(len(all), maxRanges)] {
		texts = append(texts, r.String())
	}
	text := strings.Join(texts, ", ")
	if n := len(all) - maxRanges; n > 0 {
		text += fmt.Sprintf(" and %d more ranges", n)
	}
	return text
}
