package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"async-data-processor/faults/process"
)

// arrayConns is how many connections post arrays, singleConns single entries.
const arrayConns, singleConns = 16, 64

// rateOf measures the entries that a server accepts, and returns how many it
// has accepted in the end.
func (l *lab) rateOf(ctx context.Context, g load, pids map[string]int) (s sample, entries float64, err error) {
	begin := func() *posting { return g.post(0) }
	if g.sockets {
		begin = g.stream
	}
	p := begin()
	s, err = l.rate(ctx, p.entries, pids)
	err = errors.Join(err, p.stop())
	s.half, s.late = p.times.quantile(0.5), p.times.quantile(0.99)
	s.refused = float64(p.refused.Load())
	entries, _ = p.entries()
	return s, entries, err
}

// overRabbit is the contender that posts to a server in front of RabbitMQ.
func (l *lab) overRabbit(name string, r *rabbit, srv *process.Process, entries, conns int) contender {
	return contender{name, func(ctx context.Context) (sample, error) {
		s, posted, err := l.rateOf(ctx, newLoad(srv.Addr, entries, conns), l.with(map[string]int{"server": srv.PID()}))
		if err != nil {
			return s, err
		}
		envelopes, err := r.empty(productQueues, shardCount)
		s.shared = posted / float64(max(envelopes, 1))
		return s, err
	}}
}

// ingest compares the ingest of arrays with a bare broker.
func ingest(target, size int, want float64) func(context.Context, *lab) ([]result, error) {
	return func(ctx context.Context, l *lab) ([]result, error) {
		bare, err := l.barePublisher(ctx)
		if err != nil {
			return nil, err
		}
		r := l.rabbit
		srv, err := l.server(ctx, r.url)
		if err != nil {
			return nil, err
		}
		defer srv.Kill()
		row := result{
			Target: target, Name: fmt.Sprintf("ingest-%d", size), Unit: "entries/s", Want: want,
			What:  fmt.Sprintf("ingest over RabbitMQ, arrays of %d, %d connections ÷ bare broker's publish rate", size, arrayConns),
			Facts: []string{fmt.Sprintf("the fastest is %v", bare)},
		}
		row, err = l.compare(ctx, row, l.overRabbit("server", r, srv, size, arrayConns),
			contender{"bare broker", func(ctx context.Context) (sample, error) { return bare.measure(ctx, l) }})
		if err != nil {
			return nil, err
		}
		return []result{row, memoryRow("server", "server under "+row.Name, srv)}, nil
	}
}

// memoryRow holds the peak of a process against its target.
func memoryRow(name, what string, p *process.Process) result {
	r := result{
		Target: 8, Name: name, What: "peak memory: " + what, Unit: "MiB",
		Value: peakMemory(p.PID()), Want: 150, AtMost: true,
	}
	r.judge()
	return r
}

// single compares the ingest of single entries with a bare HTTP server.
func single(ctx context.Context, l *lab) ([]result, error) {
	r, srv, err := l.serverOverRabbit(ctx)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	echo, err := startEcho(ctx)
	if err != nil {
		return nil, err
	}
	defer echo.Kill()
	row, err := l.compare(ctx, result{
		Target: 3, Name: "single", Unit: "requests/s", Want: 0.75,
		What: fmt.Sprintf("ingest of single entries over RabbitMQ, %d connections ÷ bare HTTP", singleConns),
	}, l.overRabbit("server", r, srv, 1, singleConns), l.bareHTTP(echo, 1, singleConns))
	return []result{row}, err
}

// loops compares the ingest of single entries with as many closed-loop publishers
// as there are connections.
func loops(ctx context.Context, l *lab) ([]result, error) {
	if _, err := l.broker(); err != nil { // trials share it
		return nil, err
	}
	var candidates []closedLoop
	for _, channels := range []int{1, 2, shardCount} {
		for _, gather := range []bool{true, false} {
			candidates = append(candidates, closedLoop{arrayConns, channels, gather})
		}
	}
	limit, err := tune(ctx, l, candidates)
	if err != nil {
		return nil, err
	}
	srv, err := l.server(ctx, l.rabbit.url)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	row, err := l.compare(ctx, result{
		Target: 6, Name: "loops", Unit: "entries/s", Want: 0.85,
		What:  fmt.Sprintf("ingest of single entries over RabbitMQ, %d connections ÷ as many closed-loop publishers", arrayConns),
		Facts: []string{fmt.Sprintf("the fastest is the closed loop of %v", limit)},
	}, l.overRabbit("server", l.rabbit, srv, 1, arrayConns),
		contender{"closed loop", func(ctx context.Context) (sample, error) { return limit.measure(ctx, l) }})
	return []result{row}, err
}

