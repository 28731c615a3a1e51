package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// memoryBacklog is at which the consumer's memory has its target, in entries.
	memoryBacklog = 5_000_000
	// backlogRounds are enough to go through the lengths in both orders.
	backlogRounds = 2
	// backlogArray is how many entries are posted at once.
	backlogArray = 1000
)

// outlet is one way of a message-consumer to write what waits.
type outlet struct {
	name     string
	settings []string
	samples  []sample
	rates    [][]float64 // by length, of each round
	whole    []bool      // by length, whether a rate is of all that waited
	peak     float64     // of memory in MiB, up to memoryBacklog
}

// backlog measures, by how much waits, what comes in and what a message-consumer
// takes out. It goes through the lengths in ascending and in descending order,
// each time from empty queues and a quiet broker on, so that none has an
// advantage.
func backlog(ctx context.Context, l *lab) ([]result, error) {
	r, srv, err := l.serverOverRabbit(ctx)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	outlets := []*outlet{{name: "files of five"}}
	if rolls(ctx, l.program) {
		outlets = append(outlets, &outlet{name: "rolling files", settings: rolled})
	}
	for _, o := range outlets {
		o.rates, o.whole = make([][]float64, len(l.backlogs)), make([]bool, len(l.backlogs))
	}
	in := make([][]float64, len(l.backlogs))
	order := make([]int, len(l.backlogs))
	for i := range order {
		order[i] = i
	}
	for range min(l.pairs, backlogRounds) {
		for _, i := range order {
			for _, o := range outlets {
				rate, waiting, err := grow(ctx, l, srv.Addr, l.backlogs[i])
				if err != nil {
					return nil, err
				}
				in[i] = append(in[i], rate)
				if err := take(ctx, l, r, o, i, waiting); err != nil {
					return nil, fmt.Errorf("%s: %w", o.name, err)
				}
				if err := r.drop(productQueues, shardCount); err != nil {
					return nil, err
				}
				if err := quiet(ctx, l, r); err != nil {
					return nil, err
				}
				l.say("  %d entries: in %s entries/s, to %s %s entries/s", l.backlogs[i], number(rate), o.name, number(o.rates[i][len(o.rates[i])-1]))
			}
		}
		slices.Reverse(order)
	}
	rows := []result{growth(l.backlogs, "ingest", in, make([]bool, len(in)))}
	for _, o := range outlets {
		row := growth(l.backlogs, o.name, o.rates, o.whole)
		facts, _ := factsOf(o.name, o.samples)
		row.Facts = append(row.Facts, facts...)
		memory := result{
			Target: 8, Name: "backlog", Unit: "MiB", Want: 150, AtMost: true, Value: o.peak,
			What: "peak memory: message-consumer, " + o.name + ", backlogs up to 5 million entries",
		}
		memory.judge()
		rows = append(rows, row, memory)
	}
	return append(rows, memoryRow("backlog", "server under arrays of 1,000", srv)), nil
}

// growth is the row of rates by length of the backlog. Rates of the whole of one
// have the start in them, and do not count beside others.
func growth(backlogs []int, name string, rates [][]float64, whole []bool) result {
	row := result{
		Target: 9, Name: "backlog", Unit: "least ÷ most entries/s", Want: 0.8,
		What: fmt.Sprintf("%s over RabbitMQ, arrays of 1,000, while %v entries wait", name, backlogs),
	}
	var medians []float64
	for i, n := range backlogs {
		m, note := median(rates[i]), ""
		if whole[i] {
			note = ", its start included: all of it is gone too soon"
		}
		if !whole[i] || !slices.Contains(whole, false) {
			medians = append(medians, m)
		}
		row.Facts = append(row.Facts, fmt.Sprintf("%s, %d entries: %s entries/s%s", name, n, number(m), note))
	}
	row.Value = slices.Min(medians) / slices.Max(medians)
	row.judge()
	return row
}

// grow has n entries wait, and measures what comes in from then on until there
// are twice as many, or for half as long as anything else is measured. It
// returns how many wait in the end.
func grow(ctx context.Context, l *lab, addr string, n int) (rate float64, waiting int, err error) {
	p := newLoad(addr, backlogArray, arrayConns).post(0)
	before, err := until(ctx, p.entries, func(posted float64) bool { return posted >= float64(n) })
	if err == nil {
		var after float64
		m := newMeter(nil)
		after, err = until(ctx, p.entries, func(posted float64) bool {
			return posted >= 2*before || posted > before && m.elapsed() > l.measure/2
		})
		rate = m.sample(after - before).value
	}
	if stopped := p.stop(); err == nil {
		err = stopped
	}
	posted, _ := p.entries()
	return rate, int(posted), err
}

// take measures the entries per second that a message-consumer writes to files
// while some wait, neither at its start nor at the end of what waits; but if it
// takes most of that at once, all of it.
func take(ctx context.Context, l *lab, r *rabbit, o *outlet, length, waiting int) error {
	dir, err := l.folder("data")
	if err != nil {
		return err
	}
	consumer, err := l.consumer(ctx, r.url, dir, o.settings...)
	if err != nil {
		return err
	}
	defer consumer.Kill()
	written := func() (float64, error) {
		n, err := bytesIn(dir)
		return n * backlogArray / float64(lineBytes(backlogArray)), err
	}
	pids := l.with(map[string]int{"consumer": consumer.PID()})
	all := newMeter(pids)
	if _, err := until(ctx, written, func(n float64) bool { return n > 0 }); err != nil {
		return err
	}
	warm := newMeter(nil)
	before, err := until(ctx, written, func(n float64) bool {
		return warm.elapsed() > l.warm || n > 0.3*float64(waiting)
	})
	if err != nil {
		return err
	}
	m := newMeter(pids)
	if before > 0.6*float64(waiting) {
		m, before, o.whole[length] = all, 0, true
	}
	after, err := until(ctx, written, func(n float64) bool {
		return n > before && (m.elapsed() > l.measure || n > 0.9*float64(waiting))
	})
	if err != nil {
		return err
	}
	s := m.sample(after - before)
	o.samples, o.rates[length] = append(o.samples, s), append(o.rates[length], s.value)
	if l.backlogs[length] <= memoryBacklog {
		o.peak = max(o.peak, peakMemory(consumer.PID()))
	}
	return nil
}

// until asks until it is enough, seldom if asking takes long; it fails when
// nothing has come for a while.
func until(ctx context.Context, done counter, enough func(float64) bool) (float64, error) {
	last, since := -1.0, time.Now()
	for {
		began := time.Now()
		n, err := done()
		if err != nil || enough(n) {
			return n, err
		}
		switch {
		case n > last:
			last, since = n, began
		case time.Since(since) > patience:
			return n, fmt.Errorf("nothing came for %v", patience)
		}
		if err := pause(ctx, max(2*time.Millisecond, 20*time.Since(began))); err != nil {
			return n, err
		}
	}
}

// quiet waits until RabbitMQ has done what it was busy with: it takes long to
// forget millions of entries, and the next measurement would pay for that.
func quiet(ctx context.Context, l *lab, r *rabbit) error {
	const glance, idle = 250 * time.Millisecond, 20 * time.Millisecond
	if r.pid == 0 {
		return pause(ctx, l.measure) // it is not ours to look at
	}
	for began := time.Now(); time.Since(began) < 2*patience; {
		before := processorTime(r.pid)
		if err := pause(ctx, glance); err != nil {
			return err
		}
		if processorTime(r.pid)-before <= idle {
			return nil
		}
	}
	l.say("  RabbitMQ is still busy after %v", 2*patience)
	return nil
}
