package message_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"async-data-processor/message"
)

// TestRecycle has submissions of many sizes use each other's memory, from
// several goroutines: each must see its own lines until it is recycled.
func TestRecycle(t *testing.T) {
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 200 {
				n := (i*7+g)%40 + 1
				body := strings.Repeat(fmt.Sprintf("{%s,\"g\":%d,\"i\":%d}\n", at, g, i), n)
				s, err := message.Decode(testID, []byte(body), message.NDJSON)
				if err != nil || len(s.Messages) != n {
					t.Errorf("%d messages, want %d: %v", len(s.Messages), n, err)
					return
				}
				for j, m := range s.Messages {
					if want := fmt.Sprintf(`{"message_id":"S.%d",%s,"g":%d,"i":%d}`, j, at, g, i); string(m.Line) != want {
						t.Errorf("got %s, want %s", m.Line, want)
					}
				}
				s.Recycle()
				if s.Messages != nil {
					t.Error("messages are left")
				}
			}
		})
	}
	group.Wait()
}

// TestRecycleOnce: a second time must not give away what another has by now,
// nor must the first if the body was one for jsontext.
func TestRecycleOnce(t *testing.T) {
	body := []byte(`[{` + at + `,"\u0061":1}]`)
	rare, err := message.Decode(testID, body, message.JSON)
	must(t, err)
	line := rare.Messages[0].Line
	want := bytes.Clone(line)
	rare.Recycle()
	first := decodeOne(t, "first")
	first.Recycle()
	second := decodeOne(t, "second")
	first.Recycle()
	third := decodeOne(t, "third")
	for s, want := range map[*message.Submission]string{&second: "second", &third: "third"} {
		if got := string(s.Messages[0].Line); !strings.Contains(got, want) {
			t.Errorf("%s became %s", want, got)
		}
	}
	if !bytes.Equal(line, want) {
		t.Errorf("a line that is not ours became %s", line)
	}
}

func decodeOne(t *testing.T, value string) message.Submission {
	t.Helper()
	s, err := message.Decode(testID, []byte(`[{`+at+`,"value":"`+value+`"}]`), message.JSON)
	must(t, err)
	return s
}

// TestDecodeLeavesThePoolClean: what a refused body has left is not seen.
func TestDecodeLeavesThePoolClean(t *testing.T) {
	for range 100 {
		if _, err := message.Decode(testID, []byte(`[{`+at+`},{`+at+`},{]`), message.JSON); err == nil {
			t.Fatal("accepted")
		}
		s := decodeOne(t, "x")
		equalLines(t, s.Messages, []string{`{"message_id":"S.0",` + at + `,"value":"x"}`})
		s.Recycle()
	}
}

// TestMemoryKept: a large submission does not leave a large buffer.
func TestMemoryKept(t *testing.T) {
	for lines, want := range map[int]bool{1 << 10: true, 1 << 20: true, 1<<20 + 1: false, 20 << 20: false} {
		if got := message.Kept(lines); got != want {
			t.Errorf("a buffer of %d bytes is kept: %v, want %v", lines, got, want)
		}
	}
}

// TestDecodeAllocates: with its memory recycled a submission costs next to
// nothing. The race detector makes a pool forget a quarter of what it gets.
func TestDecodeAllocates(t *testing.T) {
	entries := entriesOf(100)
	for f, body := range map[message.Format]string{message.JSON: "[" + strings.Join(entries, ",") + "]", message.NDJSON: strings.Join(entries, "\n")} {
		text := []byte(body)
		if n := testing.AllocsPerRun(100, func() {
			s, err := message.Decode(testID, text, f)
			must(t, err)
			s.Recycle()
		}); n > 5 {
			t.Errorf("%v allocations for 100 entries in format %d", n, f)
		}
	}
}