// bareHTTP is the contender that posts to a server which only answers.
func (l *lab) bareHTTP(echo *process.Process, entries, conns int) contender {
	return contender{"bare HTTP", func(ctx context.Context) (sample, error) {
		s, _, err := l.rateOf(ctx, newLoad(echo.Addr, entries, conns), map[string]int{"server": echo.PID()})
		return s, err
	}}
}

// shards measures the ingest with several numbers of shards.
func shards(ctx context.Context, l *lab) ([]result, error) {
	r, err := l.broker()
	if err != nil {
		return nil, err
	}
	return l.byShards(ctx, result{Target: 9, Name: "shards", What: "ingest over RabbitMQ", Want: 0.8}, l.shards,
		func(n int) contender {
			return contender{"RabbitMQ", func(ctx context.Context) (sample, error) {
				srv, err := l.server(ctx, r.url, "SHARDS_COUNT="+strconv.Itoa(n))
				if err != nil {
					return sample{}, err
				}
				s, _, err := l.rateOf(ctx, newLoad(srv.Addr, 100, arrayConns), nil)
				srv.Kill()
				return s, errors.Join(err, r.drop(productQueues, n))
			}}
		})
}

// byShards fills in the row with the rates at several numbers of shards.
func (l *lab) byShards(ctx context.Context, row result, numbers []int, over func(shards int) contender) ([]result, error) {
	rates := make([][]float64, len(numbers))
	for range l.pairs {
		for i, n := range numbers {
			s, err := over(n).run(ctx)
			if err != nil {
				return nil, err
			}
			rates[i] = append(rates[i], s.value)
			l.say("  %d shards: %s entries/s", n, number(s.value))
		}
	}
	row.Unit, row.What = "least ÷ most entries/s", fmt.Sprintf("%s, arrays of 100, at %v shards", row.What, numbers)
	var medians []float64
	for i, n := range numbers {
		medians = append(medians, median(rates[i]))
		row.Facts = append(row.Facts, fmt.Sprintf("%d shards: %s entries/s", n, number(medians[i])))
	}
	row.Value = slices.Min(medians) / slices.Max(medians)
	row.judge()
	many := result{
		Target: 7, Name: "shards", Unit: "entries/s", Want: 0.85, Limit: "5 shards",
		What: fmt.Sprintf("ingest over RabbitMQ, arrays of 100, %d connections, 20 shards ÷ 5 shards", arrayConns),
	}
	few := rates[slices.Index(l.shards, 5)]
	for i, rate := range rates[slices.Index(l.shards, 20)] {
		many.Pairs = append(many.Pairs, [2]float64{rate, few[i]})
	}
	many.judge()
	return []result{row, many}, nil
}

// latency compares one entry at a time with a bare confirmed publish.
func latency(ctx context.Context, l *lab) ([]result, error) {
	r, srv, err := l.serverOverRabbit(ctx)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	ch, err := r.conn.Channel()
	if err != nil {
		return nil, err
	}
	defer ch.Close()
	if err := ch.Confirm(false); err != nil {
		return nil, err
	}
	row, err := l.compare(ctx, result{
		Target: 7, Name: "latency", Unit: "median µs", Want: 1.5, AtMost: true,
		What: "one entry on an idle system, POST → 201 ÷ a bare confirmed publish",
	}, contender{"server", func(context.Context) (sample, error) {
		s, err := l.onePost(srv.Addr)
		return s, errors.Join(err, r.drop(productQueues, shardCount))
	}}, contender{"bare publish", func(ctx context.Context) (sample, error) {
		s, err := medianTime(l.posts, func(i int) error {
			confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", queueName(bareQueues, i%shardCount), true, false,
				amqp.Publishing{DeliveryMode: amqp.Persistent, Body: entry})
			if err != nil {
				return err
			}
			_, err = confirm.WaitContext(ctx)
			return err
		})
		return s, errors.Join(err, r.drop(bareQueues, shardCount))
	}})
	return []result{row}, err
}

// onePost is the median time of a POST of one entry, one after the other.
func (l *lab) onePost(addr string) (sample, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return sample{}, err
	}
	defer conn.Close()
	requests, answer := newLoad(addr, 1, 1).requests, make([]byte, 4<<10)
	return medianTime(l.posts, func(i int) error {
		if _, err := conn.Write(requests[i%len(requests)]); err != nil {
			return err
		}
		return accepted(conn, answer)
	})
}

// medianTime is the median time in µs of doing something, one after the other.
func medianTime(n int, do func(i int) error) (sample, error) {
	times := make([]float64, n)
	for i := range times {
		began := time.Now()
		if err := do(i); err != nil {
			return sample{}, err
		}
		times[i] = float64(time.Since(began)) / float64(time.Microsecond)
	}
	return sample{value: median(times)}, nil
}
