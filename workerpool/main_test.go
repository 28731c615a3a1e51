package workerpool_test

import (
	"flag"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"
)

// seed repeats a failed run of the random tests, which report theirs.
var seed = flag.Uint64("seed", rand.Uint64(), "seed of the random tests")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
