package faults

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"async-data-processor/faults/rig"
)

// row is a scenario's line of the report.
type row struct {
	fault, engine string
	cycles, kills int
	accepted      int // entries, as are lost and twice
	lost, twice   int
	tally         rig.Tally
	peak          int // resident memory of the largest process, in KiB
	took          time.Duration
	failed        bool
	notes         []string
}

// report collects the rows.
type report struct {
	mu   sync.Mutex // guards rows
	rows []row
}

var results report

func (r *report) add(row row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row)
}

// table is the report in Markdown.
func (r *report) table() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) == 0 {
		return ""
	}
	slices.SortStableFunc(r.rows, func(a, b row) int {
		return cmp.Or(strings.Compare(a.fault, b.fault), strings.Compare(a.engine, b.engine))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "\n| fault | engine | cycles | kills | accepted | lost | duplicated | 503, 429 | no answer | longest outage | slowest answer | peak memory | took |\n")
	fmt.Fprintf(&b, "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n")
	sums := make(map[string]*row)
	line := func(r row) {
		fault := r.fault
		if r.failed {
			fault += " (**failed**)"
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %d | %v | %v | %d MB | %v |\n", fault, r.engine, r.cycles, r.kills,
			r.accepted, r.lost, r.twice, r.tally.Refused, r.tally.Broken, r.tally.Outage.Round(10*time.Millisecond),
			r.tally.Slowest.Round(10*time.Millisecond), r.peak/1024, r.took.Round(time.Second))
	}
	for _, r := range r.rows {
		line(r)
		sum := sums[r.engine]
		if sum == nil {
			sum = &row{fault: "in all", engine: r.engine}
			sums[r.engine] = sum
		}
		sum.cycles += r.cycles
		sum.kills += r.kills
		sum.accepted += r.accepted
		sum.lost += r.lost
		sum.twice += r.twice
		sum.tally.Refused += r.tally.Refused
		sum.tally.Broken += r.tally.Broken
		sum.tally.Outage = max(sum.tally.Outage, r.tally.Outage)
		sum.tally.Slowest = max(sum.tally.Slowest, r.tally.Slowest)
		sum.peak = max(sum.peak, r.peak)
		sum.took += r.took
		sum.failed = sum.failed || r.failed
	}
	for _, engine := range slices.Sorted(maps.Keys(sums)) {
		line(*sums[engine])
	}
	for _, r := range r.rows {
		for _, note := range r.notes {
			fmt.Fprintf(&b, "\n%s, %s: %s", r.fault, r.engine, note)
		}
	}
	fmt.Fprintf(&b, "\n-seed %d\n", *seed)
	return b.String()
}
