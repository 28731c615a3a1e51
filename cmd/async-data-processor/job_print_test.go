package main

import (
	"bytes"
	"strings"
	"testing"

	"async-data-processor/pipeline"
)

// TestPrintRuns: a list tells how many attempts a run has had, and how many of them count.
func TestPrintRuns(t *testing.T) {
	var out bytes.Buffer
	if err := printRuns(&out, []pipeline.JobRun{
		{ID: 2, Job: "nowhere", State: "queued", Attempt: 2, Attempts: 1, Why: "cannot start"},
		{ID: 1, Job: "fails", State: "dead", Attempt: 7, Spent: 3, Attempts: 3, Runner: "r"},
	}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.Join(strings.Fields(line), " "))
	}
	for i, want := range []string{
		"ID JOB STATE ATTEMPTS THAT COUNT RUNNER CREATED WHY", "2 nowhere queued 2 0 of 1 - ", "1 fails dead 7 3 of 3 r ",
	} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("line %d of %q is not %q …", i, got, want)
		}
	}
}
