package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"async-data-processor/message"
	"async-data-processor/output"
)

var (
	five  = Options{Shards: 5, BatchSize: 5}
	noLim = Options{}
)

// TestFindings has a small tree for each class, and what is to be said of it:
// "class place id: detail", in the order of the report.
func TestFindings(t *testing.T) {
	f1, f2 := name(2, 1), name(2, 2)
	long := `{"message_id":"S.0",` + at + `,"a":"` + strings.Repeat("a", message.MaxLineBytes) + `"}` + "\n"
	tests := []struct {
		name    string
		tree    tree
		options Options
		want    []string
	}{
		{"nothing", tree{}, five, nil},
		{"as it should be", tree{
			f1: lines(s1, 0, 1, 2, 3, 4), f2: lines(s1, 5) + line("mine"), "shard-2/.lock": "", "shard-4/": "", "shard-4/.control.json": "{}",
		}, five, nil},

		{"twice in a file", tree{f1: lines(s1, 0, 0)}, five, []string{
			"duplicate  " + s1 + ".0: in 2 lines: " + f1 + " " + f1,
		}},
		{"in two files and two shards", tree{f1: lines(s1, 0, 1), f2: lines(s1, 1), name(3, 1): lines(s1, 1)}, noLim, []string{
			"duplicate  " + s1 + ".1: in 3 lines: " + f1 + " " + f2 + " " + name(3, 1),
		}},
		{"an id that is not ours, twice", tree{f1: line("mine") + line("mine.2024"), f2: line("mine")}, five, []string{
			"duplicate  mine: in 2 lines: " + f1 + " " + f2,
		}},
		{"ids that differ in spelling", tree{f1: line(s1+".0") + line(strings.ToLower(s1)+".0") + line(s1+".00") + line(s1)}, five, nil},

		{"empty file", tree{f1: ""}, five, []string{"torn " + f1 + " : the file is empty"}},
		{"no newline", tree{f1: strings.TrimSuffix(lines(s1, 0), "\n")}, five, []string{"torn " + f1 + " : no newline at the end"}},
		{"cut", tree{f1: lines(s1, 0) + `{"message_id":"` + s1 + `.1","ti`}, five, []string{
			"torn " + f1 + ":2 : unexpected EOF, at byte 48 of the line; no newline at the end",
		}},
		{"not JSON", tree{f1: lines(s1, 0) + "\x00\n\n" + lines(s1, 1)}, five, []string{
			"torn " + f1 + ":2 : the line does not start with a message_id (and 1 more lines)",
		}},
		{"too long a line", tree{f1: long + lines(s1, 0)}, five, []string{
			"torn " + f1 + fmt.Sprintf(":1 : a line of %d bytes, the limit is %d", len(long), message.MaxLineBytes),
		}},
		{"too long a line, cut", tree{f1: long[:len(long)-1]}, five, []string{
			"torn " + f1 + fmt.Sprintf(":1 : a line of %d bytes, the limit is %d; no newline at the end", len(long)-1, message.MaxLineBytes),
		}},

		{"names in the output folder", tree{"a.ndjson": "", "shard-02/": "", "shard-x/y": "", "shard-1024/": "", "shard-3": ""}, five, []string{
			"foreign a.ndjson : only folders of shards belong here", "foreign shard-02 : only folders of shards belong here",
			"foreign shard-1024 : only folders of shards belong here", "foreign shard-3 : only folders of shards belong here",
			"foreign shard-x : only folders of shards belong here",
		}},
		{"names in a shard's folder", tree{"shard-2/x.ndjson": "", "shard-2/.DS_Store": "", "shard-2/old/x": "", name(2, 7) + "/": ""}, five, []string{
			"foreign shard-2/.DS_Store : not a name that the program gives", "foreign " + name(2, 7) + " : not a regular file",
			"foreign shard-2/old : not a name that the program gives", "foreign shard-2/x.ndjson : not a name that the program gives",
		}},
		{"a broker's folder", tree{"broker/shard-0/x": ""}, five, []string{"skipped broker : not a shard's folder, not looked at"}},

		{"wrong shard", tree{name(1, 1): lines(s1, 0), f1: lines(s1, 1)}, five, []string{
			"misplaced " + name(1, 1) + ":1 " + s1 + ".0: belongs to shard-2",
		}},
		{"another number of shards", tree{f1: lines(s1, 0)}, Options{Shards: 1}, []string{"misplaced " + f1 + ":1 " + s1 + ".0: belongs to shard-0"}},
		{"a shard beyond the number", tree{name(9, 1): lines(s1, 0)}, five, []string{"misplaced " + name(9, 1) + ":1 " + s1 + ".0: belongs to shard-2"}},
		{"shards unchecked", tree{name(9, 1): lines(s1, 0)}, noLim, nil},

		{"six lines", tree{f1: lines(s1, 0, 1, 2, 3, 4, 5)}, five, []string{"oversized " + f1 + " : 6 lines, a batch has 5"}},
		{"six lines unchecked", tree{f1: lines(s1, 0, 1, 2, 3, 4, 5)}, noLim, nil},

		{"gaps", tree{f1: lines(s1, 4, 2), name(0, 1): lines(s2, 0, 1), name(1, 1): lines(s1, 9) + lines(s2, 3)}, noLim, []string{
			"gap  " + s1 + ": 0-1, 3, 5-8 missing, the highest is 9", "gap  " + s2 + ": 2 missing, the highest is 3",
		}},
		{"many gaps", tree{f1: lines(s1, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 9999)}, noLim, []string{
			"gap  " + s1 + ": 0, 2, 4, 6, 8, 10, 12, 14, … missing, the highest is 9999",
		}},
		{"no gap beyond our indexes", tree{f1: line(s1+".10000") + line(s1+".-1") + line(s1+".")}, noLim, nil},
		{"the end is missing", tree{f1: lines(ofTen, 0, 4, 3, 1), name(0, 1): lines(ofTwo, 1)}, noLim, []string{
			"gap  " + ofTwo + ": 0 missing of 2", "gap  " + ofTen + ": 2, 5-9 missing of 10",
		}},
		{"nothing is missing", tree{f1: lines(ofTwo, 1, 0)}, noLim, nil},
		{"fewer than its messages", tree{f1: lines(ofTwo, 0, 1, 3)}, noLim, []string{"gap  " + ofTwo + ": 2 missing, the highest is 3"}},
		{"a filled gap", tree{f1: lines(s1, 4, 2), name(0, 1): lines(s1, 0, 3, 1)}, noLim, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.tree.write(t, dir)
			r, err := Run(t.Context(), dir, tt.options)
			must(t, err)
			wantFindings(t, r, tt.want...)
			if r.Dir != dir {
				t.Errorf("dir %s, want %s", r.Dir, dir)
			}
		})
	}
}

