package output

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// TestLast gives the lines of the newest files, the newest first, within its bounds.
func TestLast(t *testing.T) {
	path := t.TempDir()
	folder := filepath.Join(path, ShardName(3))
	must(t, os.Mkdir(folder, 0o755))
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	stem := func(second int) string {
		return "3-1_" + ulid.MustNew(ulid.Timestamp(start.Add(time.Duration(second)*time.Second)), nil).String()
	}
	file := func(name, content string) { must(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644)) }
	for i := range 5 {
		file(visibleName(stem(i)), fmt.Sprintf("%d.0\n%d.1\n", i, i))
	}
	file(tempName(stem(6)), "hidden\n")
	file(rollingName(stem(6)), "hidden\n")
	file("other.ndjson", "foreign\n")
	must(t, os.Mkdir(filepath.Join(folder, visibleName(stem(2)+"X")), 0o755))
	d, err := Open(path, Window{IDs: 1, Age: time.Hour}, Roll{})
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })

	last := func(second, n int) (lines []string) {
		t.Helper()
		err := d.Last(t.Context(), 3, start.Add(time.Duration(second)*time.Second), func(worker, file string, at time.Time, line []byte) bool {
			i := int(at.Sub(start) / time.Second)
			if worker != "3-1" || file != ShardName(3)+"/"+visibleName(stem(i)) {
				t.Errorf("worker %s, file %s, begun %v", worker, file, at)
			}
			lines = append(lines, string(line))
			return len(lines) < n
		})
		must(t, err)
		return lines
	}
	for _, c := range []struct {
		second, n int
		want      string
	}{
		{9, 3, "4.1 4.0 3.1"},
		{9, 99, "4.1 4.0 3.1 3.0 2.1 2.0 1.1 1.0 0.1 0.0"},
		{2, 3, "2.1 2.0 1.1"}, // what was begun later is left out
		{-1, 3, ""},
	} {
		if got := strings.Join(last(c.second, c.n), " "); got != c.want {
			t.Errorf("the last %d until second %d: %s, want %s", c.n, c.second, got, c.want)
		}
	}

	// Of a large file its end is read, from the first whole line there.
	long := strings.Repeat("x", 99) + "\n"
	file(visibleName(stem(7)), strings.Repeat(long, 2*lastFileBytes/len(long)))
	got := last(9, 1_000_000)
	n := slices.Index(got, "4.1")
	if want := lastFileBytes / len(long); n < want-1 || n > want || slices.ContainsFunc(got[:n], func(l string) bool { return len(l) != 99 }) {
		t.Errorf("%d lines of the large file", n)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	none := func(string, string, time.Time, []byte) bool { t.Error("after its context"); return false }
	if err := d.Last(ended, 3, start.Add(time.Hour), none); err == nil {
		t.Error("no error after its context")
	}
	if err := d.Last(t.Context(), 4, start, none); err == nil {
		t.Error("no error without a folder")
	}
}
