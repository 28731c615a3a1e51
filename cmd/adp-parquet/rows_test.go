package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"async-data-processor/message"
)

// TestSplit: what stands in which column.
func TestSplit(t *testing.T) {
	const noon = "2019-10-12T12:00:00"
	tests := []struct {
		name, field, line     string
		at, value, rest       string
		noTime, noValue, none bool // there is no timestamp, value, rest
	}{
		{name: "plain", line: `"timestamp":"` + noon + `Z","value":"F"`, at: noon, value: "F", none: true},
		{name: "others", line: `"a":1,"timestamp":"` + noon + `Z","b":[9007199254740993,1e400,-0,0.10]`, at: noon, noValue: true, rest: `{"a":1,"b":[9007199254740993,1e400,-0,0.10]}`},
		{name: "empty value", line: `"timestamp":"` + noon + `Z","value":""`, at: noon, none: true},
		{name: "escapes", line: `"timestamp":"` + noon + `Z","val\u0075e":"a\u0000\"\ud83d\ude00ü\n"`, at: noon, value: "a\x00\"😀ü\n", none: true},
		{name: "value of another kind", line: `"timestamp":"` + noon + `Z","value":21.50`, at: noon, noValue: true, rest: `{"value":21.50}`},
		{name: "value null", line: `"timestamp":"` + noon + `Z","value":null`, at: noon, noValue: true, rest: `{"value":null}`},
		{name: "microseconds", line: `"timestamp":"` + noon + `.123456Z"`, at: noon + ".123456", noValue: true, none: true},
		{name: "nanoseconds", line: `"timestamp":"` + noon + `.1234567Z"`, at: noon + ".123456", noValue: true, rest: `{"timestamp":"` + noon + `.1234567Z"}`},
		{name: "nanoseconds before 1970", line: `"timestamp":"1969-12-31T23:59:59.9999999Z"`, at: "1969-12-31T23:59:59.999999", noValue: true, rest: `{"timestamp":"1969-12-31T23:59:59.9999999Z"}`},
		{name: "offset", line: `"timestamp":"2019-10-12T14:00:00+02:00","a":{}`, at: noon, noValue: true, rest: `{"timestamp":"2019-10-12T14:00:00+02:00","a":{}}`},
		{name: "first year", line: `"timestamp":"0001-01-01T00:00:00+23:59"`, at: "0000-12-31T00:01:00", noValue: true, rest: `{"timestamp":"0001-01-01T00:00:00+23:59"}`},
		{name: "last year", line: `"timestamp":"9999-12-31T23:59:59Z"`, at: "9999-12-31T23:59:59", noValue: true, none: true},
		{name: "no timestamp", line: `"a":1`, noTime: true, noValue: true, rest: `{"a":1}`},
		{name: "nothing", line: ``, noTime: true, noValue: true, none: true},
		{name: "inner names", line: `"timestamp":"` + noon + `Z","o":{"message_id":1,"timestamp":2,"value":"x"}`, at: noon, noValue: true, rest: `{"o":{"message_id":1,"timestamp":2,"value":"x"}}`},
		{name: "another field", field: "ts", line: `"ts":"` + noon + `Z","timestamp":7`, at: noon, noValue: true, rest: `{"ts":"` + noon + `Z","timestamp":7}`},
		{name: "a pointer", field: "/event/time", line: `"event":{"time":"` + noon + `Z"},"timestamp":"` + noon + `Z"`, at: noon, noValue: true, rest: `{"event":{"time":"` + noon + `Z"},"timestamp":"` + noon + `Z"}`},
		{name: "the field as a pointer", field: "/timestamp", line: `"timestamp":"` + noon + `Z"`, at: noon, noValue: true, none: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := splitterOf(t, tt.field)
			r, err := s.split([]byte(strings.TrimSuffix(`{"message_id":"S.0",`+tt.line, ",") + "}"))
			must(t, err)
			if string(r.id) != "S.0" || string(r.value) != tt.value || string(r.rest) != tt.rest {
				t.Errorf("id %q, value %q, rest %s", r.id, r.value, r.rest)
			}
			if (r.value == nil) != tt.noValue || (r.rest == nil) != tt.none || r.stamped == tt.noTime {
				t.Errorf("value is null: %v, rest is null: %v, timestamp is null: %v", r.value == nil, r.rest == nil, !r.stamped)
			}
			if at := time.UnixMicro(r.micros).UTC().Format("2006-01-02T15:04:05.999999"); r.stamped && at != tt.at {
				t.Errorf("timestamp %s, want %s", at, tt.at)
			}
		})
	}
}

func splitterOf(t *testing.T, field string) *splitter {
	t.Helper()
	s := settings{file: publishLines(t, "x"), field: message.TimestampField}
	if field != "" {
		s.field = field
	}
	in, err := open(s)
	must(t, err)
	must(t, in.Close())
	return newSplitter(in)
}

