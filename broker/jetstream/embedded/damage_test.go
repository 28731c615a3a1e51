package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/broker/jetstream"
	"async-data-processor/event"
	"async-data-processor/message"
)

// damageCase is something done to a store.
type damageCase struct {
	name string
	// do returns the path that a refusal has to name, "" if there must be none.
	do func(t *testing.T, im image) string
	// lost is how many envelopes are gone if the loss is accepted.
	lost int
}

var damageCases = []damageCase{
	{"nothing", func(*testing.T, image) string { return "" }, 0},
	{"byte in the last block", func(t *testing.T, im image) string {
		b := im.blocks(t)[1]
		edit(t, b.path, flip(int(b.size)/3))
		return b.path
	}, 1},
	{"byte in the first block", func(t *testing.T, im image) string {
		b := im.blocks(t)[0]
		edit(t, b.path, flip(int(b.size)/2))
		return b.path
	}, 1},
	{"length of a record in the last block", func(t *testing.T, im image) string {
		b := im.blocks(t)[1]
		edit(t, b.path, flip(recordsIn(t, b)[1]+2))
		return b.path
	}, 1},
	{"length of a header", func(t *testing.T, im image) string {
		// It stands behind the subject.
		b := im.blocks(t)[0]
		edit(t, b.path, flip(recordsIn(t, b)[3]+recordHead+len(shardSubject)))
		return b.path
	}, 1},
	{"length of a header, far too long", func(t *testing.T, im image) string {
		b := im.blocks(t)[0]
		edit(t, b.path, flip(recordsIn(t, b)[3]+recordHead+len(shardSubject)+3))
		return b.path
	}, 1},
	{"end of the first block", func(t *testing.T, im image) string {
		b := im.blocks(t)[0]
		edit(t, b.path, flip(-1))
		return b.path
	}, 1},
	{"first block cut in a record", func(t *testing.T, im image) string {
		b := im.blocks(t)[0]
		edit(t, b.path, func(text []byte) []byte { return text[:len(text)-10] })
		return b.path
	}, 1},
	{"last record", func(t *testing.T, im image) string {
		b := im.blocks(t)[1]
		edit(t, b.path, flip(-20))
		return im.path()
	}, 1},
	{"last block cut in a record", func(t *testing.T, im image) string {
		b := im.blocks(t)[1]
		edit(t, b.path, func(text []byte) []byte { return text[:len(text)-10] })
		return im.path()
	}, 1},
	{"last block cut between records", func(t *testing.T, im image) string {
		b := im.blocks(t)[1]
		records := recordsIn(t, b)
		edit(t, b.path, func(text []byte) []byte { return text[:records[len(records)-2]] })
		return im.path()
	}, 1},
	{"last block gone", func(t *testing.T, im image) string {
		b := im.blocks(t)[1]
		remove(t, b.path)
		return im.path()
	}, -1},
	{"all blocks gone", func(t *testing.T, im image) string {
		remove(t, im.path(messagesName))
		return im.path()
	}, -1},
	{"stream gone", func(t *testing.T, im image) string {
		remove(t, im.path())
		return im.path()
	}, -1},
	{"configuration of the stream", func(t *testing.T, im image) string {
		edit(t, im.path(metaName), flip(40))
		return im.path(metaName)
	}, -1},
	{"checksum of the configuration gone", func(t *testing.T, im image) string {
		remove(t, im.path(sumName))
		return im.path(metaName)
	}, -1},
	{"index", func(t *testing.T, im image) string {
		if _, err := os.Stat(im.path(messagesName, indexName)); errors.Is(err, fs.ErrNotExist) {
			return "" // a crashed one has none
		}
		edit(t, im.path(messagesName, indexName), flip(12))
		return ""
	}, 0},
	{"index gone", func(t *testing.T, im image) string {
		remove(t, im.path(messagesName, indexName))
		return ""
	}, 0},
	{"state of the consumer", func(t *testing.T, im image) string {
		edit(t, im.state(), func([]byte) []byte { return []byte("something else") })
		return ""
	}, 0},
	{"state of the consumer empty", func(t *testing.T, im image) string {
		edit(t, im.state(), func([]byte) []byte { return nil })
		return ""
	}, 0},
	{"state of the consumer ahead", func(t *testing.T, im image) string {
		// All delivered, all acknowledged: the server would remove the messages.
		edit(t, im.state(), func([]byte) []byte { return []byte{22, 2, 20, 20, 20, 20, 0, 0} })
		return ""
	}, 0},
	{"state of the consumer delivered all", func(t *testing.T, im image) string {
		edit(t, im.state(), func([]byte) []byte { return []byte{22, 2, 1, 1, 20, 20, 0, 0} })
		return ""
	}, 0},
	{"state of the consumer beyond the end", func(t *testing.T, im image) string {
		edit(t, im.state(), func([]byte) []byte { return []byte{22, 2, 1, 1, 1, 0xff, 0xff, 0x7f, 0, 0} })
		return ""
	}, 0},
	{"state of the consumer absurd", func(t *testing.T, im image) string {
		edit(t, im.state(), func([]byte) []byte { return []byte{22, 2, 1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0} })
		return ""
	}, 0},
	{"configuration of the consumer", func(t *testing.T, im image) string {
		edit(t, im.path(consumerPath, shardConsumer, metaName), flip(40))
		return ""
	}, 0},
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	onlyClosed := []damageCase{{"first block gone", func(t *testing.T, im image) string {
		b := im.blocks(t)[0]
		remove(t, b.path)
		return b.path
	}, -1}, {"first block cut between records", func(t *testing.T, im image) string {
		b := im.blocks(t)[0]
		records := recordsIn(t, b)
		edit(t, b.path, func(text []byte) []byte { return text[:records[len(records)-2]] })
		return b.path
	}, 1}, {"first block emptied", func(t *testing.T, im image) string {
		b := im.blocks(t)[0]
		edit(t, b.path, func([]byte) []byte { return nil })
		return b.path
	}, -1}}
	onlyCrashed := []damageCase{{"publish that was cut off", func(t *testing.T, im image) string {
		b := im.blocks(t)[1]
		edit(t, b.path, func(text []byte) []byte { return append(text, text[:1000]...) })
		return ""
	}, 0}, {"publish of which only the room is there", func(t *testing.T, im image) string {
		b := im.blocks(t)[1]
		edit(t, b.path, func(text []byte) []byte { return append(text, make([]byte, 5000)...) })
		return ""
	}, 0}, {"highWater that cannot be read", func(t *testing.T, im image) string {
		edit(t, filepath.Join(im.dir, highWaterPrefix+jetstream.ShardStream), func([]byte) []byte { return []byte("x") })
		return ""
	}, 0}}
	t.Run("closed", func(t *testing.T) {
		im := closedImage(t)
		for _, c := range slices.Concat(damageCases, onlyClosed) {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, im.copy(t))
			})
		}
	})
	t.Run("crashed", func(t *testing.T) {
		im := crashedImage(t)
		for _, c := range slices.Concat(damageCases, onlyCrashed) {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, im.copy(t))
			})
		}
	})
}

