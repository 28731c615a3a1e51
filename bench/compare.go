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
	// shared is how many entries an envelope held; 0 if that is not known.
	shared float64
	// half and late are the median and the 99th percentile of the time to an answer; 0 if
	// that is not known.
	half, late time.Duration
	// refused is how many requests the server did not take.
	refused float64
}

// counter returns how much has been done so far.
type counter func() (float64, error)

// rate measures how fast done grows, after a while to warm up, and what the
// processes, by name, and this one take for it. It goes on until something was
// done: nothing at all is no rate, but a failure.
func (l *lab) rate(ctx context.Context, done counter, pids map[string]int) (sample, error) {
	if err := pause(ctx, l.warm); err != nil {
		return sample{}, err
	}
	before, err := done()
	if err != nil {
		return sample{}, err
	}
	m := newMeter(pids)
	for {
		if m.elapsed() > patience {
			return sample{}, fmt.Errorf("nothing was done in %v", m.elapsed())
		}
		if err := pause(ctx, l.measure); err != nil {
			return sample{}, err
		}
		after, err := done()
		if err != nil {
			return sample{}, err
		}
		if after > before {
			return m.sample(after - before), nil
		}
	}
}

// meter measures from its making on: the time, and what processors some
// processes take, by name; this one is the generator.
type meter struct {
	began time.Time
	pids  map[string]int
	spent map[string]time.Duration // until it was made
}

func newMeter(pids map[string]int) meter {
	all := map[string]int{"generator": os.Getpid()}
	maps.Copy(all, pids)
	return meter{time.Now(), all, processorTimes(all)}
}

func (m meter) elapsed() time.Duration { return time.Since(m.began) }

// sample is the rate of what was done meanwhile.
func (m meter) sample(did float64) sample {
	seconds := m.elapsed().Seconds()
	s := sample{value: did / seconds, cores: make(map[string]float64)}
	for name, now := range processorTimes(m.pids) {
		s.cores[name] = (now - m.spent[name]).Seconds() / seconds
	}
	return s
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
	var costs [2]float64
	for i, c := range sides {
		facts, cost := factsOf(c.name, samples[i])
		r.Facts, costs[i] = append(r.Facts, facts...), cost
	}
	if costs[0] > 0 && costs[1] > 0 {
		r.Facts = append(r.Facts, fmt.Sprintf("by processor time alone the ratio would be %.2f", costs[1]/costs[0]))
	}
	return r, nil
}

// factsOf tells the medians of what a contender's runs took: how many
// processors each process kept busy, and how long that is for one of what was
// counted. The cost, which is their sum, depends less on what else the machine
// does than the rates do.
func factsOf(name string, samples []sample) (facts []string, cost float64) {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(samples[0].cores)) {
		cores := medianOf(samples, func(s sample) float64 { return s.cores[name] })
		each := medianOf(samples, func(s sample) float64 { return s.cores[name] / s.value * 1e6 })
		parts = append(parts, fmt.Sprintf("%s %.2f (%.2f µs each)", name, cores, each))
		cost += each
	}
	if len(parts) > 0 {
		facts = append(facts, fmt.Sprintf("%s, processors busy: %s; together %.2f µs each", name, strings.Join(parts, ", "), cost))
	}
	if shared := medianOf(samples, func(s sample) float64 { return s.shared }); shared > 0 {
		facts = append(facts, fmt.Sprintf("%s, entries in an envelope: %.1f", name, shared))
	}
	if late := medianOf(samples, func(s sample) float64 { return s.late.Seconds() * 1e3 }); late > 0 {
		half := medianOf(samples, func(s sample) float64 { return s.half.Seconds() * 1e3 })
		facts = append(facts, fmt.Sprintf("%s, time to an answer: median %.1f ms, 99 %% within %.1f ms", name, half, late))
	}
	refused := 0.0
	for _, s := range samples {
		refused += s.refused
	}
	if refused > 0 {
		facts = append(facts, fmt.Sprintf("%s refused %.0f requests", name, refused))
	}
	return facts, cost
}

func medianOf(samples []sample, value func(sample) float64) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, value(s))
	}
	return median(values)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
