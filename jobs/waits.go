package jobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// jobOf is a definition as clients see it.
func jobOf(d *frame.Definition, runs map[store.State]int) JobView {
	v := JobView{
		Name: d.Name, On: d.On, Image: d.Image, Command: append([]string{}, d.Command...), Labels: append([]string{}, d.Labels...),
		Timeout: d.Timeout, Grace: d.Grace, Concurrency: d.Concurrency, Attempts: d.Attempts, Backoff: d.Backoff,
		Env: append([]string{}, slices.Sorted(maps.Keys(d.Env))...), Secrets: append([]string{}, d.Secrets...), Keep: d.Keep, Counts: make(map[store.State]int, len(runs)),
	}
	for state, n := range runs {
		if n > 0 {
			v.Counts[state] = n
		}
	}
	return v
}

// why says why a run is where it is: what the store has noted, and what it waits for.
func (l *Local) why(ctx context.Context, r *store.Run) string {
	if r.State != store.Queued {
		return r.Why
	}
	waits := l.waitsFor(ctx, r)
	switch {
	case waits == "":
		return r.Why
	case r.Why == "":
		return waits
	}
	return waits + "; before that: " + r.Why
}

// waitsFor says what a queued run waits for; empty if it is about to begin.
func (l *Local) waitsFor(ctx context.Context, r *store.Run) string {
	d, defined := l.cfg.Engine.Definition(r.Job)
	if !defined {
		return "its job is not defined any more"
	}
	if time.Until(r.Due) > 0 {
		return "it is due at " + r.Due.UTC().Format(time.RFC3339)
	}
	if counts, err := l.Counts(ctx, whyAge); err == nil {
		if n := counts[d.Name][store.Leased] + counts[d.Name][store.Running]; n >= d.Concurrency {
			return fmt.Sprintf("as many of its job run as its concurrency allows: %d", d.Concurrency)
		}
	}
	return l.lacks(&d)
}

// lacks says what keeps the connected runners from a job; empty if one is free.
func (l *Local) lacks(d *frame.Definition) string {
	runners := l.cfg.Engine.Runners()
	elsewhere := "" // what this engine does not know
	if len(l.cfg.Engines()) > 0 {
		elsewhere = " to this engine, " + l.cfg.Node()
	}
	if len(runners) == 0 {
		return "no runner is connected" + elsewhere + "; start one: async-data-processor runner URL"
	}
	fit, free := 0, 0
	for _, r := range runners {
		if r.Draining || slices.ContainsFunc(d.Labels, func(label string) bool { return !slices.Contains(r.Labels, label) }) {
			continue
		}
		if fit++; r.Busy < r.Slots {
			free++
		}
	}
	switch {
	case fit == 0 && len(d.Labels) > 0:
		return fmt.Sprintf("no runner with the labels %s is connected%s", strings.Join(d.Labels, ", "), elsewhere)
	case fit == 0:
		return "every runner that is connected" + elsewhere + " stops"
	case free == 0:
		return fmt.Sprintf("every slot of the %d runners that may run it is taken", fit)
	}
	return ""
}
