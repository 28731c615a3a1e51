package message_test

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"async-data-processor/message"
)

// checkULID holds an id against the form that clients and file names rely on.
func checkULID(t *testing.T, id string) ulid.ULID {
	t.Helper()
	u, err := ulid.ParseStrict(id)
	if err != nil || len(id) != 26 || strings.Trim(id, "0123456789ABCDEFGHJKMNPQRSTVWXYZ") != "" {
		t.Fatalf("%q is not a ULID: %v", id, err)
	}
	return u
}

func TestNewID(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	ids := make([]string, 10_000)
	for i := range ids {
		ids[i] = message.NewID()
	}
	after := time.Now()

	last := before
	for _, id := range ids {
		made := ulid.Time(checkULID(t, id).Time())
		if made.Before(last) || made.After(after) {
			t.Fatalf("%s is of %v, want a time from %v to %v", id, made, last, after)
		}
		last = made
	}
	slices.Sort(ids)
	if n := len(slices.Compact(ids)); n != 10_000 {
		t.Errorf("%d different ids of 10000", n)
	}
}

// TestSequence: each sorts behind the one before, and behind those to follow, also when
// the clock jumps back.
func TestSequence(t *testing.T) {
	var s message.Sequence
	now := time.Now()
	last := ""
	next := func(at, want time.Time) {
		t.Helper()
		id := s.Next(at)
		if made := ulid.Time(checkULID(t, id).Time()); id <= last || !made.Equal(want.Truncate(time.Millisecond)) {
			t.Fatalf("%s of %v behind %s, want one of %v", id, made, last, want)
		}
		last = id
	}
	for range 10_000 {
		next(now, now)
	}
	next(now.Add(-24*time.Hour), now)
	next(time.Unix(0, 0), now)
	next(time.Unix(-9, 0), now)
	ahead := now.AddDate(10, 0, 0)
	next(ahead, ahead)
	next(now, ahead)
	s.Follow(now)
	next(now, ahead)
	s.Follow(ahead)
	next(now, ahead.Add(time.Millisecond))
	next(ahead.Add(time.Second), ahead.Add(time.Second))
}

// TestIDsStay: ids share memory, which must not show.
func TestIDsStay(t *testing.T) {
	var ids, copies []string
	for range 1000 {
		id := message.NewID()
		ids, copies = append(ids, id), append(copies, strings.Clone(id))
	}
	if !slices.Equal(ids, copies) {
		t.Error("an id changed when another was made")
	}
}

