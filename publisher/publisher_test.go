package publisher_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"

	"async-data-processor/message"
	"async-data-processor/publisher"
	"async-data-processor/shard"
)

// counts are the shard counts that the tests try.
var counts = []int{1, 2, 5, 16, 50}

// epoch is an instant for messages whose instant is not the point.
var epoch = time.Unix(0, 0).UTC()

// numbered returns message i at an instant, its line of exactly size bytes.
func numbered(i, size int, at time.Time) message.Message {
	head := fmt.Sprintf(`{"message_id":"S.%d","timestamp":"%s","value":"`, i, at.Format(time.RFC3339Nano))
	return message.Message{Line: []byte(head + strings.Repeat("x", size-len(head)-2) + `"}`), Time: at}
}

// carried submits to an idle publisher, whose broker confirms everything. It
// returns the envelopes, those of a shard in the order of their messages.
func carried(tb testing.TB, s message.Submission, n int) []message.Envelope {
	tb.Helper()
	var r recorder
	p := publisher.New(publisher.Config{Broker: oneByOne(r.publish), Shards: n, Timeout: time.Second})
	shards, err := p.Submit(tb.Context(), s)
	must(tb, err)
	total := 0
	for _, count := range shards {
		total += count.Messages
	}
	if total != len(s.Messages) {
		tb.Fatalf("%d of %d messages are counted: %v", total, len(s.Messages), shards)
	}
	slices.SortFunc(r.envelopes, func(a, b message.Envelope) int { return firstIndex(tb, a) - firstIndex(tb, b) })
	return r.envelopes
}

// oneByOne is a broker that publishes each envelope by itself.
func oneByOne(publish func(context.Context, message.Envelope) error) publisher.Func {
	return func(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
		var all sync.WaitGroup
		for i, e := range envelopes {
			all.Go(func() { done(i, publish(ctx, e)) })
		}
		all.Wait()
	}
}

// recorder is a broker that takes everything.
type recorder struct {
	mu        sync.Mutex
	envelopes []message.Envelope
}

func (r *recorder) publish(_ context.Context, e message.Envelope) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Body = bytes.Clone(e.Body)
	r.envelopes = append(r.envelopes, e)
	return nil
}

// firstIndex is the index that the envelope's first message has in its submission.
func firstIndex(tb testing.TB, e message.Envelope) int {
	tb.Helper()
	id := message.Message{Line: e.Body}.ID()
	i, err := strconv.Atoi(id[strings.LastIndexByte(id, '.')+1:])
	must(tb, err)
	return i
}

