package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"async-data-processor/faults/process"
)

// files compares the whole way to files of five with writing bare files.
func files(ctx context.Context, l *lab) ([]result, error) {
	r, srv, err := l.serverOverRabbit(ctx)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	row, err := l.compare(ctx, result{
		Target: 4, Name: "files", Unit: "files/s", Want: 0.7,
		What: "whole way (POST → durable files of five), backlog present ÷ bare files",
	}, contender{"whole way", func(ctx context.Context) (sample, error) {
		s, err := wholeWay(ctx, l, r, srv)
		return s, errors.Join(err, r.drop(productQueues, shardCount))
	}}, contender{"bare files", func(ctx context.Context) (sample, error) { return bareFiles(ctx, l) }})
	return []result{row}, err
}

// wholeWay measures files per second while there is a backlog, which posts keep
// as long as it is.
func wholeWay(ctx context.Context, l *lab, r *rabbit, srv *process.Process) (sample, error) {
	dir, err := l.folder("data")
	if err != nil {
		return sample{}, err
	}
	if err := fill(ctx, srv.Addr, l.queued); err != nil {
		return sample{}, err
	}
	consumer, err := l.consumer(ctx, r.url, dir)
	if err != nil {
		return sample{}, err
	}
	defer consumer.Kill()
	return filesRate(ctx, l, dir, srv.Addr, 0, l.with(map[string]int{"server": srv.PID(), "consumer": consumer.PID()}))
}

// filesRate measures how fast files come to a folder while posts stay so many
// entries ahead of them.
func filesRate(ctx context.Context, l *lab, dir, addr string, ahead int, pids map[string]int) (sample, error) {
	p := newLoad(addr, 100, arrayConns).post(0)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// The files are counted seldom, because that costs processor time, too.
	go func() {
		for pause(ctx, l.measure/8) == nil {
			n, err := visibleFiles(dir)
			posted, _ := p.entries()
			p.held.Store(err != nil || posted > 5*n+float64(ahead))
		}
	}()
	s, err := l.rate(ctx, func() (float64, error) { return visibleFiles(dir) }, pids)
	err = errors.Join(err, p.stop())
	s.refused = float64(p.refused.Load())
	return s, err
}

// visibleFiles counts the published files of an output folder.
func visibleFiles(dir string) (float64, error) {
	folders, err := filepath.Glob(filepath.Join(dir, "shard-*"))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range folders {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		for err == nil {
			var names []string
			names, err = f.Readdirnames(1000)
			for _, name := range names {
				if strings.HasSuffix(name, ".ndjson") && name[0] != '.' {
					n++
				}
			}
		}
		_ = f.Close() // only read from
		if err != io.EOF {
			return 0, err
		}
	}
	return float64(n), nil
}

// rolled are the settings of target 5.
var rolled = []string{"ROLL_BYTES=67108864"}

// rolls tells whether the program can write rolling files.
func rolls(ctx context.Context, program string) bool {
	help, err := exec.CommandContext(ctx, program, "message-consumer", "--help").Output()
	return err == nil && strings.Contains(string(help), "--roll-bytes")
}

// rolling compares the whole way to rolling files with a bare broker that is
// published to and consumed from.
func rolling(ctx context.Context, l *lab) ([]result, error) {
	bare, err := l.bareConsumer(ctx)
	if err != nil {
		return nil, err
	}
	limit := contender{"bare broker", func(ctx context.Context) (sample, error) { return bare.measure(ctx, l) }}
	appends, err := bareAppends(ctx, l)
	if err != nil {
		return nil, err
	}
	row := result{
		Target: 5, Name: "rolling", Unit: "entries/s", Want: 8,
		What: "whole way, rolling files of 64 MiB, arrays of 100 ÷ bare broker's publish-and-consume rate",
		Facts: []string{
			fmt.Sprintf("the fastest is %v", bare),
			fmt.Sprintf("bare appends of 64 KiB with an fsync each: %s entries/s", number(appends.value)),
		},
	}
	if !rolls(ctx, l.program) {
		s, err := limit.run(ctx)
		row.Skipped = "the program does not know ROLL_BYTES"
		row.Facts = append(row.Facts, fmt.Sprintf("bare broker, published and consumed: %s messages/s", number(s.value)))
		return []result{row}, err
	}
	srv, err := l.server(ctx, l.rabbit.url)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	row, err = l.compare(ctx, row, contender{"whole way", func(ctx context.Context) (sample, error) {
		return carryAll(ctx, l, srv)
	}}, limit)
	if err != nil {
		return nil, err
	}
	var rates []float64
	for _, p := range row.Pairs {
		rates = append(rates, p[0])
	}
	row.Facts = append(row.Facts, fmt.Sprintf("the whole way is %.3f of bare appends", median(rates)/appends.value))
	return []result{row, memoryRow("rolling", "server under rolling", srv)}, nil
}

// carryAll measures entries per second from the first POST to the end of a
// message-consumer that has drained, when all of them are in durable files.
func carryAll(ctx context.Context, l *lab, srv *process.Process) (sample, error) {
	dir, err := l.folder("data")
	if err != nil {
		return sample{}, err
	}
	consumer, err := l.consumer(ctx, l.rabbit.url, dir, append(rolled, "DRAIN_TIMEOUT="+patience.String())...)
	if err != nil {
		return sample{}, err
	}
	defer consumer.Kill()
	s, err := carry(ctx, l, dir, srv.Addr, consumer, l.with(map[string]int{"server": srv.PID(), "consumer": consumer.PID()}))
	if err != nil {
		return s, err
	}
	if n, err := l.rabbit.waitingIn(productQueues, shardCount); n > 0 || err != nil {
		return s, fmt.Errorf("the message-consumer gave back %d envelopes: %w", n, err)
	}
	return s, nil
}

// carry is carryAll with a consumer that runs.
func carry(ctx context.Context, l *lab, dir, addr string, consumer *process.Process, pids map[string]int) (sample, error) {
	m := newMeter(pids)
	p := newLoad(addr, 100, arrayConns).post(l.carried / 100)
	defer context.AfterFunc(ctx, func() { p.ended.Store(true) })()
	if err := p.wait(); err != nil {
		return sample{}, err
	}
	// An earlier drain would give back what the message-consumer has not settled.
	entries, _ := p.entries()
	if err := awaitBytes(ctx, dir, int64(entries)/100*lineBytes(100)); err != nil {
		return sample{}, err
	}
	cores := m.sample(0).cores // the consumer's are not known once it is gone
	if err := drain(ctx, consumer); err != nil {
		return sample{}, err
	}
	return sample{value: entries / m.elapsed().Seconds(), cores: cores, refused: float64(p.refused.Load())}, nil
}

// lineBytes is how much the entries of a prepared array are in files.
func lineBytes(entries int) (sum int64) {
	for i := range entries {
		id := `"message_id":"01JD8Y6G5V3X9Q2R7T4B1C0D5E.` + strconv.Itoa(i) + `",`
		sum += int64(len(id) + len(entry) + len("\n"))
	}
	return sum
}

// awaitBytes waits until a folder holds so much; it fails when nothing comes.
func awaitBytes(ctx context.Context, dir string, want int64) error {
	have, since := int64(-1), time.Now()
	for have < want {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		n, err := bytesIn(dir)
		switch {
		case err != nil:
			return err
		case int64(n) > have:
			have, since = int64(n), time.Now()
		case time.Since(since) > patience:
			return fmt.Errorf("of %d bytes only %d come to files", want, have)
		}
	}
	return nil
}
