package workerpool_test

import (
	"testing"
	"time"

	"async-data-processor/workerpool"
)

func TestIdeal(t *testing.T) {
	const almost, enough = workerpool.IdleTimeout - 1, workerpool.IdleTimeout
	type load = workerpool.Load
	tests := []struct {
		name            string
		load            load
		lowest, highest int
		want            int
	}{
		{"at the start", load{}, 3, 4, 3},
		{"one lost", load{Workers: 2, Busy: 1}, 3, 4, 3},
		{"one lost under load", load{Workers: 2, Busy: 2, Waiting: true}, 3, 4, 3},
		{"at rest", load{Workers: 3, Spare: time.Hour}, 3, 4, 3},
		{"all busy, none waits", load{Workers: 3, Busy: 3}, 3, 4, 3},
		{"one waits, one is spare", load{Workers: 3, Busy: 2, Waiting: true, Spare: time.Hour}, 3, 4, 3},
		{"one waits, all busy", load{Workers: 3, Busy: 3, Waiting: true}, 3, 4, 4},
		{"at the maximum", load{Workers: 4, Busy: 4, Waiting: true}, 3, 4, 4},
		{"busy at the maximum", load{Workers: 4, Busy: 4}, 3, 4, 4},
		{"just spare", load{Workers: 4, Busy: 3}, 3, 4, 4},
		{"not spare for long enough", load{Workers: 4, Busy: 3, Spare: almost}, 3, 4, 4},
		{"spare for long enough", load{Workers: 4, Busy: 3, Spare: enough}, 3, 4, 3},
		{"all spare for long enough", load{Workers: 4, Spare: time.Hour}, 3, 4, 3},
		{"too many", load{Workers: 5, Busy: 5, Waiting: true}, 3, 4, 4},
		{"up one by one", load{Workers: 2, Busy: 2, Waiting: true}, 1, 9, 3},
		{"down one by one", load{Workers: 9, Spare: time.Hour}, 1, 9, 8},
		{"a fixed number, under load", load{Workers: 2, Busy: 2, Waiting: true}, 2, 2, 2},
		{"a fixed number, at rest", load{Workers: 2, Spare: time.Hour}, 2, 2, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := workerpool.Ideal(tt.load, tt.lowest, tt.highest); got != tt.want {
				t.Errorf("Ideal(%+v, %d, %d) = %d, want %d", tt.load, tt.lowest, tt.highest, got, tt.want)
			}
		})
	}
}

// TestIdealIsStable: following the policy while a load lasts comes to an end,
// within the bounds.
func TestIdealIsStable(t *testing.T) {
	const lowest, highest = 2, 6
	for workers := range 10 {
		for busy := range workers + 1 {
			for _, waiting := range []bool{false, true} {
				l := workerpool.Load{Workers: workers, Busy: busy, Waiting: waiting}
				if !waiting && busy < workers {
					l.Spare = time.Hour
				}
				for step := 0; ; step++ {
					ideal := workerpool.Ideal(l, lowest, highest)
					if ideal < lowest || ideal > highest {
						t.Fatalf("Ideal(%+v) = %d", l, ideal)
					}
					if ideal == l.Workers {
						break
					}
					if step > 10 {
						t.Fatalf("Ideal never settles, now at %+v", l)
					}
					l.Workers = ideal
					if l.Busy > l.Workers || waiting {
						l.Busy = l.Workers
					}
					if l.Busy == l.Workers {
						l.Spare = 0
					}
				}
			}
		}
	}
}