func TestKeyedID(t *testing.T) {
	long := strings.Repeat("k", 255)
	inputs := []struct{ scope, key, body string }{
		{"", "", ""},
		{"", "a", "bc"},
		{"", "ab", "c"},
		{"", "abc", ""},
		{"", "", "abc"},
		{"", "A", "bc"},
		{"", "a", "bc "},
		{"", "a", "[]"},
		{"", "b", "[]"},
		{"", long, "[]"},
		{"", long[1:], "k[]"},
		{"", "\x00", ""},
		{"", "", "\x00"},
		{"", "", "\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"a", "b", "c"},
		{"b", "b", "c"},
		{"a", "bc", ""},
		{"ab", "", "c"},
		{"ab", "c", ""},
		{"abc", "", ""},
		// What the hash reads for a scope, as a key and as a body.
		{"", "\xff\xff\xff\xff\xff\xff\xff\xfea", "c"},
		{"", "", "\xff\xff\xff\xff\xff\xff\xff\xfea\x00\x00\x00\x00\x00\x00\x00\x01bc"},
	}
	seen := map[string]int{}
	for i, in := range inputs {
		id := message.ScopedID(in.scope, in.key, []byte(in.body))
		checkULID(t, id)
		if j, ok := seen[id]; ok {
			t.Errorf("%q and %q have the same id %s", inputs[j], in, id)
		}
		seen[id] = i
		if again := message.ScopedID(strings.Clone(in.scope), strings.Clone(in.key), []byte(in.body)); again != id {
			t.Errorf("%q has the ids %s and %s", in, id, again)
		}
		if again := message.KeyedID(in.key, []byte(in.body)); (again == id) != (in.scope == "") {
			t.Errorf("%q has the id %s, and without a scope %s", in, id, again)
		}
	}
}

// TestKeyedIDForever pins the hash: a client may retry after an upgrade, and
// its message must still be met as the same one. Never change what it wants.
func TestKeyedIDForever(t *testing.T) {
	for _, tt := range []struct{ scope, key, body, want string }{
		{"", "", "", "5FANRFB8C11DXFF35F9F3GMSGF"},
		{"", "order-42", `[{` + at + `}]`, "6AEFB7KN3FBCYYBF5JN1A4VVYR"},
		{"sensors", "order-42", `[{` + at + `}]`, "5S6D2856PBXZTQSSRWP55XPRYS"},
	} {
		if got := message.ScopedID(tt.scope, tt.key, []byte(tt.body)); got != tt.want {
			t.Errorf("ScopedID(%q, %q, %q) = %s, want %s", tt.scope, tt.key, tt.body, got, tt.want)
		}
	}
}

// TestCount: an id says how many messages its submission has, and keeps its time.
func TestCount(t *testing.T) {
	for _, n := range []int{1, 2, 31, 32, 1023, 1024, message.MaxEntries} {
		for _, plain := range []string{message.NewID(), message.KeyedID("k", nil), strings.Repeat("7", 26), strings.Repeat("0", 26)} {
			id := message.WithCount(plain, n)
			checkULID(t, id)
			if id[:23] != plain[:23] {
				t.Errorf("%s became %s", plain, id)
			}
			for _, text := range []string{id, id + ".0", id + "." + strconv.Itoa(n-1)} {
				if got, ok := message.CountOf(text); got != n || !ok {
					t.Errorf("%s is of %d messages (%v), want %d", text, got, ok, n)
				}
			}
		}
	}
	some := message.WithCount(message.NewID(), 12)
	for _, text := range []string{
		"", "x", some[1:], some + "0", strings.ToLower(some), some + ".", some + ".12", some + ".-1", some + ".01", some + ".+1", some + ".1.1",
		message.WithCount(some, 0), message.WithCount(some, message.MaxEntries+1), "8" + some[1:],
	} {
		if n, ok := message.CountOf(text); ok {
			t.Errorf("%q is of %d messages", text, n)
		}
	}
}

// TestNumber: the count is in the id of the submission and of each message, whichever way
// the body was read.
func TestNumber(t *testing.T) {
	rare := `{"timestamp":"2019-10-12T08:10:54Z","\u0061":1}`
	for name, body := range map[string]string{"one": `{` + at + `}`, "array": `[{` + at + `},{` + at + `},{` + at + `}]`, "rare": "[" + rare + "," + rare + "]"} {
		s, err := message.Decode(message.NewID(), []byte(body), message.JSON)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.Number()
		if n, ok := message.CountOf(s.ID); !ok || n != len(s.Messages) {
			t.Errorf("%s: %s is of %d messages, want %d", name, s.ID, n, len(s.Messages))
		}
		for i, m := range s.Messages {
			if want := fmt.Sprintf("%s.%d", s.ID, i); m.ID() != want {
				t.Errorf("%s: message %d is %s, want %s", name, i, m.ID(), want)
			}
			if _, err := message.Strict.ParseLine(m.Line); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestMessageID(t *testing.T) {
	for line, want := range map[string]string{
		`{"message_id":"S.0",` + at + `}`:   "S.0",
		`{"message_id":"S.0"}`:              "S.0",
		`{"message_id":""}`:                 "",
		`{"message_id":"S.0`:                "",
		`{"message_id":1}`:                  "",
		`{"message_id": "S.0"}`:             "",
		`{` + at + `,"message_id":"S.0"}`:   "",
		`{"a":{"message_id":"S.0"}}`:        "",
		``:                                  "",
		`{`:                                 "",
		`{"message_id":"S.0","message_id":`: "S.0",
	} {
		if got := (message.Message{Line: []byte(line)}).ID(); got != want {
			t.Errorf("%s has the id %q, want %q", line, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	var got bytes.Buffer
	for _, c := range []message.Cause{message.Full, message.Lingered, message.Flushed} {
		got.WriteString(c.String() + " ")
	}
	for _, k := range []message.OutcomeKind{message.Ack, message.DeadLetter, message.Return} {
		got.WriteString(k.String() + " ")
	}
	if want := "full lingered flushed ack dead-letter return "; got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}
