package message_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"async-data-processor/message"
)

func rulesOf(field string, arrival, anyValue bool) *message.Rules {
	r, err := message.NewRules(field, arrival, anyValue)
	if err != nil {
		panic(err)
	}
	return r
}

// otherRules are rules that a user may choose; the scanner keeps them, too.
var otherRules = []*message.Rules{
	rulesOf("v", false, false), rulesOf("/o/1/timestamp", true, false), rulesOf("", true, true), rulesOf("value", false, true),
}

const instant = "2019-10-12T08:10:54.52Z"

// TestRules: where the timestamp is, and what the other members may be, are the
// user's to say. The entry is kept as it was sent.
func TestRules(t *testing.T) {
	want := time.Date(2019, 10, 12, 8, 10, 54, 520_000_000, time.UTC)
	for _, tc := range []struct {
		rules *message.Rules
		entry string
		found []found // nil if it is fine
	}{
		{rulesOf("time", false, false), `{"time":"` + instant + `"}`, nil},
		{rulesOf("/time", false, false), `{"a":1,"t\u0069me":"2019-10-12T08:10:54.5\u0032Z"}`, nil},
		{rulesOf("time", false, false), `{"timestamp":3,"time":"` + instant + `"}`, nil},
		{rulesOf("time", false, false), `{"o":{"time":1},"time":"` + instant + `"}`, nil},
		{rulesOf("/event/time", false, false), `{"event":{"a":[{"time":1}],"time":"` + instant + `"}}`, nil},
		{rulesOf("/events/1/at", false, false), `{"events":[{"at":1},{"at":"` + instant + `"}]}`, nil},
		{rulesOf("/a~1b/m~0n", false, false), `{"a/b":{"m~n":"` + instant + `"}}`, nil},
		{rulesOf("a/b~", false, false), `{"a/b~":"` + instant + `"}`, nil},
		{rulesOf("timestamp", false, true), `{"timestamp":"` + instant + `","value":{"a":[null,1]}}`, nil},
		{rulesOf("", false, true), `{"timestamp":"` + instant + `","value":null}`, nil},

		{rulesOf("time", false, false), `{"timestamp":"` + instant + `"}`, []found{{0, "/0/time", "time is required"}}},
		{rulesOf("time", false, false), `{"time":1570867854}`, []found{{0, "/0/time", "time must be a string, not a number"}}},
		{rulesOf("time", false, false), `{"time":"2019-10-12T08:10:54"}`, []found{{0, "/0/time", "the zone is missing"}}},
		{rulesOf("time", false, false), `{"time":"` + instant + `","value":1}`, []found{{0, "/0/value", "string"}}},
		{rulesOf("time", true, true), `{"time":"` + instant + `","message_id":1}`, []found{{0, "/0/message_id", "given"}}},
		{rulesOf("a/b~", false, false), `{}`, []found{{0, "/0/a~1b~0", "a/b~ is required"}}},
		{rulesOf("/event/time", false, false), `{"event":"time"}`, []found{{0, "/0/event/time", "/event/time is required"}}},
		{rulesOf("/event/time", false, false), `{"event":{"time":{"time":1}}}`, []found{{0, "/0/event/time", "not an object"}}},
		{rulesOf("/events/01/at", false, false), `{"events":[{"at":1},{"at":"` + instant + `"}]}`, []found{{0, "/0/events/01/at", "required"}}},
		{rulesOf("/events/9/at", false, false), `{"events":[]}`, []found{{0, "/0/events/9/at", "required"}}},
		{rulesOf("", true, false), `{"timestamp":null}`, []found{{0, "/0/timestamp", "must be a string, not null"}}},
		{rulesOf("time", true, false), `{"time":"yesterday"}`, []found{{0, "/0/time", "RFC 3339"}}},
	} {
		for f, body := range map[message.Format]string{message.JSON: "[" + tc.entry + "]", message.NDJSON: tc.entry + "\n"} {
			agreeUnder(t, tc.rules, []byte(body), f)
			s, err := tc.rules.Decode(testID, []byte(body), f)
			if tc.found != nil {
				invalid, _ := errors.AsType[*message.InvalidError](err)
				if invalid == nil {
					t.Fatalf("%s: got error %v, want an InvalidError", tc.entry, err)
				}
				equalFound(t, invalid.Entries, tc.found)
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", tc.entry, err)
			}
			line := `{"message_id":"S.0",` + tc.entry[1:]
			equalLines(t, s.Messages, []string{line})
			if !s.Messages[0].Time.Equal(want) {
				t.Errorf("%s: the time is %v", tc.entry, s.Messages[0].Time)
			}
			m, err := tc.rules.ParseLine([]byte(line))
			if err != nil || !m.Time.Equal(want) {
				t.Errorf("%s: read back: %v, %v", tc.entry, m.Time, err)
			}
			messages, _, err := tc.rules.Open(message.Envelope{ID: "E", Foreign: true, Count: 1, Body: []byte(tc.entry)})
			if err != nil || len(messages) != 1 {
				t.Errorf("%s: from another program: %v", tc.entry, err)
			}
		}
	}
}

