package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// contender is one side of a comparison; it is run once in each pair.
type contender struct {
	name string
	run  func(context.Context) (sample, error)
}

// sample is what one run of a contender gave.
type sample struct {
	value float64
	// cores is how many processors a process kept busy, by its name.
	cores map[string]float64
}

// counter returns how much has been done so far.
type counter func() (float64, error)

// rate measures how fast done grows, after a while to warm up, and what the
// processes, by name, and this one take for it.
func (l *lab) rate(ctx context.Context, done counter, pids map[string]int) (sample, error) {
	if err := pause(ctx, l.warm); err != nil {
		return sample{}, err
	}
	pids = maps.Clone(pids)
	if pids == nil {
		pids = make(map[string]int)
	}
	pids["generator"] = os.Getpid()
	began, spent := time.Now(), processorTimes(pids)
	before, err := done()
	if err != nil {
		return sample{}, err
	}
	if err := pause(ctx, l.measure); err != nil {
		return sample{}, err
	}
	after, err := done()
	if err != nil {
		return sample{}, err
	}
	elapsed := time.Since(began)
	s := sample{value: (after - before) / elapsed.Seconds(), cores: make(map[string]float64)}
	for name, now := range processorTimes(pids) {
		s.cores[name] = (now - spent[name]).Seconds() / elapsed.Seconds()
	}
	return s, nil
}

// compare runs both in turn and fills in what r says about them.
func (l *lab) compare(ctx context.Context, r result, product, limit contender) (result, error) {
	sides := []contender{product, limit}
	samples := make([][]sample, len(sides))
	for range l.pairs {
		var pair [2]float64
		for i, c := range sides {
			s, err := c.run(ctx)
			if err != nil {
				return r, fmt.Errorf("%s: %w", c.name, err)
			}
			samples[i], pair[i] = append(samples[i], s), s.value
		}
		r.Pairs = append(r.Pairs, pair)
		l.say("  %s %s, %s %s: %.2f", product.name, number(pair[0]), limit.name, number(pair[1]), pair[0]/pair[1])
	}
	r.Limit = limit.name
	r.judge()
	for i, c := range sides {
		if cores := coresOf(samples[i]); cores != "" {
			r.Facts = append(r.Facts, fmt.Sprintf("processors busy with the %s: %s", c.name, cores))
		}
	}
	return r, nil
}

// coresOf tells the median number of processors that each process kept busy.
func coresOf(samples []sample) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(samples[0].cores)) {
		var cores []float64
		for _, s := range samples {
			cores = append(cores, s.cores[name])
		}
		parts = append(parts, fmt.Sprintf("%s %.2f", name, median(cores)))
	}
	return strings.Join(parts, ", ")
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
