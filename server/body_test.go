package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"async-data-processor/message"
)

// TestRow10Bomb decompresses to three or ten times what is allowed. All that the request
// may cost is a body of the largest size, and what growing to it throws away.
func TestRow10Bomb(t *testing.T) {
	const huge = 32 << 20
	zeros := strings.Repeat("\x00", huge)
	streamed := new(bytes.Buffer) // a stream does not tell its length
	w, err := zstd.NewWriter(streamed)
	must(t, err)
	if _, err := io.WriteString(w, zeros); err != nil {
		t.Fatal(err)
	}
	must(t, w.Close())
	for _, tc := range []struct{ name, encoding, body string }{
		{"gzip", "gzip", gzipOf(t, zeros)},
		{"zstd", "zstd", zstdOf(t, zeros)},
		{"zstd stream", "zstd", streamed.String()},
		{"gzip of many members", "gzip", strings.Repeat(gzipOf(t, strings.Repeat(" ", 1<<20)), 100)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if len(tc.body) > 200<<10 {
				t.Fatalf("the bomb has %d bytes, which is none", len(tc.body))
			}
			rg := start(t, Config{})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			wantProblem(t, rg.post(tc.body, "Content-Encoding", tc.encoding), tooLarge)
			runtime.ReadMemStats(&after)
			if spent := after.TotalAlloc - before.TotalAlloc; spent > 48<<20 {
				t.Errorf("spent %d MiB on it", spent>>20)
			}
			rg.wantSubmitted(0)
		})
	}
}

// TestRow10Nothing decompresses to nothing, for ever.
func TestRow10Nothing(t *testing.T) {
	empty := gzipOf(t, "")
	rg := start(t, Config{})
	wantProblem(t, rg.post(strings.Repeat(empty, maxEncodedBytes/len(empty)+1), "Content-Encoding", "gzip"), tooLarge)
	wantProblem(t, rg.do("POST", "/message", struct{ io.Reader }{strings.NewReader(strings.Repeat(empty, maxEncodedBytes/len(empty)+1))},
		"Content-Type", "application/json", "Content-Encoding", "gzip"), tooLarge)
	wantProblem(t, rg.post(empty, "Content-Encoding", "gzip"), invalidSubmission)
	rg.wantSubmitted(0)
}

// TestLargestCompressed sends a body of the largest size in every encoding.
func TestLargestCompressed(t *testing.T) {
	body := entry + strings.Repeat(" ", MaxBodyBytes-len(entry))
	rg := start(t, Config{MaxInFlight: 1})
	rg.then = func(context.Context, message.Submission) error {
		// The compressed form is not held, and not counted, until the answer.
		if used := rg.server.budget.used.Load(); used != MaxBodyBytes+1 {
			t.Errorf("%d bytes are in flight, want %d", used, MaxBodyBytes+1)
		}
		return nil
	}
	for encoding, text := range map[string]string{"gzip": gzipOf(t, body), "zstd": zstdOf(t, body)} {
		want201(t, rg.post(text, "Content-Encoding", encoding), 1)
	}
	want201(t, rg.post(body), 1)
	wantProblem(t, rg.post(zstdOf(t, body+" "), "Content-Encoding", "zstd"), tooLarge)
	wantProblem(t, rg.post(gzipOf(t, body+" "), "Content-Encoding", "gzip"), tooLarge)
}

// TestZstdWindow claims a window that is too large to allocate: a frame header
// with a window of 256 MiB and one raw block of one byte.
func TestZstdWindow(t *testing.T) {
	frame := "\x28\xb5\x2f\xfd" + "\x00" + string([]byte{18 << 3}) + "\x09\x00\x00" + "x"
	rg := start(t, Config{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	wantProblem(t, rg.post(frame, "Content-Encoding", "zstd"), tooLarge)
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 16<<20 {
		t.Errorf("spent %d MiB on it", spent>>20)
	}
}

// TestInFlight fills the budget with requests whose broker is slow.
func TestInFlight(t *testing.T) {
	rg := start(t, Config{MaxInFlight: 1}) // raised to MinInFlight, 20 MiB and a bit
	entered, release := rg.hold()
	large := entry + strings.Repeat(" ", MaxBodyBytes-len(entry))
	answers := make(chan answer)
	for range 2 {
		go func() { answers <- rg.post(large) }()
		<-entered
	}
	for name, a := range map[string]answer{
		"plain":      rg.post(large),
		"compressed": rg.post(gzipOf(t, large), "Content-Encoding", "gzip"),
		"chunked":    rg.do("POST", "/message", struct{ io.Reader }{strings.NewReader(large)}, "Content-Type", "application/json"),
	} {
		t.Run(name, func(t *testing.T) { wantProblem(t, a, overloaded) })
	}
	close(release)
	for range 2 {
		want201(t, <-answers, 1)
	}
	rg.then = nil
	want201(t, rg.post(large), 1)
	rg.wantSubmitted(3)
}

func TestFill(t *testing.T) {
	text := strings.Repeat("0123456789", 10_000)
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		src         io.Reader
		hint, limit int64
		budget      int64
		want        error
	}{
		"unknown length":      {strings.NewReader(text), -1, 1 << 20, 1 << 20, nil},
		"known length":        {strings.NewReader(text), 100_000, 1 << 20, 100_001, nil},
		"a length too small":  {strings.NewReader(text), 20_000, 1 << 20, 1 << 20, nil},
		"byte by byte":        {iotest.OneByteReader(strings.NewReader(text)), -1, 1 << 20, 1 << 20, nil},
		"data with the EOF":   {iotest.DataErrReader(strings.NewReader(text)), 100_000, 1 << 20, 1 << 20, nil},
		"exactly the limit":   {strings.NewReader(text), -1, 100_000, 1 << 20, nil},
		"one over the limit":  {strings.NewReader(text), -1, 99_999, 1 << 20, errTooLong},
		"endless":             {endless{}, -1, 99_999, 1 << 20, errTooLong},
		"over the budget":     {strings.NewReader(text), -1, 1 << 20, 50_000, errOverBudget},
		"over the share":      {strings.NewReader(text), -1, 1 << 20, 1 << 20, errOverShare},
		"no budget at all":    {strings.NewReader(text), -1, 1 << 20, 0, errOverBudget},
		"broken in the midst": {io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), -1, 1 << 20, 1 << 20, broken},
	} {
		t.Run(name, func(t *testing.T) {
			of, client := &budget{limit: tc.budget, share: 1 << 20}, new(atomic.Int64)
			if tc.want == errOverShare {
				of.share = 60_000
			}
			taken := share{of: of, client: client}
			b := newBuffer()
			defer b.recycle()
			if err := b.fill(tc.src, tc.hint, tc.limit, &taken); err != tc.want {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if tc.want == nil && string(b.data) != text {
				t.Errorf("got %d bytes, want %d", len(b.data), len(text))
			}
			if used := of.used.Load(); used != client.Load() || used != taken.bytes || used != b.room || used > max(tc.limit+1, firstChunk) || int64(len(b.data)) > used {
				t.Errorf("%d taken, %d in the share, %d in the buffer of %d bytes", used, taken.bytes, b.room, len(b.data))
			}
			taken.give(taken.bytes)
			if used := of.used.Load() + client.Load(); used != 0 {
				t.Errorf("%d not given back", used)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
