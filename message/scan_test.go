package message_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"async-data-processor/message"
)

// texts are of values, right and wrong ones, that a scanner of JSON
// gets wrong when it gets anything wrong.
var texts = []string{
	// numbers
	`0`, `-0`, `1`, `-1`, `10`, `1234567890`, `0.0`, `0.10`, `-0.5`, `12.34`, `1e5`, `1E5`, `1e+5`, `1E-5`, `0e0`, `0E+00`, `1.5e10`, `-1.5E-10`,
	`9007199254740993`, `1e400`, `1e-400`, `123456789012345678901234567890.123456789012345678901234567890`,
	`-`, `--1`, `+1`, `01`, `-01`, `00`, `0.`, `1.`, `.5`, `-.5`, `1.e5`, `1e`, `1e+`, `1E-`, `1e5.5`, `1.5.5`, `1e5e5`, `1a`, `0x10`, `1_000`,
	`1 2`, `1-`, `NaN`, `Infinity`, `-Infinity`, `1/2`, `1:2`, `e5`, `0e`, `٣`,
	// literals
	`true`, `false`, `null`, `tru`, `fals`, `nul`, `t`, `f`, `n`, `truE`, `True`, `FALSE`, `Null`, `truee`, `falsee`, `nulll`, `true false`, `nil`, `undefined`,
	// strings
	`""`, `"a"`, `"\"\\\/\b\f\n\r\t"`, `"\u0000\u001f\u00e9\u00E9\uFFFF\uabcd\uABCD"`, `"\ud83d\ude00"`, `"\uD83D\uDE00x"`, `"\udbff\udfff"`, `"\ud800\udc00"`, `"\ud7ff\ue000"`,
	`"\\"`, `"\\\""`, `"a\\"`, `"}"`, `"]"`, `","`, `":"`, `"{[\"timestamp\":"`, "\"\x7f\"", `"é€😀"`, `"` + strings.Repeat("é€😀", 9) + `"`, "\"\u2028\ufffd\"",
	`"`, `"a`, `"\"`, `"\\\"`, `"\`, `"\a"`, `"\x41"`, `"\'"`, `"\0"`, `"\U0041"`, `"\N"`, `"\ "`, `'a'`, "`a`", `a`,
	`"\u"`, `"\u0"`, `"\u00"`, `"\u000"`, `"\u000`, `"\u00`, `"\u`, `"\u000g"`, `"\u00g0"`, `"\ug000"`, `"\u000/"`, `"\u000:"`, `"\u000@"`, `"\u000G"`, "\"\\u000`\"", `"\u+123"`, `"\u 123"`,
	`"\ud800"`, `"\ud800x"`, `"\udbff"`, `"\udc00"`, `"\udfff"`, `"\udc00\ud800"`, `"\udc00\udc00"`, `"\udfff\udfff"`, `"\ud800\ud800"`, `"\ud800\u0041"`, `"\ud800\ue000"`, `"\ud800\udbff"`, `"\ud800\n"`,
	`"\ud800\udc0"`, `"\ud800\u"`, `"\ud800\`, `"\ud800/udc00"`, `"\ud800\Udc00"`, `"\ud800udc00x"`,
	"\"\xff\"", "\"\x80\"", "\"\xc2\"", "\"\xc0\xaf\"", "\"\xc1\xbf\"", "\"\xe0\x80\xaf\"", "\"\xe2\x82\"", "\"\xed\xa0\x80\"", "\"\xed\xbf\xbf\"", "\"\xf0\x80\x80\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xf5\x80\x80\x80\"", "\"é\xff\"", "\"\xe2\x82", "\"\xef\xbb\xbf\"",
	// arrays
	`[]`, `[ ]`, `[1]`, `[1,2]`, `[[],[[]],{}]`, `[`, `]`, `[1`, `[1,`, `[,]`, `[1,]`, `[,1]`, `[1,,2]`, `[1 2]`, `[1}`, `[:]`, `[1:2]`, `["a":1]`, `[}`, `[[]`, `[]]`,
	// objects
	`{}`, `{ }`, `{"a":1}`, `{"a":{"b":{}},"c":[{"d":null}]}`, `{"":0}`, `{"é":0,"\u007f":1}`,
	`{`, `}`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{,"a":1}`, `{"a":1,,"b":2}`, `{"a" 1}`, `{"a":1 "b":2}`, `{"a"::1}`, `{:1}`,
	`{1:2}`, `{null:1}`, `{a:1}`, `{'a':1}`, `{"a":1]`, `{]`, `{}}`, `{"a,1}`, `{"a":1;"b":2}`, `{"a"=1}`, "{\"a\xff\":1}", "{\"a\n\":1}", `{"a\x":1}`,
	// duplicate names
	`{"a":1,"a":2}`, `{"a":1,"b":2,"a":3}`, `{"":1,"":2}`, `{"a":1,"\u0061":2}`, `{"\u0061":1,"a":2}`, `{"é":1,"é":2}`, `{"a":{"b":1,"b":2}}`, `[{"a":1,"a":2}]`, `{"a":{"b":1},"a":2}`, `{"a":[{"c":1}],"b":2,"b":3}`,
	`{"a":{"a":{"a":1}}}`, `{"a":{"b":1},"b":2}`, `{"a":{"b":1},"c":{"b":2}}`, `[{"a":1},{"a":2}]`, `{"a":1,"A":2,"aa":3,"":4,"b":5}`, `{"v":1}`, `{"timestamp":1,"value":2,"message_id":3}`,
	// white space, and what is none
	" 1", "1 ", "\t\r 1 \t\r", "\n1", "1\n", "[ 1 , [ ] , { } ]", "{ \"a\" : 1 , \"b\" : [ 2 ] }", "[\t1\r,\t2\r]", "{\"a\"\n:1}", "[1\n,2]",
	"\v1", "1\f", "\u00a01", "\u20281", "1\x00", "\x001", "\ufeff1", "\x1f1", "1\x80", "/**/1", "1//", "#",
}

// rareName and rareTime match what the scanner leaves to jsontext although it
// is fine: a name with an escape, and a timestamp with one.
var (
	rareName = regexp.MustCompile(`\\.([^"\\]|\\.)*"[ \t\r\n]*:`)
	empty    = regexp.MustCompile(`\{[ \t\r\n]*\}`)
	rareTime = regexp.MustCompile(`"timestamp"[ \t\r\n]*:[ \t\r\n]*"[^"]*\\`)
)

func rare(text []byte) bool {
	return empty.Match(text) || rareName.Match(text) || rareTime.Match(text) || bytes.Count(text, []byte(`":`))+bytes.Count(text, []byte(`" :`)) > message.MaxNames
}

// agree holds what the scanner makes of a body against what jsontext makes of
// it. It returns whether they took it.
func agree(t *testing.T, body []byte, f message.Format) bool {
	t.Helper()
	return agreeUnder(t, message.Strict, body, f)
}

func agreeUnder(t *testing.T, rules *message.Rules, body []byte, f message.Format) bool {
	t.Helper()
	want, err := message.Read(rules, testID, body, f)
	got, ok := message.Scan(rules, testID, body, f)
	if ok != (err == nil) && (ok || !rare(body)) {
		t.Fatalf("taken by the scanner: %v, by jsontext: %v (%v)\n%q", ok, err == nil, err, body)
	}
	for _, m := range want.Messages {
		if back, err := rules.ParseLine(m.Line); err != nil || !back.Time.Equal(m.Time) || !json.Valid(m.Line) {
			t.Fatalf("line %s of %q reads back as of %v, not %v, %v", m.Line, body, back.Time, m.Time, err)
		}
	}
	if !ok {
		return err == nil
	}
	if got.ID != want.ID || len(got.Messages) != len(want.Messages) {
		t.Fatalf("%d messages of %q, want %d of %q", len(got.Messages), got.ID, len(want.Messages), want.ID)
	}
	for i, m := range got.Messages {
		if !bytes.Equal(m.Line, want.Messages[i].Line) || m.Time != want.Messages[i].Time {
			t.Fatalf("message %d of %q\n got %s at %v\nwant %s at %v", i, body, m.Line, m.Time, want.Messages[i].Line, want.Messages[i].Time)
		}
	}
	return true
}

// agreeOnEntry holds an entry against jsontext in every place that it may have.
func agreeOnEntry(t *testing.T, entry string) {
	t.Helper()
	const other = `{` + at + `,"value":"x"}`
	for _, body := range []string{"[" + entry + "]", "[" + other + "," + entry + "]", "[" + entry + "," + other + "]", " [\n" + entry + "\t,\r" + other + " ] "} {
		agree(t, []byte(body), message.JSON)
	}
	for _, body := range []string{entry, " " + entry + "\n", entry + other} {
		agree(t, []byte(body), message.JSON)
	}
	for _, rules := range otherRules {
		agreeUnder(t, rules, []byte("["+other+","+entry+"]"), message.JSON)
		agreeUnder(t, rules, []byte(entry+"\n"+other), message.NDJSON)
	}
	for _, body := range []string{entry, entry + "\n" + other, other + "\r\n \t" + entry + " \r\n\n", entry + " " + other} {
		agree(t, []byte(body), message.NDJSON)
	}
	for _, member := range []string{`"message_id":"S.0",`, `"message_id" : "S.0",`, `"message_id":1,`, `"message_id":"S",` + at + `,`} {
		if rest, ok := strings.CutPrefix(entry, "{"); ok {
			agreeOnLine(t, []byte("{"+member+rest))
		}
	}
}

// agreeOnLine does the same with a line of an envelope or an output file.
func agreeOnLine(t *testing.T, line []byte) {
	t.Helper()
	if len((message.Message{Line: line}).RawID()) == 0 {
		return
	}
	err := message.ReadText(line)
	if ok := message.ScanText(line); ok != (err == nil) && (ok || !rare(line) && !blankOrDeep(line)) {
		t.Fatalf("taken by the scanner: %v, by jsontext: %v (%v)\n%q", ok, err == nil, err, line)
	}
	want, err := message.ReadLine(line)
	got, ok := message.ScanLine(line)
	if ok != (err == nil) && (ok || !rare(line)) {
		t.Fatalf("taken by the scanner: %v, by jsontext: %v (%v)\n%q", ok, err == nil, err, line)
	}
	if ok && got != want {
		t.Fatalf("got %v, want %v for %q", got, want, line)
	}
}

// blankOrDeep tells that an object, which an envelope of ours may have but
// never has, holds white space or nests deeper than an entry.
func blankOrDeep(object []byte) bool {
	var compact bytes.Buffer
	var v any
	return json.Compact(&compact, object) != nil || compact.Len() < len(object) ||
		json.Unmarshal(object, &v) != nil || depth(v) > message.MaxDepth
}

// TestScanEntry puts each of the texts in every place of an entry.
func TestScanEntry(t *testing.T) {
	for _, v := range texts {
		for _, entry := range []string{
			v,
			`{` + at + `,"v":` + v + `}`,
			`{"v":` + v + `,` + at + `}`,
			`{` + at + `,"v":[` + v + `]}`,
			`{` + at + `,"v":[0,` + v + `,{"w":` + v + `}],"x":{"y":` + v + `,"z":"` + "é" + `"}}`,
			`{` + at + `,"value":` + v + `}`,
			`{"timestamp":` + v + `}`,
			`{` + at + `,` + v + `:1}`,
			`{` + v + `,` + at + `}`,
			`{` + at + `}` + v,
			v + `{` + at + `}`,
			`{` + at + v + `}`,
		} {
			agreeOnEntry(t, entry)
		}
	}
}

// entriesWithRules are about the members with rules: where, what and how often.
var entriesWithRules = []string{
	`{}`, `{"value":"x"}`, `{"timestamp":"2019-10-12T08:10:54.52Z"}`, `{` + at + `,` + at + `}`, `{` + at + `,"value":"a","value":"b"}`,
	`{` + at + `,"message_id":"x"}`, `{"message_id":"x",` + at + `}`, `{"message_id":null,` + at + `}`, `{"o":{"message_id":"x"},` + at + `}`,
	`{"o":{` + at + `}}`, `{"o":[{` + at + `}]}`, `{"TIMESTAMP":"x",` + at + `}`, `{"timestamp":{` + at + `}}`, `{"timestamp":[],"o":1}`,
	`{"timestamp ":1,` + at + `}`, `{"timestam":1,` + at + `}`, `{"valuE":1,` + at + `}`, `{"message_iD":1,` + at + `}`, `{"v":"timestamp"}`,
	`{"timest\u0061mp":"2019-10-12T08:10:54.52Z"}`, `{"v\u0061lue":1,` + at + `}`, `{"messag\u0065_id":1,` + at + `}`,
	`{"timestamp":"2019-10-12T08:10:54.52\u005a"}`, `{"timestamp":"2019-10-12T08:10:54.52Z\n"}`, `{"timestamp":"2019-10-12T08:10:60Z"}`,
	`{"timestamp":"0001-01-01T00:00:00Z"}`, `{"timestamp":"1969-12-31T23:59:59.999999999Z"}`, `{"timestamp":"9999-12-31T23:59:59-23:59"}`,
	`{"timestamp":"2020-01-01T00:00:00+24:00"}`, `{"timestamp":"2020-01-01T00:00:00,5Z"}`, `{"timestamp":""}`, `{"timestamp":"` + "é" + `"}`,
	`null`, `[]`, `1`, `"x"`, `{"timestamp":null}`, `{"timestamp":1570867854}`, `{"timestamp":true}`, `{"timestamp":"2020-01-01T24:00:00Z"}`,
	`{"timestamp":"2016-12-31T23:59:60Z"}`, `{"timestamp":"2020-01-01T00:00:00+00:60"}`, `{"timestamp":"0000-01-01T00:00:00Z"}`,
	`{"timestamp":"10000-01-01T00:00:00Z"}`, `{"timestamp":"2020-02-30T00:00:00Z"}`, `{"timestamp":"0001-01-01T00:00:00+23:59"}`,
	`{` + at + `,"o":` + strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001) + `}`, `{` + at + `,"o":` + strings.Repeat(`{"a":`, 32) + `1` + strings.Repeat("}", 33),
}

func TestScanMembers(t *testing.T) {
	for _, entry := range entriesWithRules {
		agreeOnEntry(t, entry)
	}
}

// TestScanBodies is about what is around the entries.
func TestScanBodies(t *testing.T) {
	bodies := append([]string{
		`[{` + at + `}`, `[{` + at + `},`, `[{` + at + `},]`, `[,{` + at + `}]`, `[{` + at + `},,{` + at + `}]`, `[{` + at + `}{` + at + `}]`, `[{` + at + `} {` + at + `}]`,
		`[{` + at + `}}`, `[{` + at + `]]`, `[{` + at + `}]]`, `[{` + at + `}],`, `[{` + at + `}] x`, `[{` + at + `}]` + "\x00", `[[{` + at + `}]]`, `{"a":[{` + at + `}]}`,
		"[{" + at + "}\n]\n", " \t\r\n[ \t\r\n{" + at + "} \t\r\n, \t\r\n{" + at + "} \t\r\n] \t\r\n", "\v[{" + at + "}]", "[{" + at + "}]\f", "[\u00a0{" + at + "}]",
		"{" + at + "}\n{" + at + "}", "{" + at + "}\r{" + at + "}", "{" + at + "}{" + at + "}", "{" + at + "}\n,\n{" + at + "}", "{" + at + "}\n\x00", "{" + at + "\n}", "{\n" + at + "}", "{" + at + ",\r\n\"a\":1}", "{" + at + ",\r\t \"a\":1}",
		" ", "\n", " \n \r", "{", "[", "[ ", "[{", "{\"", "[ ]", "\x00", "\xff",
	}, seeds...)
	for _, body := range bodies {
		agree(t, []byte(body), message.JSON)
		agree(t, []byte(body), message.NDJSON)
	}
	// Cut anywhere, with what is left lying in a longer buffer.
	whole := `[{` + at + `,"value":"é\ud83d\ude00","n":[-1.5e+7,true,{"a":null}]},{` + at + `}]` + "      "
	for n := range whole {
		buffer := []byte(whole)
		agree(t, buffer[:n], message.JSON)
		agree(t, buffer[1:max(1, n)], message.NDJSON)
	}
}

// TestScanBytes puts bytes with a meaning, and their neighbours, at each place
// of short strings and names and of an entry: the scanner looks at eight at a time.
func TestScanBytes(t *testing.T) {
	bytes := []byte("\x00\x08\t\n\v\f\r\x0e\x1f !\"#$+,-./019:;<@AENZ[\\]^`aefnrtuz{|}~\x7f\x80\xa0\xa2\xbf\xc0\xc2\xdc\xed\xf4\xff")
	for n := range 20 {
		text := strings.Repeat("x", n)
		for place := range n {
			for _, c := range bytes {
				changed := text[:place] + string([]byte{c}) + text[place+1:]
				agree(t, []byte(`[{"`+changed+`":"`+text+`",`+at+`}]`), message.JSON)
				agree(t, []byte(`{`+at+`,"v":"`+changed+`"}`), message.NDJSON)
			}
		}
	}
	const entry = `{ ` + at + `,"value":"x","n":[-10.5e+3,true,false,null,"\u00e9"],"o":{}} `
	for place := range entry {
		for _, c := range bytes {
			changed := entry[:place] + string([]byte{c}) + entry[place+1:]
			agree(t, []byte("["+changed+"]"), message.JSON)
			agree(t, []byte(changed), message.NDJSON)
			agreeOnLine(t, []byte(`{"message_id":"S.0",`+changed[1:]))
			agreeOnLine(t, []byte(`{"message_id":"S.0",`+changed[2:len(changed)-1]))
		}
	}
}

// TestScanNames crosses the number of names that the scanner remembers. It must
// remember so many, and forget those of an object that is closed.
func TestScanNames(t *testing.T) {
	members := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"n%d":0`, i)
		}
		return b.String()
	}
	for _, tt := range []struct {
		entry string
		known bool
	}{
		{`{` + at + members(message.MaxNames-1) + `}`, true},
		{`{` + at + members(message.MaxNames) + `}`, false},
		{`{` + at + members(message.MaxNames-1) + `,"n0":1}`, false},
		{`{` + at + members(message.MaxNames+8) + `,"n0":1}`, false},
		{`{` + at + `,"o":{"a":0` + members(message.MaxNames-3) + `}}`, true},
		{`{` + at + `,"o":{"a":0` + members(message.MaxNames-2) + `}}`, false},
		{`{` + at + `,"o":[` + strings.Repeat(`{"a":0`+members(message.MaxNames-3)+`},`, 9) + `0]}`, true},
	} {
		for f, body := range map[message.Format]string{message.JSON: "[" + tt.entry + "," + tt.entry + "]", message.NDJSON: tt.entry + "\n" + tt.entry} {
			want, err := message.Read(message.Strict, testID, []byte(body), f)
			got, ok := message.Scan(message.Strict, testID, []byte(body), f)
			if ok != tt.known || ok && err != nil {
				t.Errorf("taken: %v, want %v (%v)\n%s", ok, tt.known, err, body)
			} else if ok {
				equalLines(t, got.Messages, lines(want.Messages))
			}
			if s, decoded := message.Decode(testID, []byte(body), f); (decoded == nil) != (err == nil) {
				t.Errorf("%v, want %v", decoded, err)
			} else if err == nil {
				equalLines(t, s.Messages, lines(want.Messages))
			}
		}
	}
}

// TestScanAfterBadLines: those that are cut in the middle of an object leave
// nothing for the next.
func TestScanAfterBadLines(t *testing.T) {
	bad := slices.Repeat([][]byte{[]byte(`{"message_id":"S.0","a":{"b":{"c":1,"d":`)}, message.MaxNames)
	if !message.ScanText(append(bad, []byte(line0))...) {
		t.Error("a fine line is not taken after bad ones")
	}
}

// FuzzScan holds the scanner against jsontext.
func FuzzScan(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	for _, v := range texts {
		f.Add([]byte(`[{"v":`+v+`,`+at+`}]`), false)
		f.Add([]byte(`{`+at+`,"o":[0,`+v+`]}`), true)
	}
	for _, entry := range entriesWithRules {
		f.Add([]byte("["+entry+"]"), false)
		f.Add([]byte(entry), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, ndjson bool) {
		format := message.JSON
		if ndjson {
			format = message.NDJSON
		}
		agree(t, body, format)
	})
}

// FuzzScanLine does the same with lines.
func FuzzScanLine(f *testing.F) {
	for _, v := range texts {
		f.Add([]byte(at + `,"o":[0,` + v + `]}`))
	}
	f.Fuzz(func(t *testing.T, rest []byte) {
		agreeOnLine(t, append([]byte(`{"message_id":"S.0",`), rest...))
	})
}
