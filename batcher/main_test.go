package batcher_test

import (
	"flag"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"
)

// seed repeats a failed run of the property tests, which report theirs.
var seed = flag.Uint64("seed", rand.Uint64(), "seed of the property tests")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