// run checks that the damage is either without consequence or refused, in
// which case nothing is changed and the loss can be accepted.
func (c damageCase) run(t *testing.T, im image) {
	names := c.do(t, im)
	cfg := configFor(im.dir)
	if names == "" {
		e := openBroker(t, cfg)
		take(t, e, im.ids, message.Ack)
		return
	}
	before := contents(t, im.dir)
	for range 2 {
		e, err := Open(cfg)
		if err == nil {
			defer e.Close()
			t.Fatal("it was opened")
		}
		if text := err.Error(); !errors.Is(err, ErrStoreDamaged) || !strings.Contains(text, names) || !strings.Contains(text, "accept the loss") {
			t.Errorf("got %v, want %v and %s", err, ErrStoreDamaged, names)
		}
	}
	if after := contents(t, im.dir); !maps.Equal(before, after) {
		t.Error("the refused store was changed")
	}

	repaired := make(chan event.Event, 100)
	cfg.AcceptLoss = true
	cfg.Events = func(e event.Event) {
		if _, ok := e.(event.StoreRepaired); ok {
			repaired <- e
		}
	}
	e := openBroker(t, cfg)
	if len(repaired) == 0 {
		t.Error("no event tells of the loss")
	}
	got, want := int(e.depth()), len(im.ids)-c.lost
	if c.lost >= 0 && got != want || c.lost < 0 && got >= len(im.ids) {
		t.Errorf("%d messages are left of %d, want %d", got, len(im.ids), want)
	}
	more := publishSome(t, e, 3, 100)
	closeBroker(t, e)

	// From now on it is a store like any other.
	cfg.AcceptLoss = false
	e = openBroker(t, cfg)
	take(t, e, more, message.Ack)
}

