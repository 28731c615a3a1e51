package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/parquet-go/parquet-go"

	"async-data-processor/message"
)

// TestHostile: a file that the pipeline has not written is refused for ever, with the
// number of the line, and leaves nothing. The error quotes nothing of the line.
func TestHostile(t *testing.T) {
	good := lined(t, message.Strict, `{`+stamp+`}`)[0]
	long := good[:len(good)-1] + `,"a":"` + strings.Repeat("secret", message.MaxLineBytes/6+1) + `"}`
	deep := func(n int) string {
		return good[:len(good)-1] + `,"secret":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}"
	}
	tests := []struct{ name, text, want string }{
		{"empty", "", "is empty"},
		{"empty line", good + "\n\n" + good + "\n", "line 2: "},
		{"no id", good + "\n{" + stamp + "}\n", "line 2: "},
		{"cut", good + "\n" + good[:len(good)-1], "line 2: it has no newline"},
		{"no newline", good, "line 1: it has no newline"},
		{"half a line", good + "\n" + good[:len(good)-1] + "\n" + good + "\n", "line 2: "},
		{"too long", good + "\n" + long + "\n", "line 2: it has more than"},
		{"too long, without an end", good + "\n" + long, "line 2: it has more than"},
		{"33 deep", good + "\n" + deep(32) + "\n", "line 2: "},
		{"very deep", good + "\n" + deep(100_000) + "\n", "line 2: "},
		{"two of a name", good + "\n" + good[:len(good)-1] + `,"secret":1,"secret":2}` + "\n", "line 2: "},
		{"not UTF-8", good + "\n" + good[:len(good)-1] + ",\"secret\":\"\xff\"}\n", "line 2: "},
		{"half of a pair", good + "\n" + good[:len(good)-1] + `,"secret":"\ud800"}` + "\n", "line 2: "},
		{"zeros", good + "\n" + strings.Repeat("\x00", 5000), "line 2: "},
		{"binary", "PAR1\x00\xff\n", "line 1: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(t.TempDir(), "3-1_"+message.NewID()+published)
			must(t, os.WriteFile(file, []byte(tt.text), 0o644))
			code, stdout, stderr := adp(nil, "--out", dir, file)
			if code != exitNever || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "secret") || len(stderr) > 500 {
				t.Errorf("code %d: %s%s", code, stdout, stderr)
			}
			wantNothing(t, dir)
		})
	}
}

func wantNothing(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		t.Errorf("%s is left", e.Name())
	}
}

// TestNotPublished: what cannot have been published is refused for ever.
func TestNotPublished(t *testing.T) {
	good := publishLines(t, lined(t, message.Strict, `{`+stamp+`}`)...)
	dir := filepath.Dir(good)
	hidden := filepath.Join(dir, ".3-1_x.ndjson")
	must(t, os.Link(good, hidden))
	must(t, os.Link(good, filepath.Join(dir, "3-1_x.rolling")))
	must(t, os.Mkdir(filepath.Join(dir, "folder.ndjson"), 0o755))
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe.ndjson"), 0o644))
	out := t.TempDir()
	for _, tt := range []struct{ name, want string }{
		{hidden, "begins with no dot"},
		{filepath.Join(dir, "3-1_x.rolling"), "ends in .ndjson"},
		{filepath.Join(dir, "folder.ndjson"), "not a regular file"},
		{filepath.Join(dir, "pipe.ndjson"), "not a regular file"},
		{filepath.Join(dir, "gone.ndjson"), "no such file"},
	} {
		wantCode(t, exitNever, tt.want, nil, "--out", out, tt.name)
	}
	wantNothing(t, out)
}

// TestJob: without an argument the file is that of the run, and has to be as it was
// published.
func TestJob(t *testing.T) {
	file := publishLines(t, lined(t, message.Strict, `{`+stamp+`}`, `{`+stamp+`}`)...)
	info, err := os.Stat(file)
	must(t, err)
	out := t.TempDir()
	env := map[string]string{
		"ADP_FILE": file, "ADP_LINES": "2", "ADP_BYTES": fmt.Sprint(info.Size()), "PARQUET_OUT": out,
	}
	with := func(name, value string) map[string]string {
		changed := map[string]string{}
		maps.Copy(changed, env)
		changed[name] = value
		return changed
	}
	wantCode(t, exitNever, "3 were published", with("ADP_LINES", "3"))
	wantCode(t, exitNever, "7 were published", with("ADP_BYTES", "7"))
	wantCode(t, exitNever, "ADP_LINES", with("ADP_LINES", "many"))
	wantCode(t, exitNever, "no file is given", with("ADP_FILE", ""))
	wantCode(t, exitNever, "nothing says where", with("PARQUET_OUT", ""))
	wantNothing(t, out)
	wantCode(t, exitDone, "2 rows", env)

	env["ADP_FILE"], env["DATA_OUTPUT_DIR"] = filepath.Base(file), filepath.Dir(file)
	wantCode(t, exitDone, "2 rows", env)
	wantCode(t, exitNever, "2 files", env, file, file)
	wantCode(t, exitNever, "not defined", env, "--secret", "x")
	wantCode(t, exitDone, "Usage", env, "--help")
}

// TestSchema: the columns have the types and the order that people query.
func TestSchema(t *testing.T) {
	file := publishLines(t, lined(t, message.Strict, `{`+stamp+`}`)...)
	dir := t.TempDir()
	wantCode(t, exitDone, "1 rows", nil, "--out", dir, file)
	in, err := os.ReadFile(parquetOf(file, dir))
	must(t, err)
	result, err := parquet.OpenFile(bytes.NewReader(in), int64(len(in)))
	must(t, err)
	const want = `message entry {
	required binary message_id (STRING);
	optional int64 timestamp (TIMESTAMP(isAdjustedToUTC=true,unit=MICROS));
	optional binary value (STRING);
	optional binary rest (JSON);
}`
	if got := result.Schema().String(); got != want {
		t.Errorf("got %s", got)
	}
	for _, column := range result.Metadata().RowGroups[0].Columns {
		if codec := column.MetaData.Codec.String(); codec != "ZSTD" {
			t.Errorf("%v is compressed by %s", column.MetaData.PathInSchema, codec)
		}
	}
}

var sized = flag.Int64("mib", 128, "how large the file of TestMemory is, in MiB")

// TestMemory: the memory does not depend on the size of the file. The entries are as bad
// for that as entries can be: they are random, and each of them is one of the longest.
func TestMemory(t *testing.T) {
	const limit = 200 << 20
	for _, size := range []int{100, message.MaxEntryBytes - 100} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			file := publishLines(t, "x")
			f, err := os.Create(file)
			must(t, err)
			buffered := bufio.NewWriterSize(f, 1<<20)
			// So much is drawn, and then shuffled: to draw all of it takes longer than to convert it.
			drawn := make([]byte, 1<<20)
			rng := rand.NewChaCha8([32]byte{})
			for i := range drawn {
				drawn[i] = " !#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~"[rng.Uint64()%93]
			}
			rows, written := 0, int64(0)
			for ; written < *sized<<20; rows++ {
				from := rand.IntN(len(drawn) - size)
				half := size / 2
				n, err := fmt.Fprintf(buffered, `{"message_id":"%s.%d",%s,"value":"%s","a":"%s"}`+"\n",
					testID, rows, stamp, drawn[from:from+half], drawn[from+half:from+size])
				must(t, err)
				written += int64(n)
			}
			must(t, errors.Join(buffered.Flush(), f.Close()))
			cmd := program(t, nil, "--out", t.TempDir(), file)
			cmd.Env = append(cmd.Env, "GOMAXPROCS=8")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), fmt.Sprintf("%d rows", rows)) {
				t.Fatalf("%v: %s", err, out)
			}
			peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
			t.Logf("%d rows, %d MiB: %d MiB of memory, %v of the processor", rows, written>>20, peak>>20, cmd.ProcessState.UserTime())
			if peak > limit {
				t.Errorf("%d MiB of memory, want at most %d", peak>>20, limit>>20)
			}
		})
	}
}

// names lists what is in a folder, hidden names too.
func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir {
			names = append(names, d.Name())
		}
		return err
	}))
	return names
}
