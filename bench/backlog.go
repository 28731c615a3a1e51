package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// memoryBacklog is at which the consumer's memory has its target, in entries.
const memoryBacklog = 5_000_000

// backlog lets the queues grow, and at each length measures what comes in and
// what a message-consumer takes out.
func backlog(ctx context.Context, l *lab) ([]result, error) {
	r, err := l.broker(ctx)
	if err != nil {
		return nil, err
	}
	srv, err := l.server(ctx, r.url)
	if err != nil {
		return nil, err
	}
	defer srv.kill()
	var settings []string
	if l.rolls(ctx) {
		settings = rolled
	}
	ingest := result{
		Target: 9, Name: "backlog", Unit: "least ÷ most entries/s", Want: 0.8,
		What: fmt.Sprintf("ingest over RabbitMQ, arrays of 1,000, up to backlogs of %v entries", l.backlogs),
	}
	consume := ingest
	consume.What, consume.Unit = fmt.Sprintf("files from backlogs of %v entries", l.backlogs), "least ÷ most bytes/s"
	memory := result{
		Target: 8, Name: "backlog", Unit: "MiB", Want: 150, AtMost: true,
		What: "peak memory: message-consumer, by backlog up to 5 million entries",
	}
	var in, out []float64
	have := 0
	for _, want := range l.backlogs {
		began := time.Now()
		if err := fill(ctx, srv.addr, want-have); err != nil {
			return nil, err
		}
		in = append(in, float64(want-have)/time.Since(began).Seconds())
		have = want
		s, peak, err := l.take(ctx, r, settings)
		if err != nil {
			return nil, err
		}
		out = append(out, s.value)
		if want <= memoryBacklog {
			memory.Value = max(memory.Value, peak)
		}
		fact := fmt.Sprintf("%d entries: in %s entries/s, out %s bytes/s, consumer at most %.0f MiB", want, number(in[len(in)-1]), number(s.value), peak)
		l.say("  %s", fact)
		memory.Facts = append(memory.Facts, fact)
	}
	ingest.Value, consume.Value = slices.Min(in)/slices.Max(in), slices.Min(out)/slices.Max(out)
	rows := []result{ingest, consume, memory}
	for i := range rows {
		rows[i].judge()
	}
	rows = append(rows, memoryRow("backlog", "server under arrays of 1,000", srv))
	return rows, r.drop(productQueues, shardCount)
}

// take measures the bytes per second that a message-consumer writes to files,
// and its peak of memory. What it had in hand comes again.
func (l *lab) take(ctx context.Context, r *rabbit, settings []string) (s sample, peak float64, err error) {
	dir, err := l.folder("data")
	if err != nil {
		return s, 0, err
	}
	consumer, err := l.consumer(ctx, r.url, dir, settings...)
	if err != nil {
		return s, 0, err
	}
	defer consumer.kill()
	s, err = l.rate(ctx, func() (float64, error) { return bytesIn(dir) }, nil)
	return s, peakMemory(consumer.pid()), err
}

// bytesIn is the size of everything in a folder.
func bytesIn(dir string) (float64, error) {
	var sum float64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was a temporary name
		}
		if err == nil {
			sum += float64(info.Size())
		}
		return err
	})
	return sum, err
}