// checkCarried holds the envelopes of a submission against every promise of
// Submit, and returns how many each shard has.
func checkCarried(t *testing.T, s message.Submission, n int, envelopes []message.Envelope) []int {
	t.Helper()
	want := make([][]string, n) // the lines of each shard, in order
	for _, m := range s.Messages {
		i := shard.Of(m.Time, n)
		want[i] = append(want[i], string(m.Line))
	}
	got := make([][]string, n)
	perShard := make([]int, n)
	ids := map[string]bool{}
	for _, e := range envelopes {
		if _, err := ulid.ParseStrict(e.ID); err != nil || ids[e.ID] {
			t.Errorf("envelope id %q: seen %v, %v", e.ID, ids[e.ID], err)
		}
		ids[e.ID] = true
		if e.Shard < 0 || e.Shard >= n || e.Foreign {
			t.Fatalf("envelope of shard %d of %d, foreign %v", e.Shard, n, e.Foreign)
		}
		if len(e.Body) > message.MaxEnvelopeBytes {
			t.Errorf("envelope of %d bytes", len(e.Body))
		}
		messages, dead, err := message.Strict.Open(e)
		if err != nil || len(dead) > 0 {
			t.Fatalf("open: %v, %d dead lines", err, len(dead))
		}
		if len(messages) == 0 || len(messages) != e.Count {
			t.Errorf("%d messages, announced %d", len(messages), e.Count)
		}
		var body []byte
		for _, m := range messages {
			body = append(append(body, m.Line...), '\n')
			got[e.Shard] = append(got[e.Shard], string(m.Line))
		}
		if !bytes.Equal(body, e.Body) {
			t.Error("the body is not its lines, each with a newline")
		}
		perShard[e.Shard]++
	}
	for i := range want {
		if len(got[i]) != len(want[i]) {
			t.Fatalf("shard %d has %d messages, want %d", i, len(got[i]), len(want[i]))
		}
		for j := range want[i] {
			if got[i][j] != want[i][j] {
				t.Fatalf("shard %d, message %d\n got %.100s\nwant %.100s", i, j, got[i][j], want[i][j])
			}
		}
	}
	return perShard
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// decoded returns a submission of n messages, made as a server makes it.
func decoded(tb testing.TB, n int) message.Submission {
	tb.Helper()
	var body strings.Builder
	for i := range n {
		at := epoch.Add(time.Duration(i) * time.Minute).Format(time.RFC3339Nano)
		fmt.Fprintf(&body, "{\"timestamp\":%q,\"value\":\"reading %05d\"}\n", at, i)
	}
	s, err := message.Decode(message.NewID(), []byte(body.String()), message.NDJSON)
	must(tb, err)
	return s
}

func TestSubmit(t *testing.T) {
	for _, size := range []int{1, 2, 100, 1000} {
		s := decoded(t, size)
		for _, n := range counts {
			for i, envelopes := range checkCarried(t, s, n, carried(t, s, n)) {
				if envelopes > 1 {
					t.Errorf("%d small messages of shard %d of %d are in %d envelopes, want 1", size, i, n, envelopes)
				}
			}
		}
	}
}

func TestSubmitNothing(t *testing.T) {
	if got := carried(t, message.Submission{ID: "S"}, 5); len(got) != 0 {
		t.Errorf("got %d envelopes of no messages", len(got))
	}
}

// TestEnvelopesFill goes to the last byte of an envelope and one beyond.
func TestEnvelopesFill(t *testing.T) {
	const half = message.MaxEnvelopeBytes/2 - 1 // with its newline, half an envelope
	tests := []struct {
		name  string
		sizes []int // of the lines
		want  int   // envelopes
	}{
		{"exactly full", []int{half, half}, 1},
		{"a byte too many", []int{half, half + 1}, 2},
		{"full twice", []int{half, half, half, half}, 2},
		{"full, and one more", []int{half, half, 100}, 2},
		{"a small one comes after larger ones, whose order it keeps", []int{half, half + 1, 100, half}, 3},
		{"one alone as big as an envelope", []int{message.MaxEnvelopeBytes - 1, 100}, 2},
		{"many big ones", []int{half, half, half, half, half, half, half}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s message.Submission
			for i, size := range tt.sizes {
				s.Messages = append(s.Messages, numbered(i, size, epoch))
			}
			if got := checkCarried(t, s, 1, carried(t, s, 1))[0]; got != tt.want {
				t.Errorf("%d envelopes, want %d", got, tt.want)
			}
		})
	}
}

// TestAnySizes mixes sizes and shards, the biggest entries included.
func TestAnySizes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	sizes := []int{100, 200, 5_000, 60_000, message.MaxEntryBytes}
	for range 3 {
		var s message.Submission
		for i := range 60 {
			size := sizes[random.IntN(len(sizes))]
			s.Messages = append(s.Messages, numbered(i, size, epoch.Add(time.Duration(random.IntN(1e9)))))
		}
		for _, n := range []int{1, 5, 16} {
			checkCarried(t, s, n, carried(t, s, n))
		}
	}
}

// TestLargestEntries: the largest entry, under the longest id that is
// ours, still fits an envelope.
func TestLargestEntries(t *testing.T) {
	const empty = `{"timestamp":"2019-10-12T08:10:54Z","value":""}`
	entry := empty[:len(empty)-2] + strings.Repeat("x", message.MaxEntryBytes-len(empty)) + `"}`
	s, err := message.Decode(message.NewID(), []byte("["+entry+","+entry+","+entry+"]"), message.JSON)
	must(t, err)
	envelopes := carried(t, s, 5)
	checkCarried(t, s, 5, envelopes)
	if len(envelopes) != 3 {
		t.Errorf("%d envelopes, want 3", len(envelopes))
	}
}

// TestSubmitCopies: an envelope outlives the submission it came from, and its
// body that of a publish whose outcome is open.
func TestSubmitCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bodies, before [][]byte
		silent := true
		broker := oneByOne(func(ctx context.Context, e message.Envelope) error {
			if !silent {
				return nil
			}
			bodies = append(bodies, e.Body)
			before = append(before, bytes.Clone(e.Body))
			<-ctx.Done()
			return context.Cause(ctx)
		})
		p := publisher.New(publisher.Config{Broker: broker, Shards: 1, Timeout: time.Second})
		s := decoded(t, 50)
		if _, err := p.Submit(t.Context(), s); err == nil {
			t.Fatal("no error although nothing was confirmed")
		}
		for _, m := range s.Messages {
			clear(m.Line)
		}
		silent = false
		for range 200 {
			if _, err := p.Submit(t.Context(), decoded(t, 40)); err != nil { // less, so that its body would do
				t.Fatal(err)
			}
		}
		for i, body := range bodies {
			if !bytes.Equal(body, before[i]) {
				t.Error("the envelope changed while a socket may have it")
			}
		}
	})
}
