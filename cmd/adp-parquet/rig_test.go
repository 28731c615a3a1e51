package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"async-data-processor/message"
)

// asProgram is the variable that makes the tests' binary the program.
const asProgram = "ADP_PARQUET_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// patience is for machines with other work; no test waits so long where all is well.
const patience = 2 * time.Minute

const (
	testID = "01M8K523VDHDD60X1V378Z7002"
	stamp  = `"timestamp":"2019-10-12T08:10:54.52Z"`
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// publishLines makes a file as the pipeline publishes it, and returns its path.
func publishLines(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "3-1_"+message.NewID()+published)
	must(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644))
	return path
}

// lined returns entries as lines of a file. The rules are what settings of the pipeline
// may make them.
func lined(t interface{ Fatal(...any) }, rules *message.Rules, entries ...string) []string {
	s, err := rules.Decode(testID, []byte("["+strings.Join(entries, ",")+"]"), message.JSON)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range s.Messages {
		lines = append(lines, string(m.Line))
	}
	return lines
}

// parquetOf is where the result of the file is in the folder.
func parquetOf(file, dir string) string {
	return filepath.Join(dir, strings.TrimSuffix(filepath.Base(file), published)+suffix)
}

// adp runs the program in this process.
func adp(env map[string]string, args ...string) (code int, stdout, stderr string) {
	var out, told bytes.Buffer
	code = run(context.Background(), args, func(name string) string { return env[name] }, &out, &told)
	return code, out.String(), told.String()
}

// wantCode runs the program, which has to end with the code and say the word.
func wantCode(t *testing.T, want int, word string, env map[string]string, args ...string) {
	t.Helper()
	code, stdout, stderr := adp(env, args...)
	if code != want || !strings.Contains(stdout+stderr, word) {
		t.Fatalf("adp-parquet %s: code %d, want %d and %q:\n%s%s", strings.Join(args, " "), code, want, word, stdout, stderr)
	}
}

// program returns the program as a process of its own, behind a prefix of the command
// line such as strace.
func program(t *testing.T, prefix []string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	must(t, err)
	argv := append(append(prefix, self), args...)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// read is a row as it stands in a result.
type read struct {
	id          string
	micros      *int64
	value, rest *string
}

// rowsOf reads a result.
func rowsOf(t interface{ Fatal(...any) }, in []byte) []read {
	file, err := parquet.OpenFile(bytes.NewReader(in), int64(len(in)))
	if err != nil {
		t.Fatal(err)
	}
	text := func(v parquet.Value) *string {
		if v.IsNull() {
			return nil
		}
		s := string(v.ByteArray())
		return &s
	}
	var all []read
	for _, group := range file.RowGroups() {
		rows := group.Rows()
		buffer := make([]parquet.Row, 100)
		for {
			n, err := rows.ReadRows(buffer)
			for _, row := range buffer[:n] {
				r := read{id: *text(row[0]), value: text(row[2]), rest: text(row[3])}
				if !row[1].IsNull() {
					micros := row[1].Int64()
					r.micros = &micros
				}
				all = append(all, r)
			}
			if err != nil || n == 0 {
				break
			}
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// line is the line that a row stands for, if the timestamp is the member of that name or
// is elsewhere. The order of members may be another one, and an instant or a string may be
// spelled otherwise.
func (r read) line(ours bool) string {
	members := []string{fmt.Sprintf(`"message_id":"%s"`, r.id)}
	if r.rest != nil {
		members = append(members, strings.TrimSuffix(strings.TrimPrefix(*r.rest, "{"), "}"))
	}
	rest := map[string]json.RawMessage{}
	if r.rest != nil && json.Unmarshal([]byte(*r.rest), &rest) != nil {
		return "rest is not JSON: " + *r.rest
	}
	if _, there := rest["timestamp"]; ours && r.micros != nil && !there {
		members = append(members, fmt.Sprintf(`"timestamp":"%s"`, time.UnixMicro(*r.micros).UTC().Format("2006-01-02T15:04:05.999999Z07:00")))
	}
	if r.value != nil {
		quoted, err := json.Marshal(*r.value)
		if err != nil {
			return err.Error()
		}
		members = append(members, `"value":`+string(quoted))
	}
	return "{" + strings.Join(members, ",") + "}"
}
