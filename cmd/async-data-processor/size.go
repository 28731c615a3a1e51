package main

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// size is a number of bytes, as people write it: 67108864, 64MiB, 64 MB, 1.5g.
type size int64

var errSize = errors.New("want a number of bytes, for example 67108864, 64MiB or 64MB")

func (s *size) Set(text string) error {
	// Tried first, so that what is below a setting's bounds is refused with those.
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		*s = size(n)
		return nil
	}
	// Commas would be dropped, those that stand for a point, too.
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 || strings.Contains(text, ",") {
		return errSize
	}
	*s = size(n)
	return nil
}

// String loses nothing: its unit is the largest that divides the size.
func (s *size) String() string {
	n, unit := int64(*s), ""
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, next
	}
	return strconv.FormatInt(n, 10) + unit
}

func (s *size) Type() string { return "size" }

// sizeVar is like the methods of a FlagSet.
func sizeVar(flags *pflag.FlagSet, p *int64, name string, value int64, usage string) {
	*p = value
	flags.Var((*size)(p), name, usage)
}
