// Command bench measures the program beside what limits it: each comparison
// runs the program and a bare contender in turn (A B A B …), in one process
// tree on one machine, and reports medians and the median of the ratios. So a
// number means "how near to the limit", whatever the machine and its noise.
//
// It starts what it needs: the program, built from this tree; a private
// RabbitMQ; the contenders. It is the load generator itself, and tells its own
// share of the processor.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// benchmark is one go of make bench ONLY=<name>.
type benchmark struct {
	name, title string
	run         func(context.Context, *lab) ([]result, error)
}

var benchmarks = []benchmark{
	{"ingest-100", "ingest of arrays of 100 over RabbitMQ beside a bare broker", ingest(1, 100, 12)},
	{"ingest-1000", "the same with arrays of 1,000", ingest(2, 1000, 15)},
	{"single", "ingest of single entries beside a bare HTTP server", single},
	{"sockets", "ingest of single entries by WebSocket beside HTTP, ours and a bare server", sockets},
	{"loops", "ingest of single entries beside as many closed-loop publishers", loops},
	{"files", "the whole way to files of five beside bare files", files},
	{"rolling", "the whole way to rolling files beside a bare broker", rolling},
	{"decode", "decoding and carrying beside json.Valid", decode},
	{"latency", "one entry on an idle system beside a bare confirmed publish", latency},
	{"shards", "ingest by the number of shards", shards},
	{"embedded-1", "ingest of single entries over the embedded broker beside a bare HTTP server", embeddedSingle},
	{"embedded-100", "arrays of 100 over the embedded broker beside bare HTTP, RabbitMQ and -before", embedded100},
	{"embedded-1000", "arrays of 1,000 over the embedded broker beside -before", embedded1000},
	{"embedded-way", "the whole way over the embedded broker beside RabbitMQ", embeddedWay},
	{"embedded-latency", "one entry on an idle embedded broker beside a bare commit", embeddedLatency},
	{"embedded-shards", "ingest over the embedded broker by the number of shards", embeddedShards},
	{"idle", "start, processor time and stop of a standalone process without work", idle},
	// The last one, as it leaves a RabbitMQ that has held ten million entries.
	{"backlog", "ingest, consumption and memory by the length of the backlog", backlog},
}

// run is the program; its first argument may make it a bare contender.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == echoCommand {
		return exitCode(serveEcho(ctx, stderr), stderr)
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		only    = flags.String("only", "", "benchmarks to run, comma-separated; all by default")
		list    = flags.Bool("list", false, "list the benchmarks and exit")
		quick   = flags.Bool("quick", false, "one short pair of each: to see that it works, not how fast")
		pairs   = flags.Int("pairs", full.pairs, "pairs of a comparison")
		measure = flags.Duration("time", full.measure, "how long a contender is measured")
		profile = flags.String("profile", "", "folder for CPU profiles of the program, one for every few seconds; together they are go tool pprof's")
		before  = flags.String("before", "", "an earlier binary, to compare the embedded broker with")
		program = flags.String("program", "", "measure this binary instead of building one")
		dir     = flags.String("dir", "", "folder, and so the disk, for all that is written meanwhile; .run by default")
		results = flags.String("results", "bench/results", "folder of the JSON files")
	)
	if flags.Parse(args) != nil || flags.NArg() > 0 {
		return 2
	}
	if *list {
		for _, b := range benchmarks {
			fmt.Fprintf(stdout, "%-16s %s\n", b.name, b.title)
		}
		return 0
	}
	p := full
	if *quick {
		p = short
	}
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "pairs":
			p.pairs = *pairs
		case "time":
			p.measure = *measure
		}
	})
	p.disk, p.profiles, p.before = *dir, *profile, *before
	wanted, err := choose(*only)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	l, err := newLab(ctx, p, *program, stderr)
	if err != nil {
		return exitCode(err, stderr)
	}
	rep, err := l.measureAll(ctx, wanted)
	l.close()
	rep.Command = strings.Join(append([]string{"scripts/bench"}, args...), " ")
	rep.table(stdout)
	return exitCode(errors.Join(err, rep.save(*results)), stderr)
}

func choose(only string) ([]benchmark, error) {
	if only == "" {
		return benchmarks, nil
	}
	var wanted []benchmark
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(benchmarks, func(b benchmark) bool { return b.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no benchmark %q, see -list", name)
		}
		wanted = append(wanted, benchmarks[i])
	}
	return wanted, nil
}

// measureAll runs the benchmarks. One that fails is told and does not keep the
// others from being measured.
func (l *lab) measureAll(ctx context.Context, wanted []benchmark) (report, error) {
	rep := report{Machine: l.describe(ctx), Began: time.Now().UTC()}
	var errs []error
	for _, b := range wanted {
		l.current = b.name
		l.say("%s: %s", b.name, b.title)
		rows, err := b.run(ctx, l)
		rep.Results = append(rep.Results, rows...)
		if ctx.Err() != nil {
			return rep, context.Cause(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.name, err))
			l.say("%s: %v", b.name, err)
		}
	}
	rep.Machine.RabbitMQ = l.rabbitVersion
	return rep, errors.Join(errs...)
}

func exitCode(err error, stderr io.Writer) int {
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}
