package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/event"
)

func TestRepeatedTroubleIsToldSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trouble := event.BatchHeld{Worker: event.Worker{ID: "0-1"}, Err: errors.New("disk full")}
		lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
			for range 100 {
				s.Send(trouble)
			}
			time.Sleep(repeatInterval)
			s.Send(trouble)
		})
		if len(lines) != 2 || lines[0]["error"] != "disk full" || lines[1]["suppressed"] != 99.0 {
			t.Errorf("lines %v", lines)
		}
	})
}

// TestLimiterForgets: keys name shards, so those of ended trouble do not stay. What
// they left out is told.
func TestLimiterForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		l := &Log{logger: zerolog.New(&buf), repeats: map[string]repeat{}}
		for i := range 5000 {
			l.repeating(zerolog.WarnLevel, fmt.Sprint(i), ofShard(i))
			l.repeating(zerolog.WarnLevel, fmt.Sprint(i), ofShard(i))
			time.Sleep(time.Second)
		}
		if len(l.repeats) > manyRepeats {
			t.Errorf("it remembers %d keys", len(l.repeats))
		}
		l.forget(func(repeat) bool { return true })
		if n := strings.Count(buf.String(), `"suppressed":1`); n != 5000 {
			t.Errorf("%d left-out lines are told of, want 5000", n)
		}
	})
}

// TestLeftOutLinesAreToldAtTheEnd: a process that stops within the interval counts
// what it left out, each kind by itself.
func TestLeftOutLinesAreToldAtTheEnd(t *testing.T) {
	lines := loggedAll(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
		for range 5 {
			s.Send(event.Refused{Request: event.Request{Status: 400}, Kind: "invalid-submission"})
			s.Send(event.DeadLettered{Shard: 3, Envelope: "E1", Err: errors.New("poison")})
		}
		s.Send(event.Refused{Request: event.Request{Status: 413}, Kind: "too-large"})
	})
	var rest []string
	for _, l := range lines {
		if l["suppressed"] != nil {
			rest = append(rest, fmt.Sprint(l["level"], " ", l["component"], " ", l["shard"], " ", l["kind"], " ", l["suppressed"]))
		} else if l["message"] == "dead-lettered" && l["envelope"] != "E1" {
			t.Errorf("no envelope is named: %v", l)
		}
	}
	want := []string{"warn broker 3 dead-lettered 3 4", "info server <nil> request 4xx invalid-submission 4"}
	if len(lines) != 5 || !slices.Equal(rest, want) {
		t.Errorf("told %q in %d lines, want %q in 5", rest, len(lines), want)
	}
}