// TestArrival: an entry without a timestamp has the time of its submission's id. So
// a retry with the same key finds the same shard, and so does who reads the file.
func TestArrival(t *testing.T) {
	rules := rulesOf("", true, false)
	began := time.Now().Truncate(time.Millisecond)
	body := []byte(`[{"a":1},{"timestamp":"` + instant + `"}]`)
	for _, id := range []string{message.NewID(), message.KeyedID("key", body)} {
		var first message.Message
		for range 2 {
			s, err := rules.Decode(id, body, message.JSON)
			must(t, err)
			first = s.Messages[0]
			equalLines(t, s.Messages[:1], []string{`{"message_id":"` + id + `.0","a":1}`})
			if s.Messages[1].Time.Year() != 2019 {
				t.Errorf("the entry with a timestamp is of %v", s.Messages[1].Time)
			}
			m, err := rules.ParseLine(first.Line)
			if err != nil || m.Time.IsZero() || !m.Time.Equal(first.Time) {
				t.Errorf("read back: %v, %v, want %v", m.Time, err, first.Time)
			}
		}
		if keyed := id == message.KeyedID("key", body); !keyed && (first.Time.Before(began) || first.Time.After(time.Now())) {
			t.Errorf("arrived at %v, want a time since %v", first.Time, began)
		}
	}
	for body, lines := range map[string][]string{
		`{}`:                {`{"message_id":"S.0"}`},
		`[{},{ },{"a":{}}]`: {`{"message_id":"S.0"}`, `{"message_id":"S.1"}`, `{"message_id":"S.2","a":{}}`},
	} {
		s, err := rules.Decode("S", []byte(body), message.JSON)
		must(t, err)
		equalLines(t, s.Messages, lines)
	}
	if m, err := rules.ParseLine([]byte(`{"message_id":"theirs","a":1}`)); err != nil || !m.Time.IsZero() {
		t.Errorf("a line of another program: %v, %v", m.Time, err)
	}
	if _, err := message.Strict.ParseLine([]byte(`{"message_id":"S.0","a":1}`)); err == nil {
		t.Error("the strict rules take a line without a timestamp")
	}
}

func TestNewRulesRefuses(t *testing.T) {
	for _, field := range []string{"message_id", "/message_id", "/message_id/a", "/a~2", "\xff", strings.Repeat("t", 65)} {
		if _, err := message.NewRules(field, false, false); err == nil {
			t.Errorf("%.20q was taken", field)
		}
	}
}

// TestTimestampFaults: the answer says which of the usual mistakes a timestamp has.
func TestTimestampFaults(t *testing.T) {
	const form = `; want an RFC 3339 date-time such as "2019-10-12T08:10:54.52Z"`
	for text, want := range map[string]string{
		"2019-10-12T08:10:54":              "the zone is missing: add Z for UTC, or an offset such as +02:00",
		"2019-10-12T08:10:54.123":          "the zone is missing: add Z for UTC, or an offset such as +02:00",
		"2019-10-12T08:10:54+0200":         "the offset is not of the form +02:00",
		"2019-10-12T08:10:54-02":           "the offset is not of the form +02:00",
		"2019-10-12T08:10:54 +02:00":       "a blank stands before the offset",
		"2019-10-12 08:10:54Z":             "a blank stands for the T",
		"2019-10-12t08:10:54Z":             "the letter between date and time is not a capital T",
		"2019-10-12T08:10:54z":             "the Z is not a capital",
		"2019-10-12T08:10Z":                "the seconds are missing",
		"2019-10-12T08:10:54,5Z":           "a comma stands for the point of the fraction",
		"2019-10-12T08:10:54.Z":            "no digits follow the point",
		"2019-10-12T08:10:54 UTC":          "the zone is a name: write Z for UTC, or an offset such as +02:00",
		"2019-10-12T08:10:54Europe/Berlin": "the zone is a name: write Z for UTC, or an offset such as +02:00",
		"2019-10-12":                       "the time is missing, the zone is missing: add Z for UTC, or an offset such as +02:00",
		"2019-10-12 08:10":                 "a blank stands for the T, the seconds are missing, the zone is missing: add Z for UTC, or an offset such as +02:00",
		" 2019-10-12T08:10:54Z":            "white space stands before or behind it",
		"2019-10-12T08:10:54Z ":            "white space stands before or behind it",
		`\t2019-10-12\n`:                   "white space stands before or behind it; the time is missing, the zone is missing: add Z for UTC, or an offset such as +02:00",
		" yesterday":                       "white space stands before or behind it",
		"1570867854":                       "it is a number",
		"1570867854.123":                   "it is a number",
	} {
		got := decodeInvalid(t, `[{"timestamp":"`+text+`"}]`, message.JSON)
		if len(got) != 1 || got[0].Detail != want+form {
			t.Errorf("%s: got %+v, want %s", text, got, want+form)
		}
	}
}
