package message_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"async-data-processor/message"
)

// testID is the submission id of the tests: what they assert does not depend
// on its form.
const testID = "S"

// at is a timestamp for entries whose timestamp is not the point.
const at = `"timestamp":"2019-10-12T08:10:54.52Z"`

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func lines(messages []message.Message) []string {
	var out []string
	for _, m := range messages {
		out = append(out, string(m.Line))
	}
	return out
}

func equalLines(t *testing.T, got []message.Message, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d messages, want %d", len(got), len(want))
	}
	for i, line := range lines(got) {
		if line != want[i] {
			t.Errorf("line %d\n got %s\nwant %s", i, line, want[i])
		}
	}
}

// TestDecodeLine pins the line of one entry, which must be the same whether
// the entry came in an array or on a line of its own.
func TestDecodeLine(t *testing.T) {
	for _, tt := range []struct{ name, entry, want string }{
		{"the shortest with a value", `{` + at + `,"value":"F"}`, ``},
		{"members keep their order", `{"z":1,"value":"v","a":2,` + at + `,"m":3}`, ``},
		{"numbers digit for digit", `{` + at + `,"n":[9007199254740993,1e400,0.1000,-0,-0.0,1E+2,123456789012345678901234567890,1e-400]}`, ``},
		{"escapes as sent", `{` + at + `,"value":"\u0000\u0001\n\/\u00e9\ud83d\ude00\"\\","\u0000":"\\\\"}`, ``},
		{"text as sent", `{` + at + `,"value":"é😀` + "\u2028\u007f" + `<>&"}`, ``},
		{"strings that look like structure", `{` + at + `,"value":"{\"timestamp\":1},[\\","}]":"\\"}`, ``},
		{"no value", `{` + at + `}`, ``},
		{"an empty value and an empty name", `{"":"",` + at + `,"value":""}`, ``},
		{"an escaped name has the rule of the name", `{"timest\u0061mp":"2019-10-12T08:10:54.52Z","v\u0061lue":"F"}`, ``},
		{"an escaped timestamp", `{"timestamp":"2019-10-12T08:10:54.52\u005a"}`, ``},
		{"names in other cases, and further down, are the client's", `{` + at + `,"TIMESTAMP":1,"Value":2,"Message_id":3,"o":{"timestamp":4,"value":5,"message_id":6},"l":[{"message_id":7}]}`, ``},
		{"names as values", `{"a":"timestamp","b":"message_id",` + at + `,"c":["value","message_id"]}`, ``},
		{"literals", `{` + at + `,"t":true,"f":false,"n":null}`, ``},
		{"white space outside strings goes, inside stays", "{  \"timestamp\" :\t\"2019-10-12T08:10:54.52Z\" , \"value\" : \" a  b \" , \"o\" : [ 1 , { } , [ ] ] }", `{"message_id":"S.0",` + at + `,"value":" a  b ","o":[1,{},[]]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == "" { // as sent, behind the id
				tt.want = `{"message_id":"S.0",` + tt.entry[1:]
			}
			for body, f := range map[string]message.Format{
				"\n[ " + tt.entry + " ]\r\n": message.JSON, "\n" + tt.entry + " \r\n": message.JSON, tt.entry + "\n": message.NDJSON,
			} {
				s, err := message.Decode(testID, []byte(body), f)
				if err != nil {
					t.Fatalf("format %d: %v", f, err)
				}
				equalLines(t, s.Messages, []string{tt.want})
				if want := time.Date(2019, 10, 12, 8, 10, 54, 520_000_000, time.UTC); !s.Messages[0].Time.Equal(want) {
					t.Errorf("format %d: time %v, want %v", f, s.Messages[0].Time, want)
				}
			}
		})
	}
}

func TestDecodeBody(t *testing.T) {
	const a, b = `{` + at + `,"v":1}`, `{` + at + `,"v":2}`
	want := []string{
		`{"message_id":"S.0",` + at + `,"v":1}`,
		`{"message_id":"S.1",` + at + `,"v":2}`,
	}
	tests := []struct {
		name   string
		format message.Format
		body   string
	}{
		{"array", message.JSON, `[` + a + `,` + b + `]`},
		{"array over lines", message.JSON, "\r\n[\n\t" + a + " ,\r\n\t" + b + "\n]\n \t"},
		{"array with broken entries", message.JSON, `[` + strings.ReplaceAll(a+`,`+b, `,`, ",\n") + `]`},
		{"lines", message.NDJSON, a + "\n" + b + "\n"},
		{"last line without newline", message.NDJSON, a + "\n" + b},
		{"CRLF", message.NDJSON, a + "\r\n" + b + "\r\n"},
		{"blank lines", message.NDJSON, "\n\r\n \t\n" + a + "\n\n \n" + b + "\n\n"},
		{"white space around entries", message.NDJSON, "  " + a + " \t\n\t" + b + "  "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := message.Decode(testID, []byte(tt.body), tt.format)
			must(t, err)
			if s.ID != testID {
				t.Errorf("submission id %q, want %q", s.ID, testID)
			}
			equalLines(t, s.Messages, want)
			for i, want := range []string{"S.0", "S.1"} {
				if got := s.Messages[i].ID(); got != want {
					t.Errorf("message %d has id %q, want %q", i, got, want)
				}
			}
		})
	}
}

// TestDecodeCopies holds Decode to its promise that the body may be reused:
// a server that pools its buffers relies on it.
func TestDecodeCopies(t *testing.T) {
	// Tiny entries under a long id outgrow the first guess of the size.
	entry := `{"timestamp":"2019-10-12T08:10:54Z"}`
	id := strings.Repeat("i", 200)
	for f, body := range map[message.Format]string{
		message.JSON:   `[` + strings.Repeat(entry+`,`, 99) + entry + `]`,
		message.NDJSON: strings.Repeat(entry+"\n", 100),
	} {
		buf := []byte(body)
		s, err := message.Decode(id, buf, f)
		must(t, err)
		if string(buf) != body {
			t.Fatal("Decode changed the body")
		}
		want := lines(s.Messages)
		for i := range buf {
			buf[i] = '#'
		}
		equalLines(t, s.Messages, want)
	}
}

// TestDecodeLinesAreApart appends to one line and looks at the next: the
// messages of a submission share memory, which must not show.
func TestDecodeLinesAreApart(t *testing.T) {
	s, err := message.Decode(testID, []byte(`[{`+at+`},{`+at+`}]`), message.JSON)
	must(t, err)
	want := bytes.Clone(s.Messages[1].Line)
	_ = append(s.Messages[0].Line, "overrun"...)
	if got := s.Messages[1].Line; !bytes.Equal(got, want) {
		t.Errorf("line 1 became %s", got)
	}
}
