package message_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"async-data-processor/message"
)

const (
	line0 = `{"message_id":"S.0",` + at + `,"value":"a"}`
	line1 = `{"message_id":"S.1",` + at + `}`

	linePrefix = `{"message_id":"`
)

func TestOpen(t *testing.T) {
	e := message.Envelope{ID: message.NewID(), Count: 2, Body: []byte(line0 + "\n" + line1 + "\n")}
	messages, dead, err := message.Strict.Open(e)
	if err != nil || dead != nil {
		t.Fatal(err, dead)
	}
	equalLines(t, messages, []string{line0, line1})
	for i, want := range []string{"S.0", "S.1"} {
		if got := messages[i].ID(); got != want {
			t.Errorf("message %d has id %q, want %q", i, got, want)
		}
		if !messages[i].Time.IsZero() {
			t.Errorf("message %d has the time %v", i, messages[i].Time)
		}
	}
	if &e.Body[0] != unsafe.SliceData(messages[0].Line) {
		t.Error("Open copied the lines")
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name  string
		count int
		body  string
		want  string
	}{
		{"empty", 0, "", "empty"},
		{"empty but announced", 1, "", "empty"},
		{"no newline", 1, line0, "line 1 of the envelope has no newline"},
		{"no last newline", 2, line0 + "\n" + line1, "line 2 of the envelope has no newline"},
		{"too few", 3, line0 + "\n" + line1 + "\n", "announces 3 messages and holds 2"},
		{"too many", 1, line0 + "\n" + line1 + "\n", "announces 1 messages and holds 2"},
		{"none announced", 0, line0 + "\n", "announces 0 messages and holds 1"},
		{"fewer than none announced", -1, line0 + "\n", "announces -1 messages and holds 1"},
		{"a great many announced", math.MaxInt, line0 + "\n", "holds 1"},
		{"bad lines, and no last newline", 2, "hello\n" + line1, "line 2 of the envelope has no newline"},
		{"bad lines, and too few", 3, "hello\n" + line1 + "\n", "announces 3 messages and holds 2"},
		{"many bad lines", 102, strings.Repeat("\n", 101) + line0 + "\n", "more than 100 lines of the envelope are bad, the first because: line 1 of the envelope does not start with"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			messages, dead, err := message.Strict.Open(message.Envelope{Count: tt.count, Body: []byte(tt.body)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one about %q", err, tt.want)
			}
			if messages != nil || dead != nil {
				t.Errorf("got %d messages and %d dead ones with the error", len(messages), len(dead))
			}
		})
	}
}

// TestOpenSetsBadLinesApart puts a bad line before, between and after good
// ones.
func TestOpenSetsBadLinesApart(t *testing.T) {
	const noID, strict = "does not start with a message_id", "is not strict JSON: "
	tests := []struct{ name, line, id, want string }{
		{"blank", "", "", noID},
		{"no id", `{` + at + "}", "", noID},
		{"id not first", `{` + at + `,"message_id":"S.0"}`, "", noID},
		{"empty id", `{"message_id":"",` + at + "}", "", noID},
		{"an id that is a number", `{"message_id":1}`, "", noID},
		{"not JSON", "hello", "", noID},
		{"BOM", "\ufeff" + line0, "", noID},
		{"cut JSON", line0[:len(line0)-1], "S.0", strict},
		{"two values", line0 + line1, "S.0", strict},
		{"two ids", `{"message_id":"S.0","message_id":"S.1"}`, "S.0", "duplicate"},
		{"duplicate names", `{"message_id":"S.0","a":1,"a":2}`, "S.0", "duplicate"},
		{"bad UTF-8", `{"message_id":"S.0","a":"` + "\xff" + `"}`, "S.0", "UTF-8"},
		{"an id that no header takes", "{\"message_id\":\"a\r\",", "", strict},
		{"an id beyond ASCII", `{"message_id":"é",`, "", strict},
		{"an id of 255 bytes", linePrefix + strings.Repeat("i", 255) + `"`, strings.Repeat("i", 255), strict},
		{"an id of 256 bytes", linePrefix + strings.Repeat("i", 256) + `"`, "", strict},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for place := range 3 {
				lines := slices.Insert([]string{line0, line1}, place, tt.line)
				e := message.Envelope{Count: 3, Body: []byte(strings.Join(lines, "\n") + "\n")}
				messages, dead, err := message.Strict.Open(e)
				if err != nil || len(dead) != 1 {
					t.Fatalf("%d dead, %v", len(dead), err)
				}
				equalLines(t, messages, []string{line0, line1})
				if got := string(dead[0].Line); got != tt.line {
					t.Errorf("dead is %q, want %q", got, tt.line)
				}
				if reason := dead[0].Reason; !strings.HasPrefix(reason, fmt.Sprintf("line %d of the envelope ", place+1)) || !strings.Contains(reason, tt.want) {
					t.Errorf("reason %q, want one of line %d about %q", reason, place+1, tt.want)
				}
				if got := dead[0].ID(); got != tt.id {
					t.Errorf("the dead one's id is %q, want %q", got, tt.id)
				}
			}
		})
	}
}

