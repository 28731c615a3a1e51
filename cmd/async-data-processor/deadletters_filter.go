package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"async-data-processor/pipeline"
)

// lettersFilter is the flags that say which dead letters are meant.
type lettersFilter struct {
	reason, shard, foreign, contains, before string
	pipeline.DeadLetterFilter
}

func (f *lettersFilter) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.reason, "reason", "", "only those with exactly this reason")
	flags.StringVar(&f.shard, "shard", "", "only those from the shard of this number; -1: those whose shard is not known")
	flags.StringVar(&f.foreign, "foreign", "", "true: only those of other programs; false: only ours")
	flags.StringVar(&f.contains, "contains", "", "only those whose body has this text")
	flags.StringVar(&f.before, "before", "", "only those that became dead letters before this time (RFC 3339), or so long ago (24h)")
}

// parse reads the flags. Its error is one of usage.
func (f *lettersFilter) parse(cmd *cobra.Command, now time.Time) error {
	f.DeadLetterFilter = pipeline.DeadLetterFilter{Reason: f.reason, Contains: f.contains}
	var errs []error
	if f.shard != "" {
		n, err := strconv.Atoi(f.shard)
		if err != nil {
			errs = append(errs, fmt.Errorf("--shard is %q, want a number", f.shard))
		}
		f.Shard = &n
	}
	if f.foreign != "" {
		is, err := strconv.ParseBool(f.foreign)
		if err != nil {
			errs = append(errs, fmt.Errorf("--foreign is %q, want true or false", f.foreign))
		}
		f.Foreign = &is
	}
	if f.before != "" {
		at, err := time.Parse(time.RFC3339, f.before)
		if ago, err2 := time.ParseDuration(f.before); err2 == nil && ago >= 0 {
			at, err = now.Add(-ago), nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--before is %q, want a time such as 2026-11-21T06:12:00Z, or a duration such as 24h", f.before))
		}
		f.Before = at
	}
	if err := f.Check(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return misused(cmd, errors.Join(errs...))
	}
	return nil
}

// meant tells whether the filter means the dead letter.
func (f *lettersFilter) meant(l pipeline.DeadLetter) bool {
	return f.Matches(&l, func() []byte { return l.Envelope.Body })
}