// wantFindings compares the report's findings, and that it is OK without faults.
func wantFindings(t *testing.T, r *Report, want ...string) {
	t.Helper()
	var got []string
	ok := true
	for _, f := range r.Findings {
		place := f.File
		if f.Line > 0 {
			place += fmt.Sprintf(":%d", f.Line)
		}
		text := fmt.Sprintf("%s %s %s: %s", f.Class, place, f.ID, f.Detail)
		if len(f.Files) > 0 {
			text += ": " + strings.Join(f.Files, " ")
		}
		got = append(got, text)
		ok = ok && !slices.Contains(Faults, f.Class)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r.OK != ok {
		t.Errorf("ok is %v with findings %q", r.OK, got)
	}
}

// TestTemporary: an old file is judged by whether a process owns the folder.
func TestTemporary(t *testing.T) {
	dir := t.TempDir()
	out, err := output.Open(dir, output.Window{IDs: 1000, Age: time.Hour}, output.Roll{})
	must(t, err)
	defer out.Close()
	s, err := out.Shard(t.Context(), 0, nil)
	must(t, err)
	tree{rolling(0): lines(s1, 0), rolling(1): lines(s1, 0), temp(0): "half", temp(1): "half", temp(2): "half", "shard-3/.0-1_" + s2 + ".tmp/": ""}.write(t, dir)
	age(t, filepath.Join(dir, temp(0)))
	age(t, filepath.Join(dir, temp(1)))
	age(t, filepath.Join(dir, rolling(0)))
	age(t, filepath.Join(dir, rolling(1)))
	const foreign = "foreign shard-3/.0-1_" + s2 + ".tmp : not a regular file"
	left := func(n int) string {
		return "leftover " + temp(n) + " : left by a crash; the next owner of the folder removes it"
	}
	unpublished := func(n int) string {
		return "leftover " + rolling(n) + " : left by a crash; the next owner of the folder publishes it"
	}
	young := "in-progress " + temp(2) + " : younger than this run"

	wantFindings(t, mustRun(t, verifierOf(t, dir, five)), foreign, left(1), unpublished(1),
		"in-progress "+temp(0)+" : a process owns the folder and may be writing it",
		"in-progress "+rolling(0)+" : a process owns the folder and may be writing it", young)
	must(t, s.Close())
	wantFindings(t, mustRun(t, verifierOf(t, dir, five)), foreign, left(0), unpublished(0), left(1), unpublished(1), young)
}

// TestErrors: an error of one file or folder is told, and the rest is judged.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	tree{
		name(0, 1): lines(s1, 0), name(0, 2): lines(s1, 1) + "x\n", name(0, 3): lines(s1, 2), name(0, 4): lines(s1, 3),
		temp(0): "", temp(1): "", temp(2): "", name(3, 1): lines(s1, 4), name(4, 1): lines(s1, 5, 5),
	}.write(t, dir)
	v := verifierOf(t, dir, noLim)
	v.folder = faultyFS{
		FS:      v.folder,
		open:    map[string]error{name(0, 1): syscall.EACCES, name(0, 3): fs.ErrNotExist, "shard-3": syscall.EIO, "shard-1": fs.ErrNotExist},
		read:    map[string]error{name(0, 2): syscall.EIO},
		readDir: map[string]error{".": syscall.EIO, "shard-4": syscall.ESTALE},
		lstat:   map[string]error{temp(0): syscall.EIO},
	}
	v.owned = func(shard string) (bool, error) {
		if shard == "shard-2" {
			return false, errors.New("no lock")
		}
		return false, nil
	}
	r := mustRun(t, v)
	wantFindings(t, r,
		"duplicate  "+s1+".5: in 2 lines: "+name(4, 1)+" "+name(4, 1),
		"torn "+name(0, 2)+":2 : the line does not start with a message_id",
		"unreadable . : input/output error",
		"unreadable "+temp(0)+" : input/output error",
		"unreadable "+name(0, 1)+" : openat: permission denied",
		"unreadable "+name(0, 2)+" : input/output error",
		"unreadable "+temp(2)+" : whether a process writes it: no lock",
		"unreadable shard-3 : openat: input/output error",
		"unreadable shard-4 : "+syscall.ESTALE.Error(),
		"gap  "+s1+": 0, 2, 4 missing, the highest is 5",
		"vanished "+name(0, 3)+" : moved away after it was listed",
		"vanished shard-1 : moved away after it was listed",
	)
	if r.Total.Unreadable != 7 || r.Total.Lines != 5 || r.Total.Files != 3 {
		t.Errorf("total %+v", r.Total)
	}

	// A temporary file that is published meanwhile is nothing to talk about.
	v.folder = faultyFS{FS: os.DirFS(dir), lstat: map[string]error{temp(1): fs.ErrNotExist}}
	if r := mustRun(t, v); r.Total.InProgress != 1 || r.Total.Unreadable != 1 {
		t.Errorf("total %+v", r.Total)
	}
}

