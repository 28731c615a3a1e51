package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"async-data-processor/message"
	"async-data-processor/publisher"
)

// decode compares decoding and carrying a body with reading its JSON alone.
func decode(ctx context.Context, l *lab) ([]result, error) {
	const size = 100
	body := array(size, 0)
	p := publisher.New(publisher.Config{Shards: shardCount, Timeout: patience, Broker: publisher.Func(
		func(_ context.Context, envelopes []message.Envelope, done func(int, error)) {
			for i := range envelopes {
				done(i, nil)
			}
		})})
	carry := func() error {
		s, err := message.Decode(message.NewID(), body, message.JSON)
		if err != nil {
			return err
		}
		_, err = p.Submit(ctx, s)
		s.Recycle()
		return err
	}
	row, err := l.compare(ctx, result{
		Target: 6, Name: "decode", Unit: "MB/s of a processor", Want: 0.6,
		What: fmt.Sprintf("decoding and splitting arrays of %d ÷ json.Valid", size),
	}, contender{"decode and carry", func(context.Context) (sample, error) {
		return l.throughput(len(body), carry)
	}}, contender{"json.Valid", func(context.Context) (sample, error) {
		return l.throughput(len(body), func() error {
			if !json.Valid(body) {
				return errors.New("not valid")
			}
			return nil
		})
	}})
	if err != nil {
		return nil, err
	}
	allocations := result{
		Target: 6, Name: "decode", Unit: "allocations per entry", Want: 0.1, AtMost: true,
		What: fmt.Sprintf("decoding and splitting arrays of %d", size),
	}
	if allocations.Value, err = allocationsOf(carry); err != nil {
		return nil, err
	}
	allocations.Value /= size
	allocations.judge()
	return []result{row, allocations}, nil
}

// throughput is how many MB a second of processor time does if do does so many
// bytes. The garbage collector's time counts, that of other programs does not.
func (l *lab) throughput(size int, do func() error) (sample, error) {
	const each = 20 // calls between looks at the clock
	began, spent, done := ownTime(), time.Duration(0), 0
	for ; spent < l.measure/4; spent = ownTime() - began { // steadier than what waits
		for range each {
			if err := do(); err != nil {
				return sample{}, err
			}
		}
		done += each * size
	}
	return sample{value: float64(done) / spent.Seconds() / 1e6}, nil
}

// allocationsOf is the number of allocations that do makes, goroutines
// included.
func allocationsOf(do func() error) (float64, error) {
	const runs = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		if err := do(); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / runs, nil
}
