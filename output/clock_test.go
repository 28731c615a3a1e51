package output

import (
	"fmt"
	"slices"
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
