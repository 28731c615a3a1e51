package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"async-data-processor/shard"
)

// Tree is what is in the output folder.
type Tree struct {
	Files []File
	Lines map[string][]string // by message id
}

// File is a visible file.
type File struct {
	Name, Worker string
	Lines        int
}

var visible = regexp.MustCompile(`^shard-(\d+)/((\d+)-\d+)_[0-9A-Z]{26}\.ndjson$`)

// ReadTree reads an output folder and checks what must hold of it at any
// time: every visible file is complete, has 1 to batchSize lines (any number if
// that is 0), is named after a worker of its shard, and holds that shard's
// messages only.
func ReadTree(t testing.TB, dir string, shards, batchSize int) Tree {
	t.Helper()
	out := Tree{Lines: make(map[string][]string)}
	walk(t, dir, shards, batchSize, func(File) bool { return true }, func(f File, id string, line []byte) {
		if n := len(out.Files); n == 0 || out.Files[n-1].Name != f.Name {
			out.Files = append(out.Files, f)
		}
		out.Lines[id] = append(out.Lines[id], string(line))
	})
	return out
}

// walk is ReadTree of the wanted files, line by line. A file that wanted gets
// has no number of lines yet.
func walk(t testing.TB, dir string, shards, batchSize int, wanted func(File) bool, take func(f File, id string, line []byte)) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "shard-*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		name, _ := filepath.Rel(dir, path)
		if strings.HasPrefix(filepath.Base(name), ".") {
			continue // locks and temporary files
		}
		match := visible.FindStringSubmatch(name)
		if match == nil || match[1] != match[3] {
			t.Errorf("%s is not named as a file of a worker of its shard", name)
			continue
		}
		f := File{Name: name, Worker: match[2]}
		if !wanted(f) {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasSuffix(content, []byte("\n")) {
			t.Errorf("%s does not end in a newline", name)
		}
		lines := bytes.Split(bytes.TrimSuffix(content, []byte("\n")), []byte("\n"))
		if f.Lines = len(lines); batchSize > 0 && f.Lines > batchSize {
			t.Errorf("%s has %d lines, more than a batch", name, f.Lines)
		}
		for _, line := range lines {
			var m struct {
				ID        string    `json:"message_id"`
				Timestamp time.Time `json:"timestamp"`
			}
			if err := json.Unmarshal(line, &m); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if own := fmt.Sprint(shard.Of(m.Timestamp, shards)); own != match[1] {
				t.Errorf("%s holds %s of shard %s", name, m.ID, own)
			}
			take(f, m.ID, line)
		}
	}
}

// Missing returns how many of the ids are in no file, and one of them.
func (tr Tree) Missing(ids []string) (n int, example string) {
	for _, id := range ids {
		if len(tr.Lines[id]) == 0 {
			n, example = n+1, id
		}
	}
	return n, example
}

// Twice returns how many ids are in files more than once, and one of them.
func (tr Tree) Twice() (n int, example string) {
	for id, lines := range tr.Lines {
		if len(lines) > 1 {
			n, example = n+1, id
		}
	}
	return n, example
}

// Temporary returns the files that are not, or not yet, visible.
func Temporary(t testing.TB, dir string) (found []string) {
	t.Helper()
	for _, kind := range []string{".*.tmp", ".*.rolling"} {
		names, err := filepath.Glob(filepath.Join(dir, "shard-*", kind))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	return found
}