// TestOpenSetsAllApart: an envelope may hold nothing but bad lines.
func TestOpenSetsAllApart(t *testing.T) {
	e := message.Envelope{Count: 100, Body: []byte(strings.Repeat("\n", 100))}
	messages, dead, err := message.Strict.Open(e)
	if err != nil || len(messages) != 0 || len(dead) != 100 {
		t.Errorf("%d messages, %d dead, %v", len(messages), len(dead), err)
	}
}

func TestOpenForeign(t *testing.T) {
	const entry = " { " + at + ",\r\n\t\"value\" : \"a\" }\n"
	long := strings.Repeat("i", 255)
	hashed := message.KeyedID("", []byte(entry))
	for id, want := range map[string]string{
		"order-42":      "order-42",
		"!#$%&'()*+,/~": "!#$%&'()*+,/~",
		"0":             "0",
		long:            long,
		"":              hashed,
	} {
		// What a foreign publisher announces means nothing.
		messages, dead, err := message.Strict.Open(message.Envelope{ID: id, Count: 7, Foreign: true, Body: []byte(entry)})
		if err != nil || dead != nil {
			t.Errorf("id %q: %v, %v", id, err, dead)
			continue
		}
		equalLines(t, messages, []string{`{"message_id":"` + want + `",` + at + `,"value":"a"}`})
		if got := messages[0].ID(); got != want {
			t.Errorf("id %q became %q, want %q", id, got, want)
		}
	}
	checkULID(t, hashed)

	body := []byte(`{` + at + `}`)
	for _, pad := range []int{0, message.MaxEntryBytes - len(body)} {
		if _, _, err := message.Strict.Open(message.Envelope{Foreign: true, Body: append(body, strings.Repeat(" ", pad)...)}); err != nil {
			t.Errorf("%d bytes of padding: %v", pad, err)
		}
	}
}

