package runner

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"async-data-processor/jobs/frame"
)

func itoa(n int) string { return strconv.Itoa(n) }

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMask: no part of a secret passes, however the output is cut, and nothing else is lost.
func TestMask(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.SampledFrom([]byte("abc"))
		text := rapid.SliceOfN(letters, 40, 90).Draw(t, "text")
		var secrets []string
		for range rapid.IntRange(1, 3).Draw(t, "secrets") {
			secrets = append(secrets, string(rapid.SliceOfN(letters, 3, 6).Draw(t, "secret")))
		}
		hidden := make([]bool, len(text)+1)
		for _, s := range secrets {
			for i := range text {
				if len(s) >= shortestSecret && bytes.HasPrefix(text[i:], []byte(s)) {
					for j := range s {
						hidden[i+j] = true
					}
				}
			}
		}
		want := make([]byte, 0, len(text))
		for i, c := range text {
			if !hidden[i] {
				want = append(want, c)
			}
		}
		var out bytes.Buffer
		m := newMasker(&out, secrets)
		for rest := text; len(rest) > 0; {
			n := min(rapid.IntRange(1, 6).Draw(t, "part"), len(rest))
			if _, err := m.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(out.String(), "***", ""); got != string(want) {
			t.Errorf("%q without %q is %q, want %q with ***", text, secrets, out.String(), want)
		}
	})
}

// TestLogIsBounded: of a long log the head and the tail are kept, and it says what is not. One
// that begins anywhere gets the rest.
func TestLogIsBounded(t *testing.T) {
	const lines = 20 << 20 / 16
	s := newSpool()
	defer s.close()
	var whole bytes.Buffer
	for n := range lines {
		whole.WriteString(strings.Repeat("x", 15-len(itoa(n))) + itoa(n) + "\n")
	}
	text := whole.Bytes()
	for rest := text; len(rest) > 0; {
		n := min(len(rest), 50_001)
		s.Write(rest[:n])
		rest = rest[n:]
	}
	if s.ready() != logHead {
		t.Errorf("%d bytes can be sent before the end", s.ready())
	}
	s.end()
	for _, from := range []int64{0, 12345, logHead, logHead + 99, int64(len(text)) - logTail, int64(len(text)) - 1, int64(len(text))} {
		at, cut := from, int64(0)
		for at < s.ready() {
			data, gone := s.part(at)
			if !bytes.Equal(data, text[at:at+int64(len(data))]) || len(data) > frame.MaxLogPart || len(data) == 0 && gone == 0 {
				t.Fatalf("at %d: %d bytes that are not of there", at, len(data))
			}
			at += int64(len(data)) + gone
			cut += gone
		}
		if want := max(0, int64(len(text))-logTail-max(from, logHead)); cut != want || at != int64(len(text)) {
			t.Errorf("from %d: %d bytes are cut, want %d; ends at %d of %d", from, cut, want, at, len(text))
		}
	}
}

// TestLogWithoutDisk: what the disk does not take is counted as cut.
func TestLogWithoutDisk(t *testing.T) {
	t.Setenv("TMPDIR", "/no/such/folder")
	s := newSpool()
	defer s.close()
	s.Write(bytes.Repeat([]byte("a"), 3*logTail))
	s.Write([]byte("end"))
	s.end()
	if data, cut := s.part(0); len(data) != 0 || cut != 2*logTail+3 {
		t.Errorf("%d bytes, %d are cut", len(data), cut)
	}
	if data, _ := s.part(s.ready() - 3); string(data) != "end" {
		t.Errorf("the last are %q", data)
	}
}
