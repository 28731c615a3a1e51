package pipeline

import (
	"errors"
	"fmt"
	"syscall"

	"async-data-processor/message"
	"async-data-processor/server"
)

// arrival is the one value of Config.TimestampDefault but for none.
const arrival = "arrival"

// Rules are what the settings say of entries. The error names its setting.
func (c Config) Rules() (*message.Rules, error) {
	if c.TimestampDefault != "" && c.TimestampDefault != arrival {
		return nil, fmt.Errorf("--timestamp-default is %q, want %q or nothing", c.TimestampDefault, arrival)
	}
	r, err := message.NewRules(c.TimestampField, c.TimestampDefault == arrival, c.AnyValue)
	if err != nil {
		return nil, fmt.Errorf("--timestamp-field is %q: %w", c.TimestampField, err)
	}
	return r, nil
}

// checkIntake is Validate for what a client may send, and how much of it.
func (c Config) checkIntake() error {
	_, err := c.Rules()
	errs := []error{err}
	if c.MaxInFlightPerClient != 0 && (c.MaxInFlightPerClient < server.MinInFlight || c.MaxInFlightPerClient > c.MaxInFlight) {
		errs = append(errs, fmt.Errorf("--max-in-flight-per-client is %d, want 0, or %d to --max-in-flight-bytes", c.MaxInFlightPerClient, server.MinInFlight))
	}
	if c.MaxConnections < 0 || c.MaxConnections > MaxConnections {
		errs = append(errs, fmt.Errorf("--max-connections is %d, want 0 to %d", c.MaxConnections, MaxConnections))
	}
	if c.IdleTimeout <= 0 {
		errs = append(errs, fmt.Errorf("--idle-timeout is %v, want more than 0", c.IdleTimeout))
	}
	return errors.Join(errs...)
}

const (
	// someFiles is how many files a process needs beside those of its shards: its
	// listeners, the broker, the log.
	someFiles = 64
	// someOfShard is how many a shard needs beside one for each worker: its folder,
	// once more for the fsync and for looks at its files, its lock, its rolling file, and
	// one that is read.
	someOfShard = 6
	// defaultConnections is how many connections there are at most unless set. An idle
	// one takes about 10 KB of memory.
	defaultConnections = 16_384
	// adminConnections is enough for probes and people.
	adminConnections = 128
)

// connections is how many connections the server may have, in a process that writes
// files or not.
func (c Config) connections(writes bool) int {
	if c.MaxConnections > 0 {
		return c.MaxConnections
	}
	var files syscall.Rlimit // the soft limit, which Go raises to the hard one at its start
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
		return defaultConnections
	}
	reserve := someFiles
	if writes {
		reserve += c.Shards * (someOfShard + c.WorkersMax)
	}
	limit := int(min(files.Cur, MaxConnections))
	// A quarter, if the limit is too low for what is reserved: then all of it is scarce.
	return min(max(limit-reserve, limit/4, 2), defaultConnections)
}