// TestNoReport: what leaves nothing to report is an error.
func TestNoReport(t *testing.T) {
	dir := t.TempDir()
	tree{name(0, 1): lines(s1, 0), "file": ""}.write(t, dir)
	for _, path := range []string{filepath.Join(dir, "missing"), filepath.Join(dir, "file")} {
		if _, err := Run(t.Context(), path, noLim); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	missing := Options{TempDir: filepath.Join(dir, "missing")}
	if _, err := Run(t.Context(), dir, missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder for temporary files: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := Run(ctx, dir, noLim); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
}

// TestListed: all findings are counted, and the first of them are listed.
func TestListed(t *testing.T) {
	const files = 2*portion + 3*MaxListed
	tr := make(tree)
	for i := range files {
		tr[name(0, i)] = ""
	}
	dir := t.TempDir()
	tr.write(t, dir)
	r := mustRun(t, verifierOf(t, dir, five))
	if r.Total.Torn != files || len(r.Findings) != MaxListed {
		t.Fatalf("%d counted, %d listed", r.Total.Torn, len(r.Findings))
	}
	for i, f := range r.Findings {
		if f.File != name(0, i) {
			t.Errorf("finding %d is of %s, want %s", i, f.File, name(0, i))
		}
	}
}

// TestLive checks a folder again and again while batches are written to it.
func TestLive(t *testing.T) {
	const batches = 300
	dir := t.TempDir()
	out, err := output.Open(dir, output.Window{IDs: 1000, Age: time.Hour}, output.Roll{})
	must(t, err)
	defer out.Close()
	s, err := out.Shard(t.Context(), 2, nil)
	must(t, err)
	defer s.Close()
	written := make(chan error, 1)
	go func() {
		for i := range batches {
			d := message.NewDelivery(message.Envelope{}, false, nil)
			b := new(message.Batch)
			for j := range 5 {
				b.Add(d, message.Message{Line: []byte(strings.TrimSpace(lines(s1, i*5+j)))})
			}
			if _, _, err := s.Write(context.Background(), "2-1", b); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for done := false; !done; {
		select {
		case err := <-written:
			must(t, err)
			done = true
		default:
		}
		r, err := Run(t.Context(), dir, five)
		must(t, err)
		if !r.OK {
			t.Fatalf("%+v", r.Findings)
		}
		if done && (r.Total.Full != batches || len(r.Findings) > 0) {
			t.Errorf("at the end %+v, %+v", r.Total, r.Findings)
		}
	}
}
