package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"async-data-processor/message"
)

// query runs SQL statements in DuckDB, and returns the rows of each.
func query(t *testing.T, statements ...string) [][][]any {
	t.Helper()
	if os.Getenv("DUCKDB_DIR") == "" {
		t.Fatal("DUCKDB_DIR is not set: run scripts/parquet, which installs DuckDB there")
	}
	in, err := json.Marshal(statements)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "node", "testdata/query.cjs")
	var told bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &told
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, told.String())
	}
	var rows [][][]any
	must(t, json.Unmarshal(out, &rows))
	return rows
}

// TestDuckDB: a database that people use reads what the program writes, by the columns'
// types and to the last digit, and each line of several files in one row.
func TestDuckDB(t *testing.T) {
	rules, err := message.NewRules("", true, true)
	must(t, err)
	dir := t.TempDir()
	lines := 0
	for i, entries := range [][]string{
		{
			`{` + stamp + `,"value":"F","n":9007199254740993,"big":1e400,"zero":-0.10,"deep":{"list":[1,{"x":"ü"}]}}`,
			`{"timestamp":"2019-10-12T10:10:54.123456789+02:00","value":"a\u0000b\n\"😀"}`,
			`{"value":21.50}`, `{"value":""}`, `{}`,
			`{"timestamp":"0001-01-01T00:00:00Z"}`, `{"timestamp":"9999-12-31T23:59:59.999999Z"}`,
		},
		strings.Split(strings.Repeat(`{`+stamp+`,"value":"G"} `, 3000)[:3000*(len(stamp)+15)-1], " "),
		{`{` + stamp + `,"value":"` + strings.Repeat("x", message.MaxEntryBytes-100) + `"}`},
	} {
		all := lined(t, rules, entries...)
		for n := range all {
			all[n] = strings.Replace(all[n], testID+".", fmt.Sprintf("%d%s.", i, testID[1:]), 1)
		}
		lines += len(all)
		wantCode(t, exitDone, fmt.Sprintf("%d rows", len(all)), nil, "--out", dir, publishLines(t, all...))
	}
	from := fmt.Sprintf("FROM read_parquet('%s')", filepath.Join(dir, "*.parquet"))
	rows := query(t,
		"SET TimeZone = 'UTC'",
		"SELECT column_name, column_type, \"null\" FROM (DESCRIBE SELECT * "+from+")",
		"SELECT count(*), count(DISTINCT message_id), max(length(value)) "+from,
		"SELECT epoch_us(timestamp)::VARCHAR, hex(value), rest::VARCHAR "+from+" WHERE message_id LIKE '0%' ORDER BY message_id",
		"SELECT rest->>'$.n', rest->>'$.big', rest->>'$.zero', rest->>'$.deep.list[1].x' "+from+" WHERE value = 'F'",
		"SELECT (rest->>'$.value')::DOUBLE + 1 "+from+" WHERE rest->>'$.value' IS NOT NULL",
		"SELECT value, count(*) "+from+" WHERE timestamp BETWEEN '2019-10-12T08:00:00Z' AND '2019-10-12T09:00:00Z' AND length(value) = 1 GROUP BY value ORDER BY value",
		"SELECT decode(value) FROM parquet_kv_metadata('"+filepath.Join(dir, "*.parquet")+"') WHERE decode(key) = 'adp.identity' AND length(decode(value)) = 64",
	)
	if n := len(rows[7]); n != 3 {
		t.Errorf("%d files tell their identity", n)
	}
	long := fmt.Sprint(message.MaxEntryBytes - 100)
	for i, want := range [][][]any{
		1: {{"message_id", "VARCHAR", "YES"}, {"timestamp", "TIMESTAMP WITH TIME ZONE", "YES"}, {"value", "VARCHAR", "YES"}, {"rest", "JSON", "YES"}},
		2: {{fmt.Sprint(lines), fmt.Sprint(lines), long}},
		3: {
			{"1570867854520000", "46", `{"n":9007199254740993,"big":1e400,"zero":-0.10,"deep":{"list":[1,{"x":"ü"}]}}`},
			{"1570867854123456", "6100620A22F09F9880", `{"timestamp":"2019-10-12T10:10:54.123456789+02:00"}`},
			{nil, nil, `{"value":21.50}`},
			{nil, "", nil},
			{nil, nil, nil},
			{"-62135596800000000", nil, nil},
			{"253402300799999999", nil, nil},
		},
		4: {{"9007199254740993", "1e400", "-0.1", "ü"}}, // DuckDB shortens what it takes for a double
		5: {{22.5}},
		6: {{"F", "1"}, {"G", "3000"}},
	} {
		if want != nil && !reflect.DeepEqual(rows[i], want) {
			t.Errorf("statement %d:\n got %v\nwant %v", i, rows[i], want)
		}
	}
}
