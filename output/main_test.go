package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"async-data-processor/message"
)

func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv(childVariable)]; ok {
		if err := child(os.Getenv(childFolder)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// worker is the worker that writes in these tests.
const worker = "0-2"

// testWindow is more than any test writes.
var testWindow = Window{IDs: 10_000, Age: time.Hour}

// newBatch returns a batch of the lines.
func newBatch(lines ...string) *message.Batch {
	b := new(message.Batch)
	d := message.NewDelivery(message.Envelope{}, false, nil)
	for _, l := range lines {
		b.Add(d, message.Message{Line: []byte(l)})
	}
	return b
}

// numbered returns n different lines that start with the id.
func numbered(id string, n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf(`{"message_id":"%s.%d","timestamp":"2019-10-12T08:10:54.52Z"}`, id, i)
	}
	return lines
}

func content(lines []string) []byte {
	return []byte(strings.Join(lines, "\n") + "\n")
}

// memoryDir is a folder that takes no fsync's time, where the system has one: for
// tests that know themselves what is durable.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "output")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func openTestDir(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := Open(path, testWindow, Roll{})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

// openShard opens shard 0 of the output folder at path, free of an owner.
func openShard(t testing.TB, path string) *Shard {
	t.Helper()
	return takeShard(t, openTestDir(t, path))
}

func takeShard(t testing.TB, d *Dir) *Shard {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	s, err := d.Shard(ctx, 0, func() { cancel(errors.New("the shard has an owner already")) })
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writeFails writes and fails unless that fails with the error.
func writeFails(t testing.TB, s *Shard, b *message.Batch, want error) {
	t.Helper()
	if _, _, err := s.Write(t.Context(), worker, b); !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func mustWrite(t testing.TB, s *Shard, b *message.Batch) string {
	t.Helper()
	name, _, err := s.Write(context.Background(), worker, b)
	must(t, err)
	return name
}

// write writes and fails unless so many messages were new.
func write(t testing.TB, s *Shard, want int, lines ...string) {
	t.Helper()
	name, written, err := s.Write(context.Background(), worker, newBatch(lines...))
	if err != nil || len(written) != want || (name == "") != (want == 0) {
		t.Errorf("wrote %d messages into %q, %v; want %d", len(written), name, err, want)
	}
}

// startWrite starts a Write beside the test.
func startWrite(ctx context.Context, s *Shard, b *message.Batch) <-chan error {
	result := make(chan error, 1)
	go func() {
		_, _, err := s.Write(ctx, worker, b)
		result <- err
	}()
	return result
}

// eachRoll runs the test for each way in which files are made.
func eachRoll(t *testing.T, test func(t *testing.T, r Roll)) {
	for _, r := range []Roll{{}, {Bytes: 1}, {Bytes: 1000}, neverFull} {
		t.Run(fmt.Sprint(r.Bytes), func(t *testing.T) { test(t, r) })
	}
}

// heldUp is a Write that stops at its first call of a kind, until it is resumed.
// Then the call gets the verdict.
type heldUp struct {
	batch  *message.Batch
	resume func()
	result <-chan error
}

func holdUp(t *testing.T, s *Shard, call string, v verdict, lines ...string) *heldUp {
	t.Helper()
	resume, reached := make(chan struct{}), make(chan struct{})
	h := &heldUp{batch: newBatch(lines...), resume: sync.OnceFunc(func() { close(resume) })}
	t.Cleanup(h.resume)
	var held atomic.Bool
	newFaulty(t, s, func(_ int, kind string) verdict {
		if kind != call || held.Swap(true) {
			return pass
		}
		close(reached)
		<-resume
		return v
	}, unix.EIO)
	h.result = startWrite(t.Context(), s, h.batch)
	select {
	case <-reached:
	case err := <-h.result:
		t.Fatalf("there was no %s: %v", call, err)
	}
	return h
}

func linesOf(t testing.TB, name string) []string {
	t.Helper()
	text, err := os.ReadFile(name)
	must(t, err)
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// checkOnce fails unless each of the lines is in one visible file of shard 0,
// once, and nothing else is.
func checkOnce(t testing.TB, path string, lines ...string) {
	t.Helper()
	visible, _ := folderNames(t, path)
	var got []string
	for _, name := range visible {
		got = append(got, linesOf(t, filepath.Join(path, "shard-0", name))...)
	}
	want := slices.Clone(lines)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("in the files:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// folderNames returns the names in shard 0 beside the lock, sorted: the visible
// files, and everything else.
func folderNames(t testing.TB, path string) (visible, other []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(path, "shard-0"))
	must(t, err)
	for _, e := range entries {
		switch ok, _ := filepath.Match("*.ndjson", e.Name()); {
		case ok:
			visible = append(visible, e.Name())
		case e.Name() != lockName:
			other = append(other, e.Name())
		}
	}
	return visible, other
}

// checkFolder fails unless shard 0 holds just the visible files with these
// contents, in any order.
func checkFolder(t testing.TB, path string, contents ...[]byte) {
	t.Helper()
	visible, other := folderNames(t, path)
	if len(other) > 0 {
		t.Errorf("left over: %q", other)
	}
	if len(visible) != len(contents) {
		t.Errorf("got %d visible files %q, want %d", len(visible), visible, len(contents))
	}
	for _, name := range visible {
		got, err := os.ReadFile(filepath.Join(path, "shard-0", name))
		must(t, err)
		i := slices.IndexFunc(contents, func(want []byte) bool { return bytes.Equal(got, want) })
		if i < 0 {
			t.Errorf("%s holds %q", name, got)
			continue
		}
		contents = slices.Delete(slices.Clone(contents), i, i+1)
	}
}