// contents are the files of a store except its lock, with what a change of
// them would change.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == lockName {
			return err
		}
		info, err := entry.Info()
		files[path] = fmt.Sprint(info.Size(), info.ModTime())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestDamagedBlockIsKept: what was lost to the broker is not lost to a person.
func TestDamagedBlockIsKept(t *testing.T) {
	for name, tc := range map[string]struct {
		image func(*testing.T) image
		block int
		at    func(block) int
	}{
		"in the middle":           {closedImage, 0, func(b block) int { return int(b.size) / 2 }},
		"at the end, after crash": {crashedImage, 1, func(block) int { return -20 }},
	} {
		t.Run(name, func(t *testing.T) {
			im := tc.image(t)
			b := im.blocks(t)[tc.block]
			edit(t, b.path, flip(tc.at(b)))
			want, err := os.ReadFile(b.path)
			if err != nil {
				t.Fatal(err)
			}
			cfg := configFor(im.dir)
			cfg.AcceptLoss = true
			closeBroker(t, openBroker(t, cfg))
			kept, err := filepath.Glob(filepath.Join(im.dir, asideName, "*", jetstream.ShardStream, messagesName, filepath.Base(b.path)))
			if err != nil || len(kept) != 1 {
				t.Fatalf("got %q, %v; want one block", kept, err)
			}
			if got, err := os.ReadFile(kept[0]); err != nil || string(got) != string(want) {
				t.Errorf("got %d bytes, %v; want the %d of the damaged block", len(got), err, len(want))
			}
		})
	}
}

func TestDropsHalfMadeStream(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, streamsPath, jetstream.ShardStream, messagesName)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), metaName), []byte(`{"name":"A`), 0o600); err != nil {
		t.Fatal(err)
	}
	e := openBroker(t, configFor(dir))
	take(t, e, publishSome(t, e, 1, 100), message.Ack)
}

// TestNames looks only at when the folder is synced, which must not be never:
// without it a new block may be gone after a loss of power.
func TestNames(t *testing.T) {
	n := names{dir: t.TempDir()}
	settle := func() time.Time {
		t.Helper()
		if err := n.settle(); err != nil {
			t.Fatal(err)
		}
		return n.synced
	}
	old := time.Now().Add(-time.Hour)
	touch := func() {
		t.Helper()
		if err := os.Chtimes(n.dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	touch()
	first := settle()
	if first.IsZero() {
		t.Fatal("not synced at first")
	}
	if settle() != first {
		t.Error("synced again for nothing")
	}
	if err := os.WriteFile(filepath.Join(n.dir, "1.blk"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	second := settle()
	if second == first {
		t.Error("a new name was not synced")
	}
	if settle() == second {
		t.Error("a name of the same tick would not be synced")
	}
	remove(t, n.dir)
	if err := n.settle(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
}
