package rig

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"async-data-processor/output/verify"
)

// Checker holds an output folder against a load: with T the entries that were
// sent, A those answered with 201 and F those in visible files,
//
//   - A ⊆ F: nothing accepted is lost;
//   - no entry is in F twice, whatever its outcome was: nothing is written twice;
//   - F ⊆ T, and every line is what was sent plus its id: nothing is invented,
//     nothing altered;
//   - every file is complete, of 1 to a batch's lines, unless it rolled, and in
//     its shard's folder, and no temporary file is left.
//
// That the queues and the dead letters are empty is for Broker.Depth to say. The
// checker's memory is a few bits for an entry and a name for a file.
type Checker struct {
	t         testing.TB
	dir       string
	shards    int
	batchSize int
	load      *Load

	read  map[string]bool // files; they never change, so once is enough
	found map[int]*found  // by submission
	lines int
	Twice int // entries that are in files more than once
}

// found is what of a submission is in files.
type found struct {
	id     string
	places []bool
	count  int
}

// NewChecker returns a checker of the folder that a load ends up in, in files of
// at most batchSize lines, or of any number if that is 0.
func NewChecker(t testing.TB, dir string, shards, batchSize int, load *Load) *Checker {
	return &Checker{t: t, dir: dir, shards: shards, batchSize: batchSize, load: load, read: map[string]bool{}, found: map[int]*found{}}
}

// Lost reads the files that are new, and returns how many accepted entries are
// in none yet, and one of them.
func (c *Checker) Lost() (n int, example string) {
	c.t.Helper()
	walk(c.t, c.dir, c.shards, c.batchSize, func(f File) bool {
		known := c.read[f.Name]
		c.read[f.Name] = true
		return !known
	}, func(f File, id string, line []byte) { c.line(f.Name, id, line) })

	c.load.mu.Lock()
	defer c.load.mu.Unlock()
	for submission, id := range c.load.ids {
		if id == "" {
			continue
		}
		of := c.found[submission]
		switch {
		case of == nil:
			n, example = n+c.load.size(submission), fmt.Sprintf("all of %s", id)
		case of.id != id:
			n, example = n+c.load.size(submission), fmt.Sprintf("all of %s, which is there as %s", id, of.id)
		case of.count < len(of.places):
			for place, there := range of.places {
				if !there {
					n, example = n+1, fmt.Sprintf("%s.%d", id, place)
				}
			}
		}
	}
	return n, example
}

// Await waits until nothing accepted is missing in the files. Its patience is
// for the next file, not for all. It tells each, which may be nil, how many are
// missing whenever it has looked.
func (c *Checker) Await(each func(missing int)) {
	c.t.Helper()
	progress := time.Now()
	for read := -1; ; {
		lost, example := c.Lost()
		if each != nil {
			each(lost)
		}
		if lost == 0 {
			return
		}
		if len(c.read) > read {
			read, progress = len(c.read), time.Now()
		}
		if time.Since(progress) > Patience {
			c.t.Fatalf("%d of %d accepted entries are in no file, one is %s", lost, c.load.Accepted(), example)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// line takes a line of a visible file.
func (c *Checker) line(file, messageID string, line []byte) {
	c.lines++
	id, submission, place, err := parseLine(line)
	if err != nil {
		c.t.Errorf("%s: %v", file, err)
		return
	}
	c.load.mu.Lock()
	sent := submission >= 0 && submission < len(c.load.ids)
	c.load.mu.Unlock()
	if !sent || place < 0 || place >= c.load.size(submission) {
		c.t.Errorf("%s: it was never sent: %s", file, line)
		return
	}
	if want := appendLine(nil, id, submission, place); !bytes.Equal(line, want) || messageID != fmt.Sprintf("%s.%d", id, place) {
		c.t.Errorf("%s holds\n%s, want\n%s", file, line, want)
	}
	of := c.found[submission]
	if of == nil {
		of = &found{id: id, places: make([]bool, c.load.size(submission))}
		c.found[submission] = of
	}
	if of.id != id {
		c.t.Errorf("%s: submission %d has the ids %s and %s", file, submission, of.id, id)
	}
	if of.places[place] {
		c.Twice++
		c.t.Errorf("%s: %s is in another line, too", file, messageID)
		return
	}
	of.places[place] = true
	of.count++
}

// Final judges the folder once more, now that no process writes to it. What the
// command verify says of it must agree.
func (c *Checker) Final() {
	c.t.Helper()
	if lost, example := c.Lost(); lost > 0 {
		c.t.Errorf("%d accepted entries are lost, one is %s", lost, example)
	}
	if left := Temporary(c.t, c.dir); len(left) > 0 {
		c.t.Errorf("temporary files are left: %v", left)
	}
	report, err := verify.Run(c.t.Context(), c.dir, verify.Options{Shards: c.shards, BatchSize: c.batchSize, TempDir: c.t.TempDir()})
	if err != nil {
		c.t.Fatal(err)
	}
	if !report.OK {
		c.t.Errorf("verify: %+v", report.Findings)
	}
	// Of a submission that was not accepted a part may be there, of others all is.
	accepted := make(map[string]bool)
	c.load.mu.Lock()
	for _, id := range c.load.ids {
		accepted[id] = true
	}
	c.load.mu.Unlock()
	for _, f := range report.Findings {
		if f.Class == verify.Gap && accepted[f.ID] {
			c.t.Errorf("verify misses messages of an accepted submission: %+v", f)
		}
	}
	if int(report.Total.Lines) != c.lines || int(report.Total.Files) != len(c.read) {
		c.t.Errorf("verify sees %d lines in %d files, there were %d in %d", report.Total.Lines, report.Total.Files, c.lines, len(c.read))
	}
}
