package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/oklog/ulid/v2"

	"async-data-processor/message"
	"async-data-processor/shard"
)

// model is what a random tree is known to hold.
type model struct {
	tree   tree
	shards [5]Counts
	files  map[string][]string // by message id, a file for each line
	seen   map[string]bool     // indexes, as ids
	top    map[string]int      // highest index by submission
	count  map[string]int      // of messages by submission, as its id tells; 0 for none
}

// invent makes a tree of messages with known duplicates, gaps, torn and
// misplaced lines. Few bits of the ids vary, so that their order is tried, too.
func invent(rng *rand.Rand) *model {
	m := &model{tree: make(tree), files: make(map[string][]string), seen: make(map[string]bool), top: make(map[string]int), count: make(map[string]int)}
	var ids []string
	for i := range rng.IntN(40) {
		if rng.IntN(5) == 0 {
			ids = append(ids, fmt.Sprintf("foreign-%d.%d", i, rng.IntN(9)))
			continue
		}
		count := rng.IntN(40) * rng.IntN(2) // of the half that is of an older program, it is 0
		id := ulid.ULID{0: byte(rng.IntN(3)), 7: byte(rng.IntN(3)), 8: byte(i), 14: byte(rng.IntN(2)) << 7, 15: byte(count)}.String()
		if m.top[id] > 0 {
			continue
		}
		for index := range 1 + rng.IntN(30) {
			if rng.IntN(10) == 0 {
				continue
			}
			ids = append(ids, fmt.Sprintf("%s.%d", id, index))
			m.seen[ids[len(ids)-1]] = true
			m.top[id], m.count[id] = index, count
		}
	}
	for range rng.IntN(len(ids) + 1) {
		if rng.IntN(3) == 0 {
			ids = append(ids, ids[rng.IntN(len(ids))])
		}
	}
	rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for i := 0; len(ids) > 0; i++ {
		n := min(1+rng.IntN(7), len(ids))
		m.file(rng, i, ids[:n])
		ids = ids[n:]
	}
	for _, files := range m.files {
		slices.Sort(files)
		for _, f := range files[1:] { // a shard's name is one digit here
			m.shards[f[len("shard-")]-'0'].Duplicates++
		}
	}
	return m
}

// file adds a file of the messages to some shard.
func (m *model) file(rng *rand.Rand, i int, ids []string) {
	n := rng.IntN(len(m.shards))
	path, c := name(n, i), &m.shards[n]
	var content strings.Builder
	for _, id := range ids {
		instant := time.Unix(rng.Int64N(1e9), 0).UTC()
		for rng.IntN(20) > 0 && shard.Of(instant, 5) != n {
			instant = instant.Add(time.Second)
		}
		if shard.Of(instant, 5) != n {
			c.Misplaced++
		}
		fmt.Fprintf(&content, `{"message_id":"%s","timestamp":"%s"}`+"\n", id, instant.Format(time.RFC3339))
		m.files[id] = append(m.files[id], path)
		c.Lines++
	}
	size := len(ids)
	text := content.String()
	switch rng.IntN(12) {
	case 0:
		text = strings.TrimSuffix(text, "\n")
		c.Torn++
	case 1:
		text += "{}\n"
		c.Torn++
		c.Lines++
		size++
	}
	switch {
	case size == 5:
		c.Full++
	case size < 5:
		c.Incomplete++
	default:
		c.Oversized++
	}
	c.Files++
	c.Bytes += int64(len(text))
	m.tree[path] = text
}

func (m *model) fs() fstest.MapFS {
	fsys := make(fstest.MapFS)
	for path, content := range m.tree {
		fsys[path] = &fstest.MapFile{Data: []byte(content)}
	}
	return fsys
}

// missing returns the number of messages in each submission's gaps.
func (m *model) missing() map[string]int {
	missing := make(map[string]int)
	for id, top := range m.top {
		for index := range max(top, m.count[id]) {
			if !m.seen[fmt.Sprintf("%s.%d", id, index)] {
				missing[id]++
			}
		}
	}
	return missing
}

