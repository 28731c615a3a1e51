package live

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// maxSubmission bounds the id of a submission in a filter, in bytes.
const maxSubmission = 64

// filter is a Filter that can be asked. It is read-only after compile.
type filter struct {
	Filter
	key      string // the same of filters that are the same
	contains []byte
	where    *pointers // the places that Where names; nil for none
}

// compile returns the filter with its defaults, or why it cannot be used; ErrQuery is in
// the error's chain. What another process has told is within the bounds then.
func (f Filter) compile() (*filter, error) {
	refuse := func(format string, args ...any) (*filter, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrQuery}, args...)...)
	}
	f.Stage, f.Payload = cmp.Or(f.Stage, StageWritten), cmp.Or(f.Payload, PayloadFull)
	switch {
	case stageIndex(f.Stage) < 0:
		return refuse("stage is %.20q, want written, dead or accepted", f.Stage)
	case f.Payload != PayloadFull && f.Payload != PayloadHead && f.Payload != PayloadNone:
		return refuse("payload is %.20q, want full, head or none", f.Payload)
	case len(f.Shards) > MaxQueryShards:
		return refuse("shard has %d numbers, want at most %d", len(f.Shards), MaxQueryShards)
	case len(f.Submission) > maxSubmission:
		return refuse("submission has %d bytes, want the id of a submission", len(f.Submission))
	case len(f.Contains) > MaxContains:
		return refuse("contains has %d bytes, want at most %d", len(f.Contains), MaxContains)
	case len(f.Where) > MaxWhere:
		return refuse("where is there %d times, want at most %d", len(f.Where), MaxWhere)
	}
	f.Shards = slices.Compact(slices.Sorted(slices.Values(f.Shards)))
	if len(f.Shards) > 0 && (f.Shards[0] < 0 || f.Shards[len(f.Shards)-1] >= maxShards) {
		return refuse("shard: want numbers from 0 to %d", maxShards-1)
	}
	c := &filter{Filter: f, contains: []byte(f.Contains)}
	var places []string
	for _, w := range f.Where {
		if len(w.Pointer)+len(w.Value) > MaxWhereBytes {
			return refuse("where has %d bytes, want at most %d", len(w.Pointer)+len(w.Value), MaxWhereBytes)
		}
		places = append(places, w.Pointer)
	}
	if len(places) > 0 {
		var err error
		if c.where, err = parsePointers(places); err != nil {
			return refuse("where: %w", err)
		}
	}
	text, err := json.Marshal(c.Filter)
	if err != nil {
		return nil, err // it has nothing that can fail
	}
	sum := sha256.Sum256(text)
	c.key = hex.EncodeToString(sum[:16])
	return c, nil
}

// stageIndex is the stage's place in arrays of stages; -1 if it is none.
func stageIndex(s Stage) int { return slices.Index(stages[:], s) }

var stages = [...]Stage{StageWritten, StageDead, StageAccepted}

// hidden is the filter that shows nothing of entries.
func (f *filter) hidden() (*filter, error) {
	g := f.Filter
	g.Payload = PayloadNone
	return g.compile()
}

// reads tells whether the filter looks into entries.
func (f *filter) reads() bool { return len(f.contains) > 0 || f.where != nil }

// wants tells whether messages of the shard can match.
func (f *filter) wants(shard int) bool { return len(f.Shards) == 0 || slices.Contains(f.Shards, shard) }

var dot = []byte(".")

// matches tells whether the message of the shard does. text returns its line, masked;
// it is called only if the filter looks into it.
func (f *filter) matches(shard int, id []byte, text func() []byte) bool {
	if !f.wants(shard) {
		return false
	}
	if f.Submission != "" {
		if submission, _, _ := bytes.Cut(id, dot); string(submission) != f.Submission {
			return false
		}
	}
	if !f.reads() {
		return true
	}
	line := text()
	return bytes.Contains(line, f.contains) && (f.where == nil || f.whereMatches(line))
}

func (f *filter) whereMatches(line []byte) bool {
	var met [MaxWhere]bool
	err := f.where.find(line, func(place, from, to int) {
		if text, ok := scalar(line[from:to]); ok && string(text) == f.Where[place].Value {
			met[place] = true
		}
	})
	return err == nil && !slices.Contains(met[:len(f.Where)], false)
}
