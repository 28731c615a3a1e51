package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"async-data-processor/faults/rig"
)

var (
	long = flag.Bool("long", false, "run the campaign: hundreds of faults and a million entries, not a few of each")
	seed = flag.Uint64("seed", 0, "repeat the random choices of the run that printed it; 0 makes new ones")
	file = flag.String("report", "", "write the table to this file, too")
)

func TestMain(m *testing.M) {
	// They wait for processes more than they compute.
	if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	flag.Parse()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	fmt.Printf("-seed %d\n", *seed)
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "adp-faults")
	if err == nil {
		defer os.RemoveAll(dir)
		err = rig.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := rig.Suite{M: m}.Run()
	table := results.table()
	fmt.Print(table)
	if *file != "" {
		if err := os.WriteFile(filepath.Clean(*file), []byte(table), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// either returns how much of something a short run does, or a long one.
func either[T any](short, campaign T) T {
	if *long {
		return campaign
	}
	return short
}
