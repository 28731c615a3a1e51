package main

import (
	"math"
	"testing"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "-1": -1, "67108864": 64 << 20, "9223372036854775807": math.MaxInt64,
		"64MiB": 64 << 20, "64mib": 64 << 20, "64 MiB": 64 << 20, "64Mi": 64 << 20,
		"64MB": 64e6, "10MB": 10e6, "10 m": 10e6, "1.5GiB": 3 << 29, "4096B": 4096, "0GB": 0,
		"9007199254740993B": 1<<53 + 1,
	} {
		var s size
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("Set(%q) gave %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "many", "64 MiB more", "-1MiB", "1e3", "8EiB", "1MiB1", "1,5GiB", "1,024", "∞"} {
		s := size(7)
		if err := s.Set(text); err == nil || s != 7 {
			t.Errorf("Set(%q) gave %d, %v, want a refusal", text, s, err)
		}
	}
}

// TestSizeString: what is printed is read back as it was.
func TestSizeString(t *testing.T) {
	for n, want := range map[size]string{
		0: "0", 1: "1", -1: "-1", 1000: "1000", 1023: "1023", 1024: "1KiB", 1025: "1025", 64e6: "62500KiB",
		64 << 20: "64MiB", 1536 << 20: "1536MiB", 5 << 40: "5TiB", 7 << 60: "7EiB", math.MaxInt64: "9223372036854775807",
	} {
		if got := n.String(); got != want {
			t.Errorf("%d is %q, want %q", int64(n), got, want)
		}
		var back size
		if err := back.Set(n.String()); err != nil || back != n {
			t.Errorf("%q is read back as %d, %v", n.String(), back, err)
		}
	}
}
