package message_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"async-data-processor/message"
)

// found is an expected EntryError; detail is a part of its Detail.
type found struct {
	index   int
	pointer string
	detail  string
}

// decodeInvalid decodes a body that has to be refused as invalid.
func decodeInvalid(t *testing.T, body string, f message.Format) []message.EntryError {
	t.Helper()
	s, err := message.Decode(testID, []byte(body), f)
	invalid, ok := errors.AsType[*message.InvalidError](err)
	if !ok {
		t.Fatalf("got %d messages and error %v, want an InvalidError", len(s.Messages), err)
	}
	if errors.Is(err, message.ErrTooLarge) {
		t.Errorf("%v wraps ErrTooLarge", err)
	}
	if s.ID != "" || s.Messages != nil {
		t.Errorf("a refused body gave the submission %q with %d messages", s.ID, len(s.Messages))
	}
	return invalid.Entries
}

func equalFound(t *testing.T, got []message.EntryError, want []found) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d errors, want %d: %+v", len(got), len(want), got)
	}
	for i, e := range got {
		if w := want[i]; e.Index != w.index || e.Pointer != w.pointer || !strings.Contains(e.Detail, w.detail) {
			t.Errorf("error %d\n got %+v\nwant %+v", i, e, w)
		}
	}
}

// TestDecodeRefusesEntry holds bad entries against both formats: as the second
// of three, the others being fine, so that the place and the going on are
// tested too.
func TestDecodeRefusesEntry(t *testing.T) {
	const (
		want   = "RFC 3339"
		object = "must be a JSON object"
		ours   = "given by the server"
	)
	one := func(pointer, detail string) []found { return []found{{1, "/1" + pointer, detail}} }
	tests := []struct {
		entry string
		want  []found
	}{
		// 1: not an object
		{`null`, one("", object)},
		{`[]`, one("", object)},
		{`1`, one("", object)},
		{`"x"`, one("", object)},
		{`true`, one("", object)},
		{`{}`, one("/timestamp", "required")},

		// 3: names
		{`{` + at + `,"timestamp":"2020-01-01T00:00:00Z"}`, one("/timestamp", "duplicate")},
		{`{` + at + `,"timest\u0061mp":"2020-01-01T00:00:00Z"}`, one("/timestamp", "duplicate")},
		{`{` + at + `,"a":{"b":[0,{"c":1,"c":1}]}}`, one("/a/b/1/c", "duplicate")},
		{`{` + at + `,"a/b~":1,"a/b~":1}`, one("/a~1b~0", "duplicate")},
		{`{` + at + `,"` + strings.Repeat("n", 300) + `":1,"` + strings.Repeat("n", 300) + `":1}`, one("", "duplicate")},
		{`{"TIMESTAMP":"2020-01-01T00:00:00Z"}`, one("/timestamp", "required")},
		{`{"Timestamp":"2020-01-01T00:00:00Z"}`, one("/timestamp", "required")},
		{`{"timestamp ":"2020-01-01T00:00:00Z"}`, one("/timestamp", "required")},
		{`{"a":{` + at + `}}`, one("/timestamp", "required")},
		{`{"a":"timestamp"}`, one("/timestamp", "required")},
		{`{"message_id":"x",` + at + `}`, one("/message_id", ours)},
		{`{` + at + `,"message_id":null}`, one("/message_id", ours)},
		{`{` + at + `,"message_id" : {}}`, one("/message_id", ours)},
		{`{` + at + `,"messag\u0065_id":1}`, one("/message_id", ours)},

		// 4: text
		{"{" + at + ",\"value\":\"\xff\"}", one("/value", "UTF-8")},
		{"{" + at + ",\"value\":\"\xed\xa0\x80\"}", one("/value", "UTF-8")},
		{"{" + at + ",\"\xc0\xaf\":1}", one("", "UTF-8")},
		{`{` + at + `,"value":"\ud800"}`, one("/value", "surrogate")},
		{`{` + at + `,"value":"\udc00\ud800"}`, one("/value", "surrogate")},
		{`{` + at + `,"value":"\ud800x"}`, one("/value", "surrogate")},

		// 6: timestamps, whose text TestParseTimestamp is about
		{`{"value":"x"}`, one("/timestamp", "required")},
		{`{"timestamp":null}`, one("/timestamp", "string")},
		{`{"timestamp":1570867854}`, one("/timestamp", "must be a string, not a number; want an RFC 3339")},
		{`{"timestamp":-1}`, one("/timestamp", "string")},
		{`{"timestamp":true}`, one("/timestamp", "string")},
		{`{"timestamp":{}}`, one("/timestamp", "string")},
		{`{"timestamp":["2020-01-01T00:00:00Z"]}`, one("/timestamp", "string")},
		{`{"timestamp":""}`, one("/timestamp", want)},
		{`{"timestamp":"2020-01-01T24:00:00Z"}`, one("/timestamp", "time of day")},
		{`{"timestamp":"2020-01-01T00:00:00Z\u0000"}`, one("/timestamp", want)},

		// value
		{`{` + at + `,"value":null}`, one("/value", "string")},
		{`{` + at + `,"value":1}`, one("/value", "string")},
		{`{` + at + `,"value":[]}`, one("/value", "string")},
		{`{` + at + `,"v\u0061lue":{"value":"x"}}`, one("/value", "string")},

		// once, whatever is inside
		{`{"timestamp":{"a":1,"b":[2,null]}}`, one("/timestamp", "string")},
		{`{` + at + `,"value":{"a":1,"b":[2,{"c":true}]}}`, one("/value", "string")},
		{`{` + at + `,"message_id":{"a":{"b":1},"c":"d"}}`, one("/message_id", ours)},

		// several at once, in the order of the members
		{`{"value":1,"message_id":2,"timestamp":3}`, []found{
			{1, "/1/value", "string"}, {1, "/1/message_id", ours}, {1, "/1/timestamp", "string"},
		}},
		{`{"value":false,"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, []found{
			{1, "/1/value", "string"}, {1, "/1", "32 deep"}, {1, "/1/timestamp", "required"},
		}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.80q", tt.entry), func(t *testing.T) {
			const good = `{` + at + `}`
			equalFound(t, decodeInvalid(t, `[`+good+`,`+tt.entry+`,`+good+`]`, message.JSON), tt.want)
			equalFound(t, decodeInvalid(t, good+"\n"+tt.entry+"\n"+good+"\n", message.NDJSON), tt.want)
		})
	}
}

// TestDecodeRefusesBody is about bodies that are wrong beyond their entries,
// and about text where the entries cannot be told apart any more.
func TestDecodeRefusesBody(t *testing.T) {
	const good = `{` + at + `}`
	whole := func(detail string) []found { return []found{{-1, "", detail}} }
	tests := []struct {
		format message.Format
		body   string
		want   []found
	}{
		// 1
		{message.JSON, "", whole("empty")},
		{message.JSON, " \r\n\t", whole("empty")},
		{message.JSON, "null", whole("want a JSON array")},
		{message.JSON, `"x"`, whole("want a JSON array")},
		{message.JSON, "1", whole("want a JSON array")},
		{message.JSON, "[]", whole("at least one")},
		// one entry: pointers are into the body
		{message.JSON, "{}", []found{{0, "/timestamp", "required"}}},
		{message.JSON, ` {"value":1,"a":{"b":1,"b":2}} `, []found{{0, "/a/b", "duplicate"}}},
		{message.JSON, `{"a":`, []found{{0, "", "unexpected EOF"}}},
		{message.JSON, good + " x", whole("behind the entry")},
		{message.JSON, "[ \n ]", whole("at least one")},
		{message.NDJSON, "", whole("at least one")},
		{message.NDJSON, "\n \r\n\t\n", whole("at least one")},

		// 2
		{message.JSON, `[` + good + `][` + good + `]`, whole("behind")},
		{message.JSON, `[` + good + `] x`, whole("behind")},
		{message.JSON, `[` + good + `],`, whole("behind")},
		{message.JSON, `[` + good + `]]`, whole("behind")},
		{message.JSON, `[` + good + `]` + "\x00", whole("behind")},
		{message.JSON, `[` + good + `]` + good + "\n", whole("behind")},
		{message.JSON, good + "\n" + good, whole("application/x-ndjson, with curl by --data-binary")},
		{message.JSON, "\ufeff[" + good + "]", whole("starts with a byte order mark; send it without")},
		{message.JSON, "\xff\xfe[\x00]\x00", whole("byte order mark of UTF-16")},
		{message.NDJSON, "\xfe\xff\x00{\x00}", whole("byte order mark of UTF-16")},
		{message.JSON, "\x1f\x8b\x08\x00", whole("Content-Encoding: gzip")},
		{message.NDJSON, "\x28\xb5\x2f\xfd\n\n", whole("Content-Encoding: zstd")},
		{message.JSON, "[]x", []found{{-1, "", "at least one"}, {-1, "", "behind"}}},
		{message.JSON, ",", whole("invalid character")},
		{message.JSON, "]", whole("")},
		{message.JSON, "\xff", whole("invalid character")},
		{message.JSON, "[", []found{{0, "/0", "unexpected EOF"}}},
		{message.JSON, `[` + good, []found{{1, "/1", "unexpected EOF"}}},
		{message.JSON, `[` + good + `,`, []found{{1, "/1", "unexpected EOF"}}},
		{message.JSON, `[` + good + `,]`, []found{{1, "/1", "invalid character"}}},
		{message.JSON, `[,` + good + `]`, []found{{0, "/0", "invalid character"}}},
		{message.JSON, `[` + good + good + `]`, []found{{1, "/1", "invalid character"}}},
		{message.JSON, `[` + good + `,{"timestamp":"2020-01-01T00:0`, []found{{1, "/1", "unexpected EOF"}}},
		{message.JSON, `[{"a":1,},` + good + `]`, []found{{0, "/0", "invalid character"}}},
		{message.JSON, `[{'a':1}]`, []found{{0, "/0", "invalid character"}}},
		{message.JSON, `[{"a":01}]`, []found{{0, "/0", "invalid character"}}},
		{message.JSON, `[{"a":"` + "\n" + `"}]`, []found{{0, "/0", "invalid character"}}},
		{message.JSON, `[{"a":"\x"}]`, []found{{0, "/0", "escape"}}},
		{message.JSON, `[{"a":NaN}]`, []found{{0, "/0", "invalid character"}}},
		{message.JSON, `[/**/` + good + `]`, []found{{0, "/0", "invalid character"}}},
		{message.NDJSON, "\ufeff" + good + "\n", whole("byte order mark")},
		{message.NDJSON, "[" + good + "]\n", []found{{0, "/0", "JSON object"}}},
		{message.NDJSON, good + " " + good + "\n" + good, []found{{0, "/0", "--data-binary"}}},
		{message.NDJSON, good + good, []found{{0, "/0", "--data-binary"}}},
		{message.NDJSON, good + "," + good + "\n", []found{{0, "/0", "behind"}}},
		{message.NDJSON, good + "\r" + good + "\n", []found{{0, "/0", "--data-binary"}}},
		{message.NDJSON, good + ",\n" + good + ",\n", []found{{0, "/0", "behind"}, {1, "/1", "behind"}}},
		{message.NDJSON, "\n\n" + good + "\n\n{\"timestamp\":\n\"2020-01-01T00:00:00Z\"}\n" + good, []found{
			{1, "/1", "unexpected EOF"}, {2, "/2", "behind"},
		}},
		{message.NDJSON, good + "\n{\"a\":", []found{{1, "/1", "unexpected EOF"}}},

		// what is before broken text is reported with it
		{message.JSON, `[null,` + good + `,{"value":1,` + at + `},nul`, []found{
			{0, "/0", "JSON object"}, {2, "/2/value", "string"}, {3, "/3", "unexpected EOF"},
		}},
		{message.JSON, `[1] 2`, []found{{0, "/0", "JSON object"}, {-1, "", "behind"}}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d %.80q", tt.format, tt.body), func(t *testing.T) {
			equalFound(t, decodeInvalid(t, tt.body, tt.format), tt.want)
		})
	}
}

func TestDecodeReportsAtMost(t *testing.T) {
	for _, n := range []int{message.MaxReported - 1, message.MaxReported, message.MaxReported + 1, message.MaxEntries} {
		for f, body := range map[message.Format]string{
			message.JSON:   `[` + strings.Repeat(`{},`, n-1) + `{}]`,
			message.NDJSON: strings.Repeat("{}\n", n),
		} {
			got := decodeInvalid(t, body, f)
			if want := min(n, message.MaxReported); len(got) != want {
				t.Errorf("%d bad entries in format %d: %d errors, want %d", n, f, len(got), want)
			}
			for i, e := range got {
				if e.Index != i || e.Pointer != fmt.Sprintf("/%d/timestamp", i) {
					t.Fatalf("error %d is %+v", i, e)
				}
			}
		}
	}
	// The entry that reaches the limit may have several faults.
	got := decodeInvalid(t, `[`+strings.Repeat(`{"value":1,"message_id":1,"timestamp":1},`, 40)+`1]`, message.JSON)
	if len(got) != message.MaxReported {
		t.Errorf("%d errors, want %d", len(got), message.MaxReported)
	}
}

// TestDetailIsShort: what a client sent is neither echoed at length nor raw.
func TestDetailIsShort(t *testing.T) {
	long := strings.Repeat("n", 10_000)
	for _, body := range []string{
		`[{"` + long + `":1,"` + long + `":2}]`,
		`[{"` + long + `":"` + "\xff" + `"}]`,
		`[{"timestamp":"` + long + `"}]`,
		`[{"timestamp":"2020-01-01T00:00:00Z` + long + `"}]`,
		`[{"` + long,
		`[` + long,
		"[\x1b[31m]",
	} {
		for _, e := range decodeInvalid(t, body, message.JSON) {
			if len(e.Detail) > 200 || len(e.Pointer) > 300 {
				t.Errorf("%.40s: detail of %d bytes, pointer of %d", body, len(e.Detail), len(e.Pointer))
			}
			if !utf8.ValidString(e.Detail) || strings.ContainsFunc(e.Detail, unicode.IsControl) {
				t.Errorf("%.40s: raw bytes in the detail %q", body, e.Detail)
			}
		}
	}
}

func TestInvalidErrorText(t *testing.T) {
	tests := []struct {
		entries []message.EntryError
		want    string
	}{
		{[]message.EntryError{{Index: -1, Detail: "no"}}, "no"},
		{[]message.EntryError{{Index: 0, Pointer: "/0/value", Detail: "no"}}, "/0/value: no"},
		{[]message.EntryError{{Index: 1, Pointer: "/1", Detail: "no"}, {}, {}}, "/1: no (and 2 more)"},
	}
	for _, tt := range tests {
		if got := (&message.InvalidError{Entries: tt.entries}).Error(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