func TestOpenForeignRefuses(t *testing.T) {
	const entry = `{` + at + `}`
	const id, strict = "message id must be", "not strict JSON"
	tests := []struct{ name, id, body, want string }{
		{"id of 256 bytes", strings.Repeat("i", 256), entry, id},
		{"id with a quote", `a"b`, entry, id},
		{"id with a backslash", `a\b`, entry, id},
		{"id with a space", "a b", entry, id},
		{"id with a newline", "a\n", entry, id},
		{"id with a NUL", "a\x00", entry, id},
		{"id with DEL", "a\x7f", entry, id},
		{"id beyond ASCII", "é", entry, id},
		{"id of bad UTF-8", "\xff", entry, id},
		{"empty", "", "", strict},
		{"blank", "", " \n", strict},
		{"not JSON", "", "hello", strict},
		{"cut", "", entry[:len(entry)-1], strict},
		{"two values", "", entry + entry, strict},
		{"two lines", "", entry + "\n" + entry + "\n", strict},
		{"BOM", "", "\ufeff" + entry, strict},
		{"bad UTF-8", "", `{` + at + `,"a":"` + "\xff" + `"}`, strict},
		{"duplicate names", "", `{` + at + `,"a":1,"a":2}`, "duplicate"},
		{"an array", "", `[` + entry + `]`, "JSON object"},
		{"null", "", `null`, "JSON object"},
		{"no timestamp", "", `{}`, "timestamp is required"},
		{"bad timestamp", "", `{"timestamp":"yesterday"}`, "RFC 3339"},
		{"bad value", "", `{` + at + `,"value":1}`, "value must be a string"},
		{"its own message_id", "", `{"message_id":"x",` + at + `}`, "message_id is given"},
		{"too deep", "", `{` + at + `,"o":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, "32 deep"},
		{"several faults", "", `{"value":1}`, "value must be a string if present\ntimestamp is required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			messages, dead, err := message.Strict.Open(message.Envelope{ID: tt.id, Foreign: true, Body: []byte(tt.body)})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one about %q", err, tt.want)
			}
			if messages != nil || dead != nil || errors.Is(err, message.ErrTooLarge) {
				t.Errorf("got %d messages, %d dead, %v", len(messages), len(dead), err)
			}
		})
	}

	for _, n := range []int{message.MaxEntryBytes + 1, 20 << 20} {
		_, _, err := message.Strict.Open(message.Envelope{Foreign: true, Body: bytes.Repeat([]byte(" "), n)})
		if !errors.Is(err, message.ErrTooLarge) {
			t.Errorf("%d bytes: %v, want ErrTooLarge", n, err)
		}
	}
}

// FuzzOpen feeds what a broker may hand out, ours or not.
func FuzzOpen(f *testing.F) {
	for _, seed := range append(seeds, line0+"\n", line0+"\n"+line1+"\n", line0, "\n") {
		for _, foreign := range []bool{false, true} {
			f.Add("", strings.Count(seed, "\n"), foreign, []byte(seed))
			f.Add("id", -1, foreign, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, id string, count int, foreign bool, body []byte) {
		before := bytes.Clone(body)
		messages, dead, err := message.Strict.Open(message.Envelope{ID: id, Count: count, Foreign: foreign, Body: body})
		if !bytes.Equal(body, before) {
			t.Fatal("Open changed the body")
		}
		if err != nil {
			if messages != nil || dead != nil || err.Error() == "" {
				t.Errorf("%d messages and %d dead with the error %q", len(messages), len(dead), err)
			}
			return
		}
		for _, m := range messages {
			if m.ID() == "" || !json.Valid(m.Line) || bytes.Contains(m.Line, []byte("\n")) {
				t.Errorf("line %q", m.Line)
			}
		}
		for _, d := range dead {
			if d.Reason == "" || !utf8.ValidString(d.ID()) || len(d.ID()) > 255 {
				t.Errorf("line %q is dead because of %q, its id is %q", d.Line, d.Reason, d.ID())
			}
		}
		if !foreign {
			// Every line is in its place in one of them.
			for line := range bytes.Lines(body) {
				line = bytes.TrimSuffix(line, []byte("\n"))
				switch {
				case len(messages) > 0 && bytes.Equal(messages[0].Line, line):
					messages = messages[1:]
				case len(dead) > 0 && bytes.Equal(dead[0].Line, line):
					dead = dead[1:]
				default:
					t.Fatalf("line %q is missing", line)
				}
				count--
			}
			if count != 0 || len(messages) > 0 || len(dead) > 0 {
				t.Errorf("%d announced in vain, %d messages and %d dead too many", count, len(messages), len(dead))
			}
			return
		}
		if len(dead) > 0 {
			t.Errorf("%d lines of an entry are dead", len(dead))
		}
		// A foreign entry obeys the rules of a submitted one.
		s, err := message.Decode(testID, []byte("["+string(body)+"]"), message.JSON)
		if err != nil || len(s.Messages) != 1 || len(messages) != 1 {
			t.Fatalf("accepted %q, but Decode says %v", body, err)
		}
		want := strings.Replace(string(s.Messages[0].Line), s.Messages[0].ID(), messages[0].ID(), 1)
		if got := string(messages[0].Line); got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
		if id != "" && messages[0].ID() != id {
			t.Errorf("id %q became %q", id, messages[0].ID())
		}
	})
}
