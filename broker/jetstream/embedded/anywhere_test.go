package embedded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker/jetstream"
	"async-data-processor/message"
)

// bitFlips sets how many bits TestDamageAnywhere flips, each run others.
const bitFlips = "EMBEDDED_TEST_FLIPS"

// TestDamageAnywhere flips a bit in one of the server's files: the store is
// refused, or everything is there.
func TestDamageAnywhere(t *testing.T) {
	t.Parallel()
	images := map[string]image{"closed": closedImage(t), "crashed": crashedImage(t)}
	flips, seed := 24, uint64(1)
	if text := os.Getenv(bitFlips); text != "" {
		var err error
		if flips, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		seed = rand.Uint64()
	}
	for kind, original := range images {
		root := filepath.Join(original.dir, ServerFolder)
		var paths []string
		for path, state := range contents(t, root) {
			if !strings.HasPrefix(state, "0 ") {
				rel, err := filepath.Rel(original.dir, path)
				if err != nil {
					t.Fatal(err)
				}
				paths = append(paths, rel)
			}
		}
		slices.Sort(paths)
		rnd := rand.New(rand.NewPCG(seed, 0))
		for i := range flips / len(images) {
			// Every file has its turn, as most of the bytes are in two of them.
			path := paths[(int(seed%1000)+i)%len(paths)]
			where, bit := rnd.Float64(), rnd.IntN(8)
			t.Run(fmt.Sprintf("%s, %s, bit %d at %.6f of it", kind, filepath.Base(path), bit, where), func(t *testing.T) {
				t.Parallel()
				im := original.copy(t)
				edit(t, filepath.Join(im.dir, path), func(text []byte) []byte {
					text[int(where*float64(len(text)))] ^= 1 << bit
					return text
				})
				e, err := Open(configFor(im.dir))
				if err != nil {
					if !errors.Is(err, ErrStoreDamaged) {
						t.Error(err)
					}
					return
				}
				take(t, e, im.ids, message.Ack)
				closeBroker(t, e)
			})
		}
	}
}

// TestStateAnywhere flips each bit of a consumer's state. Whatever the store
// makes of it, the consumer is then delivered every message again, and not later
// than if it had just been delivered.
func TestStateAnywhere(t *testing.T) {
	t.Parallel()
	for kind, im := range map[string]image{"closed": closedImage(t), "crashed": crashedImage(t)} {
		t.Run(kind, func(t *testing.T) {
			original, err := os.ReadFile(im.state())
			if err != nil {
				t.Fatal(err)
			}
			p, ok := readProgress(original)
			if !ok || len(p.pending) != returnedEnvelopes || len(p.again) != returnedEnvelopes {
				t.Fatalf("% x is %+v, %v; want all that were returned in hand", original, p, ok)
			}
			s, err := openStore(im.dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.unlock()
			kept := 0
			for i := range 8 * len(original) {
				text := slices.Clone(original)
				text[i/8] ^= 1 << (i % 8)
				if err := os.WriteFile(im.state(), text, 0o600); err != nil {
					t.Fatal(err)
				}
				if damages, err := s.check(); err != nil || len(damages) > 0 {
					t.Fatalf("bit %d: %v, %v", i, damages, err)
				}
				state, err := os.ReadFile(im.state())
				if err != nil {
					if ignoreMissing(err) != nil {
						t.Fatal(err)
					}
					continue
				}
				kept++
				p, ok := readProgress(state)
				if !ok {
					t.Fatalf("bit %d: % x", i, state)
				}
				im.comesAgain(t, p, i)
			}
			t.Logf("%d states of %d were kept", kept, 8*len(original))
		})
	}
}

// comesAgain checks that no message is behind what was delivered and not in
// hand, and that nothing in hand is from the future.
func (im *image) comesAgain(t *testing.T, p progress, bit int) {
	t.Helper()
	alive := map[uint64]bool{}
	r := blockReader{stream: jetstream.ShardStream}
	for _, b := range im.blocks(t) {
		if err := r.load(b); err != nil {
			t.Fatal(err)
		}
		r.walk(func(rec record) {
			if alive[rec.sequence] = true; rec.gone {
				delete(alive, rec.sequence)
			}
		})
	}
	if len(alive) != len(im.ids) {
		t.Fatalf("%d messages, want %d", len(alive), len(im.ids))
	}
	for sequence := range alive {
		if d, ok := p.pending[sequence]; sequence <= p.delivered && !ok || d.at > time.Now().Unix() {
			t.Errorf("bit %d: message %d never comes again, or late: %+v", bit, sequence, p)
		}
	}
}

// TestProgress: what the server wrote is read and written as it was; what it
// cannot have written is refused.
func TestProgress(t *testing.T) {
	t.Parallel()
	good := progress{
		ackedPlace: 300, acked: 200, deliveredPlace: 900, delivered: 700,
		pending: map[uint64]inHand{201: {301, 1e9}, 300: {350, 1e9 + 5}, 700: {600, 1e9 - 7}},
		again:   []recount{{1, 3}, {500, 2000}},
	}
	if got, ok := readProgress(good.encode()); !ok || fmt.Sprint(got) != fmt.Sprint(good) {
		t.Errorf("%+v became %+v, %v", good, got, ok)
	}
	for name, change := range map[string]func(*progress){
		"acknowledged more than delivered": func(p *progress) { p.acked = 701 },
		"more places acknowledged":         func(p *progress) { p.ackedPlace = 901 },
		"in hand though acknowledged":      func(p *progress) { p.pending[200] = inHand{302, 1e9} },
		"in hand though not delivered":     func(p *progress) { p.pending[701] = inHand{700, 1e9} },
		"a place that was acknowledged":    func(p *progress) { p.pending[201] = inHand{300, 1e9} },
		"a place that was not delivered":   func(p *progress) { p.pending[700] = inHand{901, 1e9} },
		"places out of order":              func(p *progress) { p.pending[201] = inHand{351, 1e9} },
		"a place twice":                    func(p *progress) { p.pending[201] = inHand{350, 1e9} },
		"before the epoch":                 func(p *progress) { p.pending[201] = inHand{301, -1} },
	} {
		bad, _ := readProgress(good.encode())
		change(&bad)
		if _, ok := readProgress(bad.encode()); ok {
			t.Errorf("%s: not refused", name)
		}
	}
	text := good.encode()
	for cut := range text {
		if _, ok := readProgress(text[:cut]); ok {
			t.Errorf("the first %d bytes of %d pass for a state", cut, len(text))
		}
	}
	if _, ok := readProgress(append(text, 0)); ok {
		t.Error("a longer one passes for a state")
	}
	if !good.clampFuture(1e9) || good.pending[300].at != 1e9 || good.pending[700].at != 1e9-7 || good.clampFuture(1e9) {
		t.Errorf("clamped: %+v", good)
	}
}