// check compares a report with the model.
func (m *model) check(t *testing.T, r *Report) {
	t.Helper()
	var total Counts
	for n, want := range m.shards {
		total.add(&want)
		i := slices.IndexFunc(r.Shards, func(s Shard) bool { return s.Shard == n })
		if i < 0 && want.Files > 0 {
			t.Errorf("no shard %d", n)
		} else if i >= 0 && r.Shards[i].Counts != want {
			t.Errorf("shard %d\n got %+v\nwant %+v", n, r.Shards[i].Counts, want)
		}
	}
	missing := m.missing()
	total.Gaps = int64(len(missing))
	if r.Total != total {
		t.Errorf("total\n got %+v\nwant %+v", r.Total, total)
	}
	sum := 0
	for n := range maps.Values(missing) {
		sum += n
	}
	submissions := make(map[string]bool)
	for id := range m.seen {
		submissions[id[:ulid.EncodedSize]] = true
	}
	if r.Missing != int64(sum) || r.Submissions != int64(len(submissions)) {
		t.Errorf("%d missing of %d submissions, want %d of %d", r.Missing, r.Submissions, sum, len(submissions))
	}

	listed := make(map[Class]int)
	for _, f := range r.Findings {
		listed[f.Class]++
		switch f.Class {
		case Duplicate:
			if !slices.Equal(f.Files, m.files[f.ID]) {
				t.Errorf("%s is listed in %q, want %q", f.ID, f.Files, m.files[f.ID])
			}
		case Gap:
			if missing[f.ID] == 0 {
				t.Errorf("%s has no gap", f.ID)
			}
		}
	}
	twice := 0
	for files := range maps.Values(m.files) {
		twice += min(len(files)-1, 1)
	}
	if want := min(twice, MaxListed); listed[Duplicate] != want {
		t.Errorf("%d duplicates listed, want %d", listed[Duplicate], want)
	}
	if want := min(len(missing), MaxListed); listed[Gap] != want {
		t.Errorf("%d gaps listed, want %d", listed[Gap], want)
	}
}

// TestModel: whatever the sizes of the runs, down to one record each, and
// however many read, the report of a random tree is the known one.
func TestModel(t *testing.T) {
	temp := t.TempDir()
	for seed := range uint64(24) {
		m := invent(rand.New(rand.NewPCG(seed, 1)))
		var first *Report
		for _, limit := range []int{1 << 16, 64, 7, 1} {
			for _, readers := range []int{1, 3} {
				v := verifierOf(t, "", Options{Shards: 5, BatchSize: 5, TempDir: temp})
				v.folder, v.runRecords, v.readers = m.fs(), limit, readers
				r := mustRun(t, v)
				m.check(t, r)
				if first == nil {
					first = r
				}
				if !reflect.DeepEqual(r, first) {
					t.Errorf("runs of %d and %d readers report\n%+v\nwant\n%+v", limit, readers, r, first)
				}
				if t.Failed() {
					t.Fatalf("seed %d, runs of %d records, %d readers", seed, limit, readers)
				}
			}
		}
	}
}

// FuzzFile: no content of a file makes a panic, and none is fine unless every
// line of it is strict.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{
		"", "\n", lines(s1, 0), lines(s1, 0, 1, 1, 7), lines(s1, 0) + "\n", strings.TrimSpace(lines(s1, 0)),
		"\xef\xbb\xbf" + lines(s1, 0), "{}\n", lines(s1, 9999, 10000), line("a.b"), lines(s1, 0) + "{",
		strings.ReplaceAll(lines(s1, 0, 1), "\n", "\r\n"),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		v := verifierOf(t, "", noLim)
		v.folder, v.runRecords = fstest.MapFS{name(0, 1): {Data: content}}, 2
		r := mustRun(t, v)

		strict := len(content) > 0 && content[len(content)-1] == '\n'
		var count, duplicates int64
		ids := make(map[string]bool)
		for l := range bytes.Lines(content) {
			count++
			m, err := message.Strict.ParseLine(bytes.TrimSuffix(l, []byte{'\n'}))
			if err != nil {
				strict = false
				continue
			}
			if ids[m.ID()] {
				duplicates++
			}
			ids[m.ID()] = true
			if r.Total.Torn == 0 && (!json.Valid(l) || !bytes.HasPrefix(l, []byte(`{"message_id":"`))) {
				t.Errorf("%q passes for a line", l)
			}
		}
		if got := r.Total.Torn == 0; got != strict {
			t.Errorf("not torn is %v, strict %v", got, strict)
		}
		if r.Total.Lines != count || r.Total.Bytes != int64(len(content)) || r.Total.Duplicates != duplicates {
			t.Errorf("got %+v, want %d lines, %d duplicates", r.Total, count, duplicates)
		}
		if r.OK != (strict && duplicates == 0) {
			t.Errorf("ok is %v: %+v", r.OK, r.Findings)
		}
	})
}
