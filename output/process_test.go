package output

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKilledUnderLoad kills a writing process again and again; what it was told
// to be durable is there, and what is visible is complete.
func TestKilledUnderLoad(t *testing.T) { eachWay(t, killUnderLoad) }

// eachWay runs the test of a child that makes a file of each batch, or appends.
func eachWay(t *testing.T, test func(t *testing.T, how string)) {
	for _, how := range []string{"write", "append"} {
		t.Run(how, func(t *testing.T) { test(t, how) })
	}
}

func killUnderLoad(t *testing.T, how string) {
	path := t.TempDir()
	promised := map[string]string{} // id to the name of its file
	for round := range 3 {
		child, kill := startChild(t, how, path)
		for range 10 * (round + 1) {
			if !child.Scan() {
				t.Fatal("the child is gone")
			}
			name, id, _ := strings.Cut(child.Text(), " ")
			promised[id] = name
		}
		kill()
	}
	openShard(t, path)
	for id, name := range promised {
		got, err := os.ReadFile(filepath.Join(path, name))
		want := content(numbered(id, 5))
		if how == "append" && bytes.Count(got, want) == 1 {
			got = want
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
	}
	visible, other := folderNames(t, path)
	if len(other) > 0 {
		t.Errorf("left over: %q", other)
	}
	for _, name := range visible {
		got, err := os.ReadFile(filepath.Join(path, "shard-0", name))
		must(t, err)
		if how == "write" && bytes.Count(got, []byte("\n")) != 5 || !bytes.HasSuffix(got, []byte("\n")) {
			t.Errorf("%s is not complete: %q", name, got)
		}
	}
}

// openForbidden returns the error of Open for a user that the mode of the
// folders stops, unlike root.
func openForbidden(t *testing.T, path string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		d, err := Open(path, testWindow, Roll{})
		if err == nil {
			d.Close()
			return "<nil>"
		}
		return err.Error()
	}
	out, err := childCommand(t, "stranger", path).Output()
	must(t, err)
	return string(out)
}
