package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker/jetstream"
	"async-data-processor/message"
)

// The store of these tests has two blocks, of 32 kB, which is the server's
// choice for a stream that may hold so little; without a limit it is 4 MB.
const (
	damageLimit     = 120_000
	damageEnvelopes = 12
	// returnedEnvelopes are so many besides.
	returnedEnvelopes = 3
	damageSize        = 4 << 10
)

// A store and the ids in it, made once per kind. Tests copy it.
type image struct {
	dir string
	ids map[string]bool
}

// closedImage is a store that was closed in order.
func closedImage(t *testing.T) image {
	t.Helper()
	im := image{dir: t.TempDir()}
	e := openBroker(t, configFor(im.dir))
	im.fill(t, e)
	closeBroker(t, e)
	return im
}

// crashedImage is a store as a killed process leaves it: the copy of one that
// is open. The highWaters know all of it.
func crashedImage(t *testing.T) image {
	t.Helper()
	im := image{dir: t.TempDir()}
	open := image{dir: t.TempDir()}
	e := openBroker(t, configFor(open.dir))
	open.fill(t, e)
	sequence := uint64(0)
	streams, err := e.running().streams()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		if s.Name == jetstream.ShardStream {
			sequence = s.State.LastSeq
		}
	}
	awaitTrue(t, func() error {
		if highWater := e.store.readHighWaters()[jetstream.ShardStream]; highWater != sequence {
			return fmt.Errorf("the highWater is %d, want %d", highWater, sequence)
		}
		// The state of the consumer is written in the background.
		state, err := os.ReadFile(open.state())
		if p, ok := readProgress(state); !ok || len(p.again) != returnedEnvelopes {
			return fmt.Errorf("the consumer is at %+v, %v", p, err)
		}
		return nil
	})
	im.ids = open.ids
	copyTree(t, open.dir, im.dir)
	closeBroker(t, e)
	return im
}

// fill publishes, and has one envelope acknowledged, and three returned twice, so
// that there is a consumer with a state that has all that one can have.
func (im *image) fill(t *testing.T, e *Broker) {
	t.Helper()
	administer(t, e, func(ctx context.Context, js natsjs.JetStream) error {
		stream, err := js.Stream(ctx, jetstream.ShardStream)
		if err != nil {
			return err
		}
		limited := stream.CachedInfo().Config
		limited.MaxBytes = damageLimit
		if err := js.DeleteStream(ctx, jetstream.ShardStream); err != nil {
			return err
		}
		_, err = js.CreateStream(ctx, limited)
		return err
	})
	gone := publishSome(t, e, 1, 100)
	take(t, e, gone, message.Ack)
	im.ids = publishSome(t, e, returnedEnvelopes, 100)
	for range 2 {
		take(t, e, im.ids, message.Return)
	}
	maps.Copy(im.ids, publishSome(t, e, damageEnvelopes, damageSize))
}

func (im *image) copy(t *testing.T) image {
	t.Helper()
	c := image{dir: t.TempDir(), ids: im.ids}
	copyTree(t, im.dir, c.dir)
	return c
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(from, path)
		if err := errors.Join(err, relErr); err != nil {
			return ignoreMissing(err)
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return ignoreMissing(err) // a temporary file of a server that runs
		}
		return os.WriteFile(filepath.Join(to, rel), text, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (im *image) path(elem ...string) string {
	return filepath.Join(append([]string{im.dir, streamsPath, jetstream.ShardStream}, elem...)...)
}

// blocks are the block files that hold something.
func (im *image) blocks(t *testing.T) []block {
	t.Helper()
	blocks, err := blocksIn(im.path(messagesName))
	if err != nil {
		t.Fatal(err)
	}
	blocks = slices.DeleteFunc(blocks, func(b block) bool { return b.size == 0 })
	if len(blocks) != 2 {
		t.Fatalf("%d blocks, want 2", len(blocks))
	}
	return blocks
}

// edit changes a file of the store.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (im *image) state() string { return im.path(consumerPath, shardConsumer, stateName) }

func flip(at int) func([]byte) []byte {
	return func(text []byte) []byte {
		text[(at+len(text))%len(text)] ^= 0x10
		return text
	}
}

// recordsIn are the offsets of a block's records, and its end.
func recordsIn(t *testing.T, b block) []int {
	t.Helper()
	r := blockReader{stream: jetstream.ShardStream}
	if err := r.load(b); err != nil {
		t.Fatal(err)
	}
	offsets := []int{0}
	for at := 0; at < len(r.buf); {
		_, n := r.at(at)
		if n == 0 {
			t.Fatalf("%s: bad record at %d", b.path, at)
		}
		at += n
		offsets = append(offsets, at)
	}
	return offsets
}
