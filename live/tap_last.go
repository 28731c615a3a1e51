package live

import (
	"cmp"
	"context"
	"slices"
	"time"

	"async-data-processor/broker"
)

const (
	// lastTimeout bounds how long an owner reads files for one question, and lastBytes
	// the entries of its answer.
	lastTimeout = 700 * time.Millisecond
	lastBytes   = 200 << 10
)

// FileLine is a line of a file.
type FileLine struct {
	Worker, File string
	At           time.Time // when the file was begun
	Text         []byte    // without its newline
}

// newestLine is a line that was found, encoded.
type newestLine struct {
	at    time.Time
	entry []byte
}

// answerLast answers a lastWanted, nil if this process has no files. The tap that it
// makes has what comes after the files that are read.
func (o *tapOwner) answerLast(body []byte) []byte {
	if o.cfg.Newest == nil {
		return nil
	}
	var w lastWanted
	err := broker.ReadBody(body, &w)
	if err == nil && (w.N < 1 || w.N > MaxLast) {
		err = errTapBody
	}
	var t *tap
	if err == nil {
		t, err = o.take(&w.tapInterest)
	}
	if err != nil {
		o.cfg.Skips.Add(err)
		return nil
	}
	var found []newestLine
	if t != nil && t.filter.Stage == StageWritten {
		found = o.newest(t, w.N)
	}
	answer := appendText(append(make([]byte, 0, 64+lastBytes), `{"v":1`...), `,"node":`, o.cfg.Node())
	answer = append(answer, `,"entries":[`...)
	for i, l := range found {
		if i > 0 {
			answer = append(answer, ',')
		}
		answer = append(answer, l.entry...)
	}
	return append(answer, "]}"...)
}

// newest returns the newest messages of the owned shards that match, the oldest first.
// They are in files that were begun before the tap. It reads for one question at a
// time, and returns what it has found in lastTimeout.
func (o *tapOwner) newest(t *tap, n int) (all []newestLine) {
	ctx, cancel := context.WithTimeout(context.Background(), lastTimeout)
	defer cancel()
	select {
	case o.reading <- struct{}{}:
		defer func() { <-o.reading }()
	case <-ctx.Done():
		return nil
	}
	for _, shard := range o.cfg.Owned() {
		if !t.filter.wants(shard) {
			continue
		}
		found, bytes := 0, 0
		// What cannot be read is not shown: other parts of the process tell of it.
		_ = o.cfg.Newest(ctx, shard, t.at, func(f FileLine) bool {
			l := tapLine{owner: o, of: &Passed{Shard: shard, Worker: f.Worker, File: f.File, At: f.At}, raw: f.Text}
			if t.filter.matches(shard, l.id(), l.text) {
				e := l.encode(t.filter.Payload)
				found, bytes = found+1, bytes+len(e)+1
				all = append(all, newestLine{f.At, e})
			}
			return found < n && bytes < lastBytes
		})
	}
	// Stable, since lines of a file have one time.
	slices.SortStableFunc(all, func(a, b newestLine) int { return cmp.Compare(b.at.UnixNano(), a.at.UnixNano()) })
	room := lastBytes
	for i, l := range all {
		if room -= len(l.entry) + 1; i == n || room < 0 {
			all = all[:i]
			break
		}
	}
	slices.Reverse(all)
	return all
}
