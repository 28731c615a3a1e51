package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
)

// The targets of the embedded broker have the numbers from 11 on.

// overEmbedded is the contender that posts to a server with a broker of its own,
// with a new store each time.
func (l *lab) overEmbedded(name, program string, entries, conns int, settings ...string) contender {
	return contender{name, func(ctx context.Context) (sample, error) {
		store, err := l.newStore()
		if err != nil {
			return sample{}, err
		}
		srv, err := l.product(ctx, program, "server", append(settings, "BROKER_URL="+store, "INTAKE_ONLY=true", "LISTEN_ADDR=127.0.0.1:0"))
		if err != nil {
			return sample{}, err
		}
		defer srv.Kill()
		s, _, err := l.rateOf(ctx, newLoad(srv.Addr, entries, conns), map[string]int{"server": srv.PID()})
		return s, err
	}}
}

// besideHTTP compares the ingest over the embedded broker with bare HTTP.
func (l *lab) besideHTTP(ctx context.Context, target int, name string, entries, conns int, want float64) (result, error) {
	echo, err := startEcho(ctx)
	if err != nil {
		return result{}, err
	}
	defer echo.Kill()
	return l.compare(ctx, result{
		Target: target, Name: name, Unit: "entries/s", Want: want,
		What: fmt.Sprintf("ingest over the embedded broker, arrays of %d, %d connections ÷ bare HTTP", entries, conns),
	}, l.overEmbedded("embedded", l.program, entries, conns), l.bareHTTP(echo, entries, conns))
}

// besideBefore compares it with an earlier program.
func (l *lab) besideBefore(ctx context.Context, target int, name string, entries int, want float64) (result, error) {
	row := result{
		Target: target, Name: name, Unit: "entries/s", Want: want,
		What: fmt.Sprintf("ingest over the embedded broker, arrays of %d, %d connections ÷ the earlier program", entries, arrayConns),
	}
	if l.before == "" {
		row.Skipped = "-before names no program"
		return row, nil
	}
	return l.compare(ctx, row, l.overEmbedded("embedded", l.program, entries, arrayConns),
		l.overEmbedded("before", l.before, entries, arrayConns))
}

func embeddedSingle(ctx context.Context, l *lab) ([]result, error) {
	few, err := l.besideHTTP(ctx, 11, "embedded-1", 1, arrayConns, 0.8)
	if err != nil {
		return nil, err
	}
	many, err := l.besideHTTP(ctx, 11, "embedded-1", 1, singleConns, 0.8)
	return []result{few, many}, err
}

func embedded100(ctx context.Context, l *lab) ([]result, error) {
	bare, err := l.besideHTTP(ctx, 12, "embedded-100", 100, arrayConns, 0.7)
	if err != nil {
		return nil, err
	}
	before, err := l.besideBefore(ctx, 12, "embedded-100", 100, 3)
	if err != nil {
		return nil, err
	}
	r, srv, err := l.serverOverRabbit(ctx)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	rabbit, err := l.compare(ctx, result{
		Target: 10, Name: "embedded-100", Unit: "entries/s", Want: 1,
		What: fmt.Sprintf("ingest over the embedded broker, arrays of 100, %d connections ÷ the same over RabbitMQ", arrayConns),
	}, l.overEmbedded("embedded", l.program, 100, arrayConns), l.overRabbit("RabbitMQ", r, srv, 100, arrayConns))
	return []result{bare, before, rabbit}, err
}

func embedded1000(ctx context.Context, l *lab) ([]result, error) {
	row, err := l.besideBefore(ctx, 13, "embedded-1000", 1000, 1)
	return []result{row}, err
}

