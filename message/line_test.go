package message_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"async-data-processor/message"
)

func TestParseLine(t *testing.T) {
	line := []byte(`{"message_id":"S.0","timestamp":"2019-10-12T10:10:54.52+02:00","value":" a","o":{"message_id":1}}`)
	m, err := message.Strict.ParseLine(line)
	must(t, err)
	if want := time.Date(2019, 10, 12, 8, 10, 54, 520_000_000, time.UTC); !m.Time.Equal(want) {
		t.Errorf("time %v, want %v", m.Time, want)
	}
	if m.ID() != "S.0" || &m.Line[0] != &line[0] {
		t.Errorf("id %q, line %s", m.ID(), m.Line)
	}
}

func TestParseLineRefuses(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"empty", "", "message_id"},
		{"not JSON", "\x00\x00", "message_id"},
		{"no id", `{` + at + `}`, "message_id"},
		{"id not first", `{` + at + `,"message_id":"S.0"}`, "message_id"},
		{"empty id", `{"message_id":"",` + at + `}`, "message_id"},
		{"id with an escape", `{"message_id":"S\u002e0",` + at + `}`, "message_id"},
		{"id with a control character", "{\"message_id\":\"S\x1b.0\"," + at + `}`, "message_id"},
		{"id of 256 bytes", `{"message_id":"` + strings.Repeat("a", 256) + `",` + at + `}`, "message_id"},
		{"another id", `{"message_id":"S.0",` + at + `,"message_id":"S.1"}`, "duplicate"},
		{"another id, escaped", `{"message_id":"S.0",` + at + `,"message\u005fid":"S.1"}`, "duplicate"},
		{"cut", `{"message_id":"S.0",` + at, "EOF"},
		{"two values", `{"message_id":"S.0",` + at + `}{}`, "behind"},
		{"carriage return", `{"message_id":"S.0",` + at + "}\r", "white space"},
		{"blank", `{"message_id":"S.0", ` + at + `}`, "white space"},
		{"bytes", `{"message_id":"S.0",` + at + ",\"value\":\"\xff\"}", "UTF-8"},
		{"no timestamp", `{"message_id":"S.0"}`, "timestamp is required"},
		{"bad timestamp", `{"message_id":"S.0","timestamp":"now"}`, "RFC 3339"},
		{"bad value", `{"message_id":"S.0",` + at + `,"value":1}`, "value must be a string"},
		{"too deep", `{"message_id":"S.0",` + at + `,"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, "at most 32"},
		{"too long", `{"message_id":"S.0",` + at + `,"a":"` + strings.Repeat("a", message.MaxLineBytes) + `"}`, "limit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := message.Strict.ParseLine([]byte(tt.line))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a word about %s", err, tt.want)
			}
			if tooLarge := tt.name == "too long"; errors.Is(err, message.ErrTooLarge) != tooLarge {
				t.Errorf("too large is %v, want %v", !tooLarge, tooLarge)
			}
		})
	}
}

// TestParseLineLongest takes the longest line that there can be.
func TestParseLineLongest(t *testing.T) {
	head, tail := `{`+at+`,"value":"`, `"}`
	entry := head + strings.Repeat("a", message.MaxEntryBytes-len(head)-len(tail)) + tail
	e := message.Envelope{ID: strings.Repeat("i", 255), Count: 1, Body: []byte(entry), Foreign: true}
	messages, _, err := message.Strict.Open(e)
	must(t, err)
	// One byte less: the entry's opening brace is in its prefix.
	if got := len(messages[0].Line); got > message.MaxLineBytes || got < message.MaxLineBytes-1 {
		t.Errorf("%d bytes, the limit is %d", got, message.MaxLineBytes)
	}
	if _, err := message.Strict.ParseLine(messages[0].Line); err != nil {
		t.Error(err)
	}
}

// FuzzParseLine: every line that Decode makes is accepted, with the same
// instant, and what is accepted is what Decode would have made of it.
func FuzzParseLine(f *testing.F) {
	for _, seed := range []string{
		`{` + at + `}`, `{"value":"a\n\u0000",` + at + `,"o":[1e400,{"message_id":null}]}`, `{"timestamp" : 1}`, "{}", "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		s, err := message.Decode(testID, append(append([]byte{'['}, entry...), ']'), message.JSON)
		if err != nil {
			s = message.Submission{}
		}
		for _, want := range s.Messages {
			got, err := message.Strict.ParseLine(want.Line)
			if err != nil || got.ID() != want.ID() || !got.Time.Equal(want.Time) {
				t.Errorf("%s: got %s at %v, %v, want %v", want.Line, got.ID(), got.Time, err, want.Time)
			}
		}
		got, err := message.Strict.ParseLine(entry)
		if err != nil {
			return
		}
		head := `{"message_id":"` + got.ID() + `",`
		sent := append([]byte{'{'}, bytes.TrimPrefix(entry, []byte(head))...)
		s, err = message.Decode(testID, append(append([]byte{'['}, sent...), ']'), message.JSON)
		if err != nil || len(s.Messages) != 1 || !bytes.HasSuffix(s.Messages[0].Line, sent[1:]) {
			t.Errorf("%s is accepted, but %s is not an entry: %v", entry, sent, err)
		}
	})
}
