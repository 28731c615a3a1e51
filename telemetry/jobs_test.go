package telemetry

import (
	"errors"
	"testing"

	"github.com/rs/zerolog"

	"async-data-processor/event"
)

// TestTellsJobs: what goes wrong with jobs is told, what goes well only in detail.
func TestTellsJobs(t *testing.T) {
	lines := logged(t, zerolog.InfoLevel, func(send event.Sink, _ *Log) {
		send(event.JobsLoaded{Path: "jobs.yaml", Jobs: 2})
		send(event.JobsLoaded{Path: "jobs.yaml", Jobs: 2, Err: errors.New("line 3")})
		send(event.StateDatabase{Err: errors.New("refused")})
		send(event.StateDatabase{})
		send(event.RunnerConnected{Runner: "r1", Slots: 2})
		send(event.RunEnded{Run: 1, Job: "a", State: "succeeded"})
		send(event.RunEnded{Run: 2, Job: "a", State: "dead", Exit: 78})
		send(event.RunEnded{Run: 2, Job: "a", State: "queued", Exit: 1})
		send(event.RunLost{Run: 3, Job: "a", State: "queued"})
		send(event.RunnerGone{Runner: "r1"})
	})
	want := []struct{ level, message string }{
		{"info", "jobs loaded"},
		{"warn", "cannot take the changed file of jobs, keeping the jobs before"},
		{"warn", "the database of jobs does not answer, jobs wait for it"},
		{"info", "the database of jobs answers again"},
		{"info", "runner connected"},
		{"info", "run ended"},
		{"info", "attempt ended, the run waits for another one"},
		{"warn", "the runner of a run has not renewed its lease, counting the attempt as lost"},
		{"info", "runner gone"},
	}
	if len(lines) != len(want) {
		t.Fatalf("got %v", lines)
	}
	for i, w := range want {
		if lines[i]["level"] != w.level || lines[i]["message"] != w.message || lines[i]["component"] != "jobs" {
			t.Errorf("line %d is %v, want %+v", i, lines[i], w)
		}
	}
}