// embeddedWay compares the whole way in one process over the embedded broker with
// the same over RabbitMQ.
func embeddedWay(ctx context.Context, l *lab) ([]result, error) {
	r, err := l.broker()
	if err != nil {
		return nil, err
	}
	files := func(ctx context.Context, broker, dir string) (sample, error) {
		p, err := l.standalone(ctx, broker, dir)
		if err != nil {
			return sample{}, err
		}
		defer p.Kill()
		return filesRate(ctx, l, dir, p.Addr, l.queued, l.with(map[string]int{"standalone": p.PID()}))
	}
	rolling := func(ctx context.Context, broker, dir string) (sample, error) {
		p, err := l.standalone(ctx, broker, dir, append(rolled, "DRAIN_TIMEOUT="+patience.String())...)
		if err != nil {
			return sample{}, err
		}
		defer p.Kill()
		return carry(ctx, l, dir, p.Addr, p, l.with(map[string]int{"standalone": p.PID()}))
	}
	var rows []result
	for _, way := range []struct {
		what, unit string
		want       float64
		run        func(ctx context.Context, broker, dir string) (sample, error)
	}{{"files of five", "files/s", 1, files}, {"rolling files of 64 MiB", "entries/s", 1.2, rolling}} {
		row, err := l.compare(ctx, result{
			Target: 14, Name: "embedded-way", Unit: way.unit, Want: way.want,
			What: "whole way over the embedded broker, " + way.what + " ÷ the same over RabbitMQ",
		}, contender{"embedded", func(ctx context.Context) (sample, error) {
			store, err := l.newStore()
			if err != nil {
				return sample{}, err
			}
			dir, err := l.folder("data")
			if err != nil {
				return sample{}, err
			}
			return way.run(ctx, store, dir)
		}}, contender{"RabbitMQ", func(ctx context.Context) (sample, error) {
			dir, err := l.folder("data")
			if err != nil {
				return sample{}, err
			}
			s, err := way.run(ctx, r.url, dir)
			return s, errors.Join(err, r.drop(productQueues, shardCount))
		}})
		if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// embeddedLatency compares one entry at a time with a bare commit of bbolt.
func embeddedLatency(ctx context.Context, l *lab) ([]result, error) {
	store, err := l.newStore()
	if err != nil {
		return nil, err
	}
	srv, err := l.server(ctx, store)
	if err != nil {
		return nil, err
	}
	defer srv.Kill()
	dir, err := l.folder("bare")
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(filepath.Join(dir, "bare.db"), 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	row, err := l.compare(ctx, result{
		Target: 15, Name: "embedded-latency", Unit: "median µs", Want: 2, AtMost: true,
		What: "one entry on an idle embedded broker, POST → 201 ÷ a bare commit of bbolt",
	}, contender{"server", func(context.Context) (sample, error) { return l.onePost(srv.Addr) }},
		contender{"bare commit", func(context.Context) (sample, error) {
			return medianTime(l.posts, func(int) error {
				return db.Update(func(tx *bbolt.Tx) error {
					b, err := tx.CreateBucketIfNotExists([]byte("bare"))
					if err != nil {
						return err
					}
					n, err := b.NextSequence()
					if err != nil {
						return err
					}
					b.FillPercent = 1
					return b.Put(binary.BigEndian.AppendUint64(nil, n), entry)
				})
			})
		}})
	return []result{row}, err
}

// manyShards is the most shards there may be.
const manyShards = 1024

func embeddedShards(ctx context.Context, l *lab) ([]result, error) {
	return l.byShards(ctx, result{Target: 17, Name: "embedded-shards", What: "ingest over the embedded broker", Want: 0.75},
		[]int{1, 5, 20, 100, manyShards}, func(n int) contender {
			return l.overEmbedded("embedded", l.program, 100, arrayConns, "SHARDS_COUNT="+strconv.Itoa(n))
		})
}

// idle measures what a standalone process takes that has nothing to do.
func idle(ctx context.Context, l *lab) (rows []result, err error) {
	for _, tc := range []struct {
		shards int
		want   float64
	}{{shardCount, 0.2}, {manyShards, 1}} {
		store, err := l.newStore()
		if err != nil {
			return rows, err
		}
		dir, err := l.folder("data")
		if err != nil {
			return rows, err
		}
		began := time.Now()
		p, err := l.standalone(ctx, store, dir, "SHARDS_COUNT="+strconv.Itoa(tc.shards))
		if err != nil {
			return rows, err
		}
		ready := time.Since(began).Seconds()
		before, err := exactTime(p.PID()), pause(ctx, l.idle)
		spent := exactTime(p.PID()) - before
		began = time.Now()
		if err = errors.Join(err, drain(ctx, p)); err != nil {
			p.Kill()
			return rows, err
		}
		stop := time.Since(began).Seconds()
		for _, r := range []result{
			{Target: 17, Name: "ready", Unit: "s", Value: ready, Want: 1},
			{Target: 17, Name: "stop", Unit: "s", Value: stop, Want: 1},
			{Target: 18, Name: "idle", Unit: "% of a processor", Value: 100 * spent.Seconds() / l.idle.Seconds(), Want: tc.want},
		} {
			r.What, r.AtMost = fmt.Sprintf("standalone over the embedded broker, %d shards: %s", tc.shards, r.Name), true
			r.judge()
			rows = append(rows, r)
		}
	}
	return rows, nil
}
