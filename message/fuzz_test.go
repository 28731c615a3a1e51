package message_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"async-data-processor/message"
)

// seeds are bodies in either format, good and bad.
var seeds = []string{
	``, `null`, `[]`, `{}`, `[{}]`, `[null]`, `[`, `]`, `[1]x`, "\ufeff[]", "\n\n",
	`[{` + at + `}]`,
	`{` + at + `}`,
	"{" + at + "}\r\n\n {" + at + ",\"value\":\"v\"}\n",
	`[{` + at + `,"value":"F"},{"timestamp":"0001-01-01T00:00:00+23:59","n":[1e400,0.1000,{"a":null}]}] `,
	`[ { "v\u0061lue" : "\u0000\ud83d\ude00\"\\" , "timest\u0061mp" : "2024-02-29T00:00:00.5-01:30" } ]`,
	`[{` + at + `,"a":1,"a":2},{"message_id":1},{"timestamp":"2020-01-01T24:00:00Z","value":null}]`,
	`[{` + at + `,"value":"\ud800"},{` + at + `,"value":"` + "\xff" + `"}]`,
	`[{` + at + `,"a/b":{"~":[0,{"c":1,"c":2}]}}]`,
	`[{` + at + `,"o":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}]`,
	`[{` + at + `,"o":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}]`,
	`[` + strings.Repeat(`{},`, 120) + `1]`,
	`[{` + at + `},{` + at + `}`,
	"{" + at + "}{" + at + "}\n{\"timestamp\":\n",
}

// FuzzDecode holds Decode against encoding/json, which knows what JSON is, and
// a few lines of our own rules.
func FuzzDecode(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, ndjson bool) {
		format := message.JSON
		if ndjson {
			format = message.NDJSON
		}
		before := bytes.Clone(body)
		s, err := message.Decode(testID, body, format)
		if !bytes.Equal(body, before) {
			t.Fatal("Decode changed the body")
		}
		raws, isJSON := split(body, format)
		if err == nil {
			if !isJSON {
				t.Fatalf("accepted %q", body)
			}
			checkAccepted(t, s, raws)
			return
		}
		checkRefused(t, err, body, format)
		if !isJSON || len(raws) == 0 || errors.Is(err, message.ErrTooLarge) {
			return
		}
		for _, raw := range raws {
			if !acceptable(raw) {
				return
			}
		}
		t.Fatalf("refused %q: %v", body, err)
	})
}

// split returns the entries of a body, in the eyes of encoding/json.
func split(body []byte, f message.Format) (raws []json.RawMessage, isJSON bool) {
	if f == message.JSON {
		if text := bytes.Trim(body, " \t\r\n"); bytes.HasPrefix(text, []byte("{")) {
			return []json.RawMessage{text}, json.Valid(text)
		}
		if json.Unmarshal(body, &raws) != nil {
			return nil, false
		}
		return raws, bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("["))
	}
	for line := range bytes.SplitSeq(body, []byte("\n")) {
		if line = bytes.Trim(line, " \t\r"); len(line) == 0 {
			continue
		}
		if !json.Valid(line) {
			return nil, false
		}
		raws = append(raws, line)
	}
	return raws, true
}

func checkAccepted(t *testing.T, s message.Submission, raws []json.RawMessage) {
	if s.ID != testID || len(s.Messages) != len(raws) || len(raws) == 0 {
		t.Fatalf("submission %q with %d messages of %d entries", s.ID, len(s.Messages), len(raws))
	}
	e := message.Envelope{ID: s.ID, Count: len(s.Messages)}
	for i, m := range s.Messages {
		id := testID + "." + strconv.Itoa(i)
		if got := m.ID(); got != id {
			t.Errorf("message %d has id %q, want %q", i, got, id)
		}
		if bytes.ContainsAny(m.Line, "\r\n") {
			t.Errorf("line %d is not one line: %q", i, m.Line)
		}
		var compact bytes.Buffer
		must(t, json.Compact(&compact, raws[i]))
		if want := `{"message_id":"` + id + `",` + compact.String()[1:]; string(m.Line) != want {
			t.Errorf("line %d\n got %s\nwant %s", i, m.Line, want)
		}
		want := values(t, raws[i])
		want["message_id"] = id
		if got := values(t, m.Line); !reflect.DeepEqual(got, want) {
			t.Errorf("line %d says %v, want %v", i, got, want)
		}
		instant, err := time.Parse(time.RFC3339Nano, want["timestamp"].(string))
		if err != nil || !m.Time.Equal(instant) {
			t.Errorf("message %d at %v, want %v (%v)", i, m.Time, instant, err)
		}
		e.Body = append(append(e.Body, m.Line...), '\n')
	}
	opened, dead, err := message.Strict.Open(e)
	if err != nil || len(dead) > 0 {
		t.Fatal(err, dead)
	}
	equalLines(t, opened, lines(s.Messages))
}

