package verify

import (
	"cmp"
	"slices"
	"strings"
)

// Class is what a finding is about.
type Class string

// What is wrong.
const (
	// Duplicate: an id is in more than one line.
	Duplicate Class = "duplicate"
	// Torn: a visible file is empty, has no final newline, or holds a line that
	// Rules.ParseLine refuses.
	Torn Class = "torn"
	// Foreign: a name that the program does not give, or not in this place.
	Foreign Class = "foreign"
	// Misplaced: a message is in the folder of another shard than its own.
	Misplaced Class = "misplaced"
	// Oversized: a file has more lines than a batch.
	Oversized Class = "oversized"
	// Leftover: a temporary or rolling file that no process is writing. The messages
	// of a rolling one are not visible yet.
	Leftover Class = "leftover"
	// Unreadable: a file or folder could not be read, or not to its end.
	Unreadable Class = "unreadable"
)

// These are no faults, or not for certain.
const (
	// Gap, a warning: a message of a submission is missing, while another one is
	// there. It may still be queued, be a dead letter, or have been moved away with its
	// file. Of a submission whose id tells no count, only what is below its highest
	// index is missed.
	Gap Class = "gap"
	// InProgress: a temporary or rolling file that is being written.
	InProgress Class = "in-progress"
	// Vanished: a file or folder was moved away after it was listed.
	Vanished Class = "vanished"
	// Skipped: a folder beside the shards', which is not looked at; an embedded
	// broker's store may be one.
	Skipped Class = "skipped"
)

// Faults make a folder wrong, Notes do not; each in the order of a report.
var (
	Faults = []Class{Duplicate, Torn, Foreign, Misplaced, Oversized, Leftover, Unreadable}
	Notes  = []Class{Gap, InProgress, Vanished, Skipped}
)

// MaxListed is how many findings of a class are listed; all are counted.
const MaxListed = 20

// Report is the judgement. Everything in it is in a fixed order.
type Report struct {
	Dir string `json:"dir"`
	// OK: nothing is wrong. There may be notes, gaps among them.
	OK     bool    `json:"ok"`
	Shards []Shard `json:"shards"`
	Total  Counts  `json:"total"`
	// Submissions counts those that have a message with an id of ours, Missing the
	// messages in their gaps.
	Submissions int64 `json:"submissions"`
	Missing     int64 `json:"missing"`
	// Findings are the first of each class, by path or id.
	Findings []Finding `json:"findings"`
}

// Shard is what was found in one shard's folder.
type Shard struct {
	Shard int `json:"shard"`
	Counts
}

// Counts add up: the total is that of the shards, of what belongs to none, and
// of the gaps, since a submission's messages are spread over the shards.
type Counts struct {
	// Files are the visible files, whatever is in them, Lines theirs.
	Files int64 `json:"files"`
	Lines int64 `json:"lines"`
	Bytes int64 `json:"bytes"`
	// Full and Incomplete are the files of as many lines as a batch, and of
	// fewer. Both are 0 if the size of a batch is not checked.
	Full       int64 `json:"full_batches"`
	Incomplete int64 `json:"incomplete_batches"`

	// Duplicates are the lines with an id that another line had before, in
	// the order of the shards.
	Duplicates int64 `json:"duplicates"`
	Torn       int64 `json:"torn"`       // files
	Foreign    int64 `json:"foreign"`    // names
	Misplaced  int64 `json:"misplaced"`  // messages
	Oversized  int64 `json:"oversized"`  // files
	Leftover   int64 `json:"leftover"`   // temporary and rolling files
	Unreadable int64 `json:"unreadable"` // files and folders
	Gaps       int64 `json:"gaps"`       // submissions
	InProgress int64 `json:"in_progress"`
	Vanished   int64 `json:"vanished"`
	Skipped    int64 `json:"skipped"`
}

// Finding is one thing that is wrong, or a note.
type Finding struct {
	Class Class `json:"class"`
	// File is the path in the output folder, Line counts from 1; a finding
	// about a whole file has no line, one about an id no file.
	File string `json:"file,omitempty"`
	Line int64  `json:"line,omitempty"`
	// ID is a message's, or a submission's for Gap.
	ID string `json:"id,omitempty"`
	// Files hold the lines of a duplicate, a file for each.
	Files  []string `json:"files,omitempty"`
	Detail string   `json:"detail"`
}

// Of returns the count of a class.
func (c *Counts) Of(class Class) int64 { return *c.of(class) }

func (c *Counts) of(class Class) *int64 {
	switch class {
	case Duplicate:
		return &c.Duplicates
	case Torn:
		return &c.Torn
	case Foreign:
		return &c.Foreign
	case Misplaced:
		return &c.Misplaced
	case Oversized:
		return &c.Oversized
	case Leftover:
		return &c.Leftover
	case Unreadable:
		return &c.Unreadable
	case Gap:
		return &c.Gaps
	case InProgress:
		return &c.InProgress
	case Vanished:
		return &c.Vanished
	default:
		return &c.Skipped
	}
}

func (c *Counts) add(o *Counts) {
	c.Files += o.Files
	c.Lines += o.Lines
	c.Bytes += o.Bytes
	c.Full += o.Full
	c.Incomplete += o.Incomplete
	for _, class := range slices.Concat(Faults, Notes) {
		*c.of(class) += *o.of(class)
	}
}

// none stands for the output folder itself among the shards.
const none = -1

// tally gathers a report. It belongs to one goroutine; several tallies merge.
type tally struct {
	shards               map[int]*Counts
	listed               map[Class][]Finding // sorted, MaxListed at most
	submissions, missing int64
}

func newTally() *tally {
	return &tally{shards: make(map[int]*Counts), listed: make(map[Class][]Finding)}
}

// of returns the counts of a shard, or of what is in none.
func (t *tally) of(shard int) *Counts {
	c := t.shards[shard]
	if c == nil {
		c = new(Counts)
		t.shards[shard] = c
	}
	return c
}

// found counts a finding and lists it if it is among the first of its class.
func (t *tally) found(shard int, f Finding) {
	*t.of(shard).of(f.Class)++
	t.list(f)
}

func (t *tally) list(f Finding) {
	have := t.listed[f.Class]
	at, _ := slices.BinarySearchFunc(have, f, compareFindings)
	if at == MaxListed {
		return
	}
	if len(have) == MaxListed {
		have = have[:MaxListed-1]
	}
	t.listed[f.Class] = slices.Insert(have, at, f)
}

func compareFindings(a, b Finding) int {
	return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.ID, b.ID))
}

func (t *tally) merge(o *tally) {
	for shard, c := range o.shards {
		t.of(shard).add(c)
	}
	for _, findings := range o.listed {
		for _, f := range findings {
			t.list(f)
		}
	}
}

func (t *tally) report() *Report {
	r := &Report{
		OK: true, Submissions: t.submissions, Missing: t.missing,
		Shards: []Shard{}, Findings: []Finding{}, // not null in JSON
	}
	for n, c := range t.shards {
		r.Total.add(c)
		if n != none {
			r.Shards = append(r.Shards, Shard{n, *c})
		}
	}
	slices.SortFunc(r.Shards, func(a, b Shard) int { return cmp.Compare(a.Shard, b.Shard) })
	for _, class := range Faults {
		r.OK = r.OK && r.Total.Of(class) == 0
	}
	for _, class := range slices.Concat(Faults, Notes) {
		r.Findings = append(r.Findings, t.listed[class]...)
	}
	return r
}
