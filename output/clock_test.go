package output

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestClockJumps: whatever the clock does, while a process writes and while none does,
// the next process knows what was written last. A crash leaves a rolling file.
func TestClockJumps(t *testing.T) { eachRoll(t, testClockJumps) }

func testClockJumps(t *testing.T, r Roll) {
	const day, decade = 24 * time.Hour, 10 * 365 * 24 * time.Hour
	begun := time.Now()
	epoch := time.Until(time.Unix(0, 0))
	for name, jumps := range map[string][]time.Duration{
		"ahead":                {0, day},
		"back":                 {0, -day},
		"ahead and set back":   {day, 0, 0, 0, 0, 0, 0, 0},
		"years ahead and back": {decade, 0, 0, 0, 0, 0, 0, 0},
		"from 1970":            {epoch, 0, day, epoch, 0},
		"to and fro":           {0, day, -day, 2 * day, epoch, decade, 0, -decade, day},
	} {
		t.Run(name, func(t *testing.T) {
			path := memoryDir(t)
			now := begun
			window := Window{IDs: 20, Unsettled: 20, Age: time.Hour}
			var s *Shard
			start := func() {
				t.Helper()
				d := openTestDir(t, path) // of another process
				d.window, d.roll, d.now = window, r, func() time.Time { return now }
				s = takeShard(t, d)
			}
			kill := func() { must(t, s.dir.unlock()) }
			var lines []string
			check := func() {
				t.Helper()
				known := lines[max(0, len(lines)-window.Unsettled):]
				write(t, s, 0, known...)
			}
			start()
			for i, jump := range jumps {
				for n := range 8 {
					if n == 6 { // the last two batches are fewer than what must be known
						now = begun.Add(jump + time.Duration(i)*time.Minute)
					}
					fresh := numbered(fmt.Sprintf("01JD8Y6G5V3X9Q2R7T4B1C%02d%02d", i, n), 5)
					write(t, s, len(fresh), fresh...)
					lines = append(lines, fresh...)
					check()
				}
				kill()
				start()
				check()
				kill()
				now = now.Add(time.Duration(i%3-1) * 2 * day)
				start()
				check()
			}
			must(t, s.Close())
			checkOnce(t, path, lines...)
			checkOrder(t, path, lines)
		})
	}
}

// checkOrder fails unless the names of the files sort as the lines were written.
func checkOrder(t *testing.T, path string, lines []string) {
	t.Helper()
	visible, _ := folderNames(t, path)
	var written []string
	for _, name := range visible { // of one worker, so they are sorted
		written = append(written, linesOf(t, path+"/shard-0/"+name)...)
	}
	if !slices.Equal(written, lines) {
		t.Error("the names of the files are not in the order of writing")
	}
}

// TestNamesFarAhead: a file whose name is of a time that no clock of ours had is foreign.
// The names of a process begin at its clock, and its files are known to the next one.
func TestNamesFarAhead(t *testing.T) { eachRoll(t, testNamesFarAhead) }

func testNamesFarAhead(t *testing.T, r Roll) {
	latest := time.UnixMilli(1<<48 - 1) // of a ULID
	now := time.Now()
	for what, tt := range map[string]struct {
		now, at time.Time
		foreign int
	}{
		"the last of a ULID":              {now, latest, 1},
		"the last of the year 9999":       {now, latestName.Add(-time.Millisecond), 1},
		"a thousand years and a day":      {now, now.AddDate(farAhead, 0, 1), 1},
		"a thousand years less a day":     {now, now.AddDate(farAhead, 0, -1), 0},
		"a decade":                        {now, now.AddDate(10, 0, 0), 0},
		"of today in 1970":                {time.Unix(0, 0), now, 0},
		"the last of a ULID in 9990":      {latestName.AddDate(-10, 0, 0), latest, 1},
		"the last of 9999 in a long past": {time.Unix(0, 0), latestName.Add(-time.Millisecond), 1},
	} {
		t.Run(what, func(t *testing.T) {
			path := memoryDir(t)
			old, lines := numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5D", 1), numbered("01JD8Y6G5V3X9Q2R7T4B1C0D5E", 20)
			name := nameAt(tt.at, 1)
			fill(t, path, map[string]string{name: string(content(old))})
			start := func() *Shard {
				d := openTestDir(t, path) // of another process
				d.roll, d.now = r, func() time.Time { return tt.now }
				return takeShard(t, d)
			}
			for i := 0; i < len(lines); i += 5 {
				s := start()
				got := s.Rebuilt()
				if got.Foreign != tt.foreign || tt.foreign > 0 && got.Example != name {
					t.Errorf("rebuilt %+v, want %d foreign", got, tt.foreign)
				}
				write(t, s, 5, lines[:i+5]...)
				for range 3 {
					if stem := s.dir.newStem(worker); ParseName(visibleName(stem)) != Visible || stem < strings.TrimSuffix(name, visibleSuffix) && tt.foreign == 0 {
						t.Errorf("the next stem is %s", stem)
					}
				}
				must(t, s.dir.unlock()) // as a kill does
			}
			s := start()
			write(t, s, 0, lines...)
			must(t, s.Close())
			checkOnce(t, path, append(lines, old...)...)
			if _, other := folderNames(t, path); len(other) > 0 {
				t.Errorf("left over: %q", other)
			}
		})
	}
}
