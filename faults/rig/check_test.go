package rig

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"async-data-processor/shard"
)

// judged keeps the errors of a checker apart from those of its test.
type judged struct {
	testing.TB
	errors []string
}

func (j *judged) Errorf(format string, args ...any) {
	j.errors = append(j.errors, fmt.Sprintf(format, args...))
}

// folder is one as the program would leave it behind: of a submission that was
// accepted, of one with an unknown outcome, and of one never sent.
type folder struct {
	t    *testing.T
	dir  string
	load *Load
	next int
}

const accepted = "01KB0M8Q3Z9X5T7V1C2D4E6F8G"

func newFolder(t *testing.T) *folder {
	b := &folder{t: t, dir: t.TempDir(), load: &Load{cfg: LoadConfig{Size: 7}, ids: []string{accepted, ""}, accepted: 7}}
	for place := range 7 {
		b.write(accepted, 0, place)
	}
	return b
}

// write makes a file of one line.
func (b *folder) write(id string, submission, place int) (path string) {
	at := epoch.Add(time.Duration(submission*maxSubmission+place) * 250 * time.Millisecond)
	n := shard.Of(at, 5)
	b.next++
	path = filepath.Join(b.dir, fmt.Sprintf("shard-%d/%d-1_01KB0M8Q3Z9X5T7V1C2D4E6%03d.ndjson", n, n, b.next))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.put(path, append(appendLine(nil, id, submission, place), '\n'))
	return path
}

func (b *folder) put(path string, content []byte) {
	if err := os.WriteFile(path, content, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *folder) change(path, from, to string) {
	content, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.put(path, bytes.Replace(content, []byte(from), []byte(to), 1))
}

// TestChecker: what the checker is for makes it fail, and nothing else does.
func TestChecker(t *testing.T) {
	const unknown = "01KB0M8Q3Z9X5T7V1C2D4E6F8H"
	for _, c := range []struct {
		name string
		do   func(b *folder)
		want string // in an error; empty for none
	}{
		{"all there", func(*folder) {}, ""},
		{"an unknown outcome, in part", func(b *folder) { b.write(unknown, 1, 3) }, ""},
		{"a lost entry", func(b *folder) {
			b.load.ids = append(b.load.ids, accepted)
		}, "7 accepted entries are lost"},
		{"an entry twice", func(b *folder) { b.write(accepted, 0, 2) }, "is in another line, too"},
		{"an unknown one twice", func(b *folder) { b.write(unknown, 1, 2); b.write(unknown, 1, 2) }, "is in another line, too"},
		{"an unknown one with two ids", func(b *folder) { b.write(unknown, 1, 2); b.write(accepted, 1, 2) }, "has the ids"},
		{"an id that was not given", func(b *folder) {
			b.load.ids[0] = unknown
		}, "which is there as"},
		{"an invented submission", func(b *folder) { b.write(unknown, 5, 0) }, "never sent"},
		{"an invented entry", func(b *folder) { b.write(unknown, 1, 7) }, "never sent"},
		{"a changed number", func(b *folder) { b.change(b.write(unknown, 1, 0), "1.50e400", "1.5e400") }, "want"},
		{"a changed escape", func(b *folder) { b.change(b.write(unknown, 1, 0), `\/`, `/`) }, "want"},
		{"no newline", func(b *folder) { b.change(b.write(unknown, 1, 0), "\n", "") }, "newline"},
		{"half a line", func(b *folder) { b.change(b.write(unknown, 1, 0), `"n":1.50e400,`, "\n") }, "no line of an entry"},
		{"an empty file", func(b *folder) { b.put(b.write(unknown, 1, 0), nil) }, "newline"},
		{"another shard's folder", func(b *folder) {
			path := b.write(unknown, 1, 0)
			content, _ := os.ReadFile(path)
			_ = os.Remove(path)
			other := fmt.Sprint((int(path[strings.LastIndex(path, "shard-")+len("shard-")]-'0') + 1) % 5)
			b.put(filepath.Join(b.dir, "shard-"+other, other+"-1_01KB0M8Q3Z9X5T7V1C2D4E6999.ndjson"), content)
		}, "of shard"},
		{"a name of nobody", func(b *folder) { b.put(filepath.Join(filepath.Dir(b.write(unknown, 1, 0)), "x.ndjson"), []byte("x\n")) }, "not named"},
		{"more than a batch", func(b *folder) {
			content := bytes.Repeat(append(appendLine(nil, unknown, 1, 0), '\n'), 6)
			b.put(b.write(unknown, 1, 0), content)
		}, "more than a batch"},
		{"a temporary file", func(b *folder) {
			b.put(filepath.Join(filepath.Dir(b.write(unknown, 1, 0)), ".0-1_01KB0M8Q3Z9X5T7V1C2D4E6000.tmp"), nil)
		}, "temporary files are left"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newFolder(t)
			c.do(b)
			j := &judged{TB: t}
			NewChecker(j, b.dir, 5, 5, b.load).Final()
			all := strings.Join(j.errors, "\n")
			if (c.want == "") != (all == "") || !strings.Contains(all, c.want) {
				t.Errorf("the errors are %q, want one with %q", all, c.want)
			}
		})
	}
}

// TestSubmission: a line tells whose entry it is, for every number.
func TestSubmission(t *testing.T) {
	for _, submission := range []int{0, 1, 16, 12345} {
		for _, place := range []int{0, 9, maxSubmission - 1} {
			line := appendLine(nil, accepted, submission, place)
			id, s, p, err := parseLine(line)
			if err != nil || id != accepted || s != submission || p != place {
				t.Errorf("%s is %s, submission %d, place %d: %v", line, id, s, p, err)
			}
		}
	}
}