func values(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var out map[string]any
	if err := dec.Decode(&out); err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	return out
}

// token is an RFC 6901 reference token.
var token = regexp.MustCompile(`^([^~/]|~[01])*$`)

func checkRefused(t *testing.T, err error, body []byte, f message.Format) {
	if errors.Is(err, message.ErrTooLarge) {
		return
	}
	invalid, ok := errors.AsType[*message.InvalidError](err)
	if !ok {
		t.Fatalf("got %T: %v", err, err)
	}
	// Refused without a reason: decode and diagnose disagree.
	if n := len(invalid.Entries); n < 1 || n > message.MaxReported {
		t.Fatalf("%d errors for %q", n, body)
	}
	_ = invalid.Error()
	entries := bytes.Count(body, []byte(",")) + 1
	if f == message.NDJSON {
		entries = bytes.Count(body, []byte("\n"))
	}
	last := 0
	for _, e := range invalid.Entries {
		if e.Detail == "" || len(e.Detail) > 200 || !utf8.ValidString(e.Detail) {
			t.Errorf("detail %q", e.Detail)
		}
		if e.Index == -1 {
			if e.Pointer != "" {
				t.Errorf("the whole body has the pointer %q", e.Pointer)
			}
			continue
		}
		if e.Index < last || e.Index > entries {
			t.Errorf("index %d after %d, among %d entries", e.Index, last, entries)
		}
		last = e.Index
		entry := fmt.Sprintf("/%d", e.Index)
		if f == message.JSON && bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
			entry = "" // the body is the entry
		}
		rest, ok := strings.CutPrefix(e.Pointer, entry)
		if !ok || rest != "" && rest[0] != '/' || !utf8.ValidString(rest) {
			t.Errorf("index %d has the pointer %q", e.Index, e.Pointer)
		}
		for part := range strings.SplitSeq(rest, "/") {
			if !token.MatchString(part) {
				t.Errorf("pointer %q", e.Pointer)
			}
		}
	}
}

var (
	escapedSurrogate = regexp.MustCompile(`(?i)\\ud[89a-f]`)
	contract         = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)
)

// acceptable tells that the rules accept an entry. It is slow and plain, and
// too timid to judge escaped surrogates.
func acceptable(raw []byte) bool {
	if !utf8.Valid(raw) || escapedSurrogate.Match(raw) || !strictNames(raw) {
		return false
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var entry map[string]any
	if dec.Decode(&entry) != nil || entry == nil {
		return false
	}
	text, _ := entry["timestamp"].(string)
	_, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || !contract.MatchString(text) || strings.HasPrefix(text, "0000") {
		return false
	}
	if v, ok := entry["value"]; ok {
		if _, ok := v.(string); !ok {
			return false
		}
	}
	_, ours := entry["message_id"]
	return !ours && depth(entry) <= message.MaxDepth
}

// strictNames tells that no object in raw has a name twice.
func strictNames(raw []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(raw))
	var walk func() bool
	walk = func() bool {
		tok, err := dec.Token()
		if err != nil {
			return false
		}
		seen := map[string]bool{}
		switch tok {
		case json.Delim('{'):
			for dec.More() {
				name, err := dec.Token()
				if err != nil || seen[name.(string)] || !walk() {
					return false
				}
				seen[name.(string)] = true
			}
			_, err = dec.Token()
		case json.Delim('['):
			for dec.More() {
				if !walk() {
					return false
				}
			}
			_, err = dec.Token()
		}
		return err == nil
	}
	return walk()
}

func depth(v any) int {
	deepest := 0
	switch v := v.(type) {
	case map[string]any:
		for _, member := range v {
			deepest = max(deepest, depth(member))
		}
	case []any:
		for _, element := range v {
			deepest = max(deepest, depth(element))
		}
	default:
		return 0
	}
	return deepest + 1
}
