package output

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// deadline bounds what should take milliseconds.
const deadline = 30 * time.Second

func TestOtherProcessOwnsTheShard(t *testing.T) {
	path := t.TempDir()
	child, kill := startChild(t, "hold", path)
	if !child.Scan() || child.Text() != "held" {
		t.Fatalf("the child said %q", child.Text())
	}
	orphan := filepath.Join(path, "shard-0", ".0-1_01JD8Y6G5V3X9Q2R7T4B1C0D5E.tmp")
	if err := os.WriteFile(orphan, nil, 0o644); err != nil {
		t.Fatal(err)
	}

	d := openTestDir(t, path)
	d.standby = time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	// The child dies only once this process is known to wait.
	waited := 0
	s, err := d.Shard(ctx, 0, func() {
		waited++
		kill()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if waited != 1 {
		t.Errorf("onStandby was called %d times", waited)
	}
	if s.RemovedTemps() != 1 {
		t.Errorf("removed %d temporary files, want 1", s.RemovedTemps())
	}
	mustWrite(t, s, newBatch("{}"))
}

func TestStandbyProcessTakesOver(t *testing.T) {
	path := t.TempDir()
	s := openShard(t, path)
	child, _ := startChild(t, "hold", path)
	if !child.Scan() || child.Text() != "standby" {
		t.Fatalf("the child said %q", child.Text())
	}
	mustWrite(t, s, newBatch("{}"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !child.Scan() || child.Text() != "held" {
		t.Fatalf("the child said %q", child.Text())
	}
}

// TestKilledUnderLoad kills a writing process again and again; what it was told
// to be durable is there, and what is visible is complete.
func TestKilledUnderLoad(t *testing.T) {
	for _, how := range []string{"write", "append"} {
		t.Run(how, func(t *testing.T) { killUnderLoad(t, how) })
	}
}

func killUnderLoad(t *testing.T, how string) {
	path := t.TempDir()
	promised := map[string]string{} // id to the name of its file
	for round := range 5 {
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
		if err != nil {
			t.Fatal(err)
		}
		if how == "write" && bytes.Count(got, []byte("\n")) != 5 || !bytes.HasSuffix(got, []byte("\n")) {
			t.Errorf("%s is not complete: %q", name, got)
		}
	}
}

func TestFileSizeLimit(t *testing.T) {
	for _, how := range []string{"limit", "overflow"} {
		t.Run(how, func(t *testing.T) {
			path := t.TempDir()
			if err := childCommand(t, how, path).Run(); err != nil {
				t.Fatal(err)
			}
			checkFolder(t, path, content(numbered("first", 5)), content(numbered("small", 5)))
		})
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
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