// TestRoundTrip: the rows say what the lines say, whatever the pipeline has accepted, by
// whatever rules.
func TestRoundTrip(t *testing.T) {
	file := publishLines(t, "x")
	rapid.Check(t, func(t *rapid.T) {
		field := rapid.SampledFrom([]string{"timestamp", "ts", "/event/time"}).Draw(t, "field")
		rules, err := message.NewRules(field, true, true)
		if err != nil {
			t.Fatal(err)
		}
		entries := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawEntry(t, field) }), 1, 20).Draw(t, "entries")
		lines := lined(t, rules, entries...)
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		in, err := open(settings{file: file, field: field})
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		var out bytes.Buffer
		made, err := in.convert(context.Background(), &out)
		if err != nil {
			t.Fatal(err)
		}
		rows := rowsOf(t, out.Bytes())
		if len(rows) != len(lines) || made.rows != int64(len(lines)) {
			t.Fatalf("%d lines became %d rows", len(lines), len(rows))
		}
		for i, r := range rows {
			line := r.line(field == message.TimestampField)
			if got, want := meaning(t, line), meaning(t, lines[i]); !maps.Equal(got, want) {
				t.Fatalf("line %s\nbecame %+v, which is %s", lines[i], r, line)
			}
		}
	})
}

// meaning is what a line says: each member's value, byte by byte, but for the spelling of
// the strings that have columns.
func meaning(t *rapid.T, line string) map[string]string {
	dec := jsontext.NewDecoder(strings.NewReader(line))
	if _, err := dec.ReadToken(); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	said := map[string]string{}
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		name := token.String()
		value, wrong := dec.ReadValue()
		if err != nil || wrong != nil {
			t.Fatalf("%s: %v, %v", line, err, wrong)
		}
		said[name] = string(value)
		if value[0] != '"' || name != "value" && name != "timestamp" {
			continue
		}
		text, err := jsontext.AppendUnquote(nil, value)
		if err != nil {
			t.Fatal(err)
		}
		said[name] = "text " + string(text)
		if at, err := time.Parse(time.RFC3339Nano, string(text)); err == nil && name == "timestamp" && strings.HasSuffix(string(text), "Z") {
			said[name] = "instant " + at.String()
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return said
}

// drawEntry draws an entry that the pipeline accepts.
func drawEntry(t *rapid.T, field string) string {
	names := rapid.SliceOfDistinct(rapid.OneOf(
		rapid.SampledFrom([]string{"value", "a", "", "Timestamp", "message_id ", "\x00", "ü", `"`, "a/b"}), rapid.String(),
	), rapid.ID[string]).Draw(t, "names")
	var members []string
	for _, name := range names {
		if slices.Contains([]string{"timestamp", "ts", "event", "message_id"}, name) {
			continue
		}
		members = append(members, quoted(t, name)+drawBlank(t)+":"+drawBlank(t)+drawValue(t, 1))
	}
	if rapid.Bool().Draw(t, "stamped") {
		at := drawTimestamp(t)
		members = append(members, map[string]string{
			"timestamp": `"timestamp":` + at, "ts": `"ts":` + at, "/event/time": `"event":{"time":` + at + `}`,
		}[field])
	}
	if field != "timestamp" && rapid.Bool().Draw(t, "other timestamp") {
		members = append(members, `"timestamp":`+rapid.SampledFrom([]string{"7", `"now"`, "null", `"2020-01-01T00:00:00Z"`}).Draw(t, "it"))
	}
	members = rapid.Permutation(members).Draw(t, "order")
	return "{" + drawBlank(t) + strings.Join(members, ","+drawBlank(t)) + "}"
}

func drawBlank(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "", " ", "\n\t"}).Draw(t, "blank")
}

func drawTimestamp(t *rapid.T) string {
	fraction := rapid.StringMatching(`(\.[0-9]{1,12})?`).Draw(t, "fraction")
	zone := rapid.SampledFrom([]string{"Z", "Z", "+00:00", "-23:59", "+05:30"}).Draw(t, "zone")
	at := time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds"), 0).UTC()
	return `"` + at.Format("2006-01-02T15:04:05") + fraction + zone + `"`
}

func drawValue(t *rapid.T, depth int) string {
	kinds := 4
	if depth == 4 {
		kinds = 2
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return quoted(t, rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "\x00", "\u2028", "😀", strings.Repeat("long", 500)})).Draw(t, "text"))
	case 1:
		return rapid.SampledFrom([]string{
			"true", "false", "null", "0", "-0", "1e400", "9007199254740993", "0.1000", "1E+2", "-12345678901234567890.5e-300",
		}).Draw(t, "literal")
	case 2:
		elements := make([]string, rapid.IntRange(0, 3).Draw(t, "elements"))
		for i := range elements {
			elements[i] = drawValue(t, depth+1)
		}
		return "[" + strings.Join(elements, ",") + "]"
	}
	members := make([]string, rapid.IntRange(0, 3).Draw(t, "members"))
	for i := range members {
		members[i] = fmt.Sprintf(`"%d":%s`, i, drawValue(t, depth+1))
	}
	return "{" + strings.Join(members, ",") + "}"
}

// quoted spells a string in one of the ways of JSON.
func quoted(t *rapid.T, text string) string {
	text = strings.ToValidUTF8(text, "?")
	if rapid.Bool().Draw(t, "plainly") {
		quoted, err := jsontext.AppendQuote(nil, text)
		if err != nil {
			t.Fatal(err)
		}
		return string(quoted)
	}
	var b strings.Builder
	for _, c := range text {
		if c > 0xffff {
			c -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+c>>10, 0xdc00+c&0x3ff)
			continue
		}
		fmt.Fprintf(&b, `\u%04x`, c)
	}
	return `"` + b.String() + `"`
}
