package message_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"async-data-processor/message"
)

// inBoth runs a test on the entries as an array and as lines.
func inBoth(t *testing.T, entries []string, test func(t *testing.T, body []byte, f message.Format)) {
	t.Helper()
	t.Run("json", func(t *testing.T) { test(t, []byte("["+strings.Join(entries, ",")+"]"), message.JSON) })
	t.Run("ndjson", func(t *testing.T) { test(t, []byte(strings.Join(entries, "\n")), message.NDJSON) })
}

// repeated returns n copies of an entry.
func repeated(entry string, n int) []string {
	return strings.Split(strings.Repeat(entry+"\n", n)[:n*(len(entry)+1)-1], "\n")
}

// sized returns an entry of exactly n bytes.
func sized(n int) string {
	const empty = `{` + at + `,"value":""}`
	return empty[:len(empty)-2] + strings.Repeat("x", n-len(empty)) + `"}`
}

// nested returns an entry that nests n deep, itself counted.
func nested(n int, opening, closing string) string {
	return `{` + at + `,"o":` + strings.Repeat(opening, n-1) + "1" + strings.Repeat(closing, n-1) + `}`
}

// TestMaxEnvelopeMessages: no line of ours is shorter than the bound assumes.
func TestMaxEnvelopeMessages(t *testing.T) {
	s, err := message.Decode(message.NewID(), []byte(`[{"timestamp":"2019-10-12T08:10:54Z"}]`), message.JSON)
	must(t, err)
	if got := message.MaxEnvelopeBytes / (len(s.Messages[0].Line) + 1); got != message.MaxEnvelopeMessages {
		t.Errorf("%d lines fit, want %d", got, message.MaxEnvelopeMessages)
	}
}

func wantAccepted(n int) func(*testing.T, []byte, message.Format) {
	return func(t *testing.T, body []byte, f message.Format) {
		s, err := message.Decode(testID, body, f)
		must(t, err)
		if _, ok := message.Scan(message.Strict, testID, body, f); !ok && !rare(body) {
			t.Error("the scanner leaves it to jsontext")
		}
		if len(s.Messages) != n {
			t.Errorf("got %d messages, want %d", len(s.Messages), n)
		}
		if got, want := s.Messages[n-1].ID(), fmt.Sprintf("%s.%d", testID, n-1); got != want {
			t.Errorf("the last id is %q, want %q", got, want)
		}
	}
}

func wantTooLarge(t *testing.T, body []byte, f message.Format) {
	if _, ok := message.Scan(message.Strict, testID, body, f); ok {
		t.Error("the scanner takes it")
	}
	s, err := message.Decode(testID, body, f)
	if !errors.Is(err, message.ErrTooLarge) {
		t.Errorf("got error %v, want ErrTooLarge", err)
	}
	if _, ok := errors.AsType[*message.InvalidError](err); ok {
		t.Errorf("%v is an InvalidError as well", err)
	}
	if s.ID != "" || s.Messages != nil {
		t.Errorf("a refused body gave %d messages", len(s.Messages))
	}
}

func TestDecodeLimitOfEntries(t *testing.T) {
	const entry = `{` + at + `}`
	inBoth(t, repeated(entry, message.MaxEntries), wantAccepted(message.MaxEntries))
	inBoth(t, repeated(entry, message.MaxEntries+1), wantTooLarge)
	// A body that is both too large and invalid is too large: what is wrong
	// with its entries is not the first thing its client has to repair.
	inBoth(t, append([]string{"{}"}, repeated(entry, message.MaxEntries)...), wantTooLarge)
}

func TestDecodeLimitOfAnEntry(t *testing.T) {
	small := `{` + at + `}`
	inBoth(t, []string{small, sized(message.MaxEntryBytes)}, wantAccepted(2))
	inBoth(t, []string{sized(message.MaxEntryBytes + 1), small}, wantTooLarge)
	inBoth(t, []string{small, sized(message.MaxEntryBytes + 1)}, wantTooLarge)
	inBoth(t, []string{`{}`, sized(message.MaxEntryBytes + 1)}, wantTooLarge)

	// White space around an entry is not part of it, what is in it is.
	space := strings.Repeat(" ", message.MaxEntryBytes)
	inBoth(t, []string{space + sized(message.MaxEntryBytes) + space}, wantAccepted(1))
	inBoth(t, []string{"{" + space + small[1:]}, wantTooLarge)
}

func TestDecodeLimitOfDepth(t *testing.T) {
	for _, pair := range [][2]string{{"[", "]"}, {`{"a":`, "}"}, {`{"a":1,"b":`, `,"c":"]"}`}} {
		inBoth(t, []string{nested(message.MaxDepth, pair[0], pair[1])}, wantAccepted(1))
		inBoth(t, []string{nested(message.MaxDepth+1, pair[0], pair[1])}, func(t *testing.T, body []byte, f message.Format) {
			equalFound(t, decodeInvalid(t, string(body), f), []found{{0, "/0", "32 deep"}})
		})
	}
	inBoth(t, []string{strings.Replace(nested(message.MaxDepth, "[", "]"), "[1]", "[]", 1)}, wantAccepted(1))
	// Depth is how deep, not how often.
	wide := `{` + at + `,"o":[` + strings.Repeat(`{"a":[{}]},`, 100) + `[]]}`
	inBoth(t, []string{wide}, wantAccepted(1))
	// Brackets in strings do not nest.
	inBoth(t, []string{`{` + at + `,"value":"` + strings.Repeat("[{", 100) + `"}`}, wantAccepted(1))
}

// TestDecodeAbyss: depth must cost neither stack nor time.
func TestDecodeAbyss(t *testing.T) {
	for _, n := range []int{9_998, 9_999, 10_000, 10_001, 1_000_000} {
		open, closed := strings.Repeat("[", n), strings.Repeat("[", n)+strings.Repeat("]", n)
		for _, body := range []string{open, closed, strings.Repeat(`{"a":`, n)} {
			decodeInvalid(t, body, message.JSON)
			decodeInvalid(t, body, message.NDJSON)
		}
		// Just inside what the JSON library allows and just outside, an entry
		// that deep must be found wrong by both readings of the body.
		got := decodeInvalid(t, `[{`+at+`,"o":`+closed+`}]`, message.JSON)
		if len(got) != 1 || got[0].Index != 0 {
			t.Errorf("%d deep: %+v", n, got)
		}
	}
}
