package telemetry

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"async-data-processor/event"
)

// progressInterval is how often people are told what was done, if something was.
const progressInterval = 2 * time.Second

// What is counted.
const (
	requests = iota // answered, but for health and profiles
	refused         // of them
	accepted        // entries
	written         // entries
	batches
	duplicates
	dead
	kinds
)

// counters counts what a process does.
type counters struct {
	done  [kinds]atomic.Int64
	rolls atomic.Bool // a batch is not a file

	told tally // only used by Log.run
}

// count is called concurrently.
func (c *counters) count(e event.Event) {
	switch e := e.(type) {
	case event.Started:
		if e.Rolls {
			c.rolls.Store(true)
		}
	case event.Submitted:
		c.done[requests].Add(1)
		c.done[accepted].Add(int64(e.Accepted))
	case event.Refused:
		c.done[requests].Add(1)
		c.done[refused].Add(1)
	case event.BatchWritten:
		c.done[written].Add(int64(e.Messages))
		c.done[batches].Add(int64(e.Batches))
		c.done[duplicates].Add(int64(e.Duplicates))
	case event.DeadLettered:
		c.done[dead].Add(1)
	}
}

// tally is what was done until a time, or between two.
type tally [kinds]int64

func (c *counters) tally() (t tally) {
	for i := range t {
		t[i] = c.done[i].Load()
	}
	return t
}

// progress tells what was done since it was told the last time.
func (l *Log) progress() {
	now := l.done.tally()
	news := now
	for i, n := range l.done.told {
		news[i] -= n
	}
	if news == (tally{}) {
		return
	}
	l.done.told = now
	l.logger.Info().Msg(news.text(l.done.rolls.Load(), false))
}

// text is a sentence of what was done; with all, also of what happened not once.
func (t tally) text(rolls, all bool) string {
	var parts []string
	add := func(text ...string) { parts = append(parts, strings.Join(text, " ")) }
	told := func(kind int) bool { return all || t[kind] > 0 }
	if told(requests) {
		add(amount(t[requests], "request", "requests"))
	}
	if t[refused] > 0 {
		add(humanize.Comma(t[refused]), "refused")
	}
	if told(accepted) {
		add(amount(t[accepted], "entry", "entries"), "accepted")
	}
	if told(written) {
		what := humanize.Comma(t[written])
		if !told(accepted) {
			what = amount(t[written], "entry", "entries")
		}
		in := amount(t[batches], "file", "files")
		if rolls {
			in = amount(t[batches], "batch", "batches")
		}
		add(what, "written in", in)
	}
	if t[duplicates] > 0 {
		add(humanize.Comma(t[duplicates]), "not written again")
	}
	if told(dead) {
		add(amount(t[dead], "dead letter", "dead letters"))
	}
	return strings.Join(parts, ", ")
}

func amount(n int64, one, many string) string {
	if n == 1 {
		many = one
	}
	return humanize.Comma(n) + " " + many
}
