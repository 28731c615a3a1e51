package verify

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	"async-data-processor/output"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// at is in shard 2 of 5.
	at = `"timestamp":"2019-10-12T08:10:56.52Z"`
	// s1 and s2 are submissions, s1 the older one.
	s1 = "01JD8Y6G5V3X9Q2R7T4B1C0D5E"
	s2 = "01JD8Y6G5V3X9Q2R7T4B1C0D5F"
	// ofTwo and ofTen are submissions whose ids tell how many messages they have. The
	// others are of a program that told none.
	ofTwo = "01JD8Y6G5V3X9Q2R7T4B1C0002"
	ofTen = "01JD8Y6G5V3X9Q2R7T4B1C000A"
)

// name is a path in shard n, a different one for each i.
func name(n, i int) string {
	id := ulid.ULID{14: byte(i >> 8), 15: byte(i)}
	return fmt.Sprintf("shard-%d/%d-1_%v.ndjson", n, n, id)
}

// temp is a temporary file's path in shard n.
func temp(n int) string { return fmt.Sprintf("shard-%d/.%d-1_%s.tmp", n, n, s1) }

// rolling is a rolling file's path in shard n.
func rolling(n int) string { return fmt.Sprintf("shard-%d/.%d-1_%s.rolling", n, n, s2) }

// line is the line of a message, with its newline.
func line(id string) string { return `{"message_id":"` + id + `",` + at + "}\n" }

// lines are messages of a submission.
func lines(submission string, indexes ...int) string {
	var b strings.Builder
	for _, i := range indexes {
		b.WriteString(line(fmt.Sprintf("%s.%d", submission, i)))
	}
	return b.String()
}

// tree is what is to be in an output folder, by path; a path that ends in "/"
// is a folder.
type tree map[string]string

func (tr tree) write(t testing.TB, dir string) {
	t.Helper()
	for path, content := range tr {
		full := filepath.Join(dir, path)
		folder := filepath.Dir(full)
		if strings.HasSuffix(path, "/") {
			folder = full
		}
		must(t, os.MkdirAll(folder, 0o755))
		if folder == full {
			continue
		}
		must(t, os.WriteFile(full, []byte(content), 0o644))
	}
}

// age makes a file an hour old.
func age(t testing.TB, path string) {
	t.Helper()
	then := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(path, then, then))
}

// verifierOf is what Run makes for dir, for a test to put its own in.
func verifierOf(t testing.TB, dir string, o Options) *verifier {
	t.Helper()
	return &verifier{
		Options:    o,
		folder:     os.DirFS(dir),
		owned:      func(shard string) (bool, error) { return output.Owned(filepath.Join(dir, shard)) },
		started:    time.Now(),
		runRecords: 1000,
		readers:    2,
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustRun(t testing.TB, v *verifier) *Report {
	t.Helper()
	r, err := v.run(t.Context())
	must(t, err)
	return r
}

// faultyFS fails on chosen paths.
type faultyFS struct {
	fs.FS
	open, read, readDir, lstat map[string]error
}

func (f faultyFS) Open(path string) (fs.File, error) {
	if err := f.open[path]; err != nil {
		return nil, &fs.PathError{Op: "openat", Path: path, Err: err}
	}
	file, err := f.FS.Open(path)
	if err != nil {
		return nil, err
	}
	return faultyFile{file, f.read[path], f.readDir[path]}, nil
}

func (f faultyFS) Lstat(path string) (fs.FileInfo, error) {
	if err := f.lstat[path]; err != nil {
		return nil, err
	}
	return fs.Lstat(f.FS, path)
}

func (f faultyFS) ReadLink(path string) (string, error) { return fs.ReadLink(f.FS, path) }

// faultyFile fails instead of reporting its end.
type faultyFile struct {
	fs.File
	read, readDir error
}

func (f faultyFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err != nil && f.read != nil {
		err = f.read
	}
	return n, err
}

func (f faultyFile) ReadDir(n int) ([]fs.DirEntry, error) {
	entries, err := f.File.(fs.ReadDirFile).ReadDir(n)
	if err != nil && f.readDir != nil {
		err = f.readDir
	}
	return entries, err
}
