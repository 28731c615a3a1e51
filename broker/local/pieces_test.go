package local

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"async-data-processor/message"
)

// sized is an item of shard 0 whose record has a size.
func sized(seq uint64, size int) *Item {
	it := &Item{Seq: seq, Envelope: message.Envelope{ID: "a", Count: 1}}
	it.Envelope.Body = bytes.Repeat([]byte{byte(seq)}, size-len(appendRecord(nil, 0, it)))
	return it
}

// TestPieces: records of all sizes are stored in pieces that no reader sees, and leave
// nothing behind.
func TestPieces(t *testing.T) {
	dir := t.TempDir()
	file, _ := openedFile(t, dir)
	var all Change
	for _, size := range []int{
		20, pieceBytes - 1, pieceBytes, pieceBytes + 1, 2*pieceBytes - 1, 2 * pieceBytes, 2*pieceBytes + 1, 20, 40 * pieceBytes, 100_001, 20,
	} {
		all.Put = append(all.Put, Put{0, sized(uint64(len(all.Put)+1), size)})
	}
	if err := file.Commit(&all); err != nil {
		t.Fatal(err)
	}
	file.HandOut(0, uint64(len(all.Put)))
	file.crash(t)

	if r, err := Check(t.Context(), dir, nil); err != nil || r.Queues[0].Depth != len(all.Put) {
		t.Errorf("%v, %+v", err, r.Queues[0])
	}
	file, contents := openedFile(t, dir)
	for seq := range uint64(11) {
		if q := contents[0]; q.First != 1 || q.Last != 11 || q.Depth != 11 || q.Returns[seq+1] != 1 {
			t.Fatalf("got %+v, want 11 that were handed out once", q)
		}
	}
	for after := range all.Put {
		items, err := file.Read(0, uint64(after), 2)
		if err != nil || len(items) != min(2, len(all.Put)-after) {
			t.Fatalf("%d items, %v", len(items), err)
		}
		for i, it := range items {
			if want := all.Put[after+i].Item; it.Seq != want.Seq || !bytes.Equal(it.Envelope.Body, want.Envelope.Body) {
				t.Errorf("got envelope %d with %d bytes, want %d with %d", it.Seq, len(it.Envelope.Body), want.Seq, len(want.Envelope.Body))
			}
		}
	}
	for i, p := range all.Put {
		if err := file.Commit(&Change{Delete: []Place{{Queue: 0, Seq: p.Item.Seq, Returned: true}}}); err != nil {
			t.Fatal(err)
		}
		if r, err := checkPath(t, file.path(), true); err != nil || r.Queues[0].Depth != len(all.Put)-i-1 {
			t.Errorf("without envelope %d: %v", p.Item.Seq, err)
		}
	}
	err := file.db.View(func(tx *bbolt.Tx) error {
		if key, _ := tx.Bucket(bucketQueues).Bucket(queueName(0)).Cursor().First(); key != nil {
			t.Errorf("%x is left", key)
		}
		return nil
	})
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestPieceLost: what lacks a piece is damaged, and so is a piece alone.
func TestPieceLost(t *testing.T) {
	for want, piece := range map[string]int{
		"1 of its 3 envelopes cannot be read: envelope 2: its checksum does not match":         2,
		"1 of its 3 envelopes cannot be read: 000000000000000200000001 belongs to no envelope": 0,
	} {
		dir := t.TempDir()
		file, _ := openedFile(t, dir)
		if err := file.Commit(&Change{Put: []Put{{0, sized(1, 10_000)}, {0, sized(2, 20_000)}, {0, sized(3, 10_000)}}}); err != nil {
			t.Fatal(err)
		}
		err := file.db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketQueues).Bucket(queueName(0)).Delete(pieceKey(2, piece))
		})
		if err != nil {
			t.Fatal(err)
		}
		if items, err := file.Read(0, 0, 9); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d envelopes, %v", len(items), err)
		}
		file.crash(t)
		if _, err := Check(t.Context(), dir, nil); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		to := t.TempDir()
		if _, err := Salvage(t.Context(), dir, to, nil); err != nil {
			t.Fatal(err)
		}
		if r, err := Check(t.Context(), to, nil); err != nil || r.Queues[0].Depth != 2 {
			t.Errorf("salvaged: %v, %+v", err, r.Queues[0])
		}
	}
}

// TestUncut: a store whose records were not cut, of the layout before, is read.
func TestUncut(t *testing.T) {
	dir := t.TempDir()
	err := createFile(dir, func(db *bbolt.DB) error {
		return db.Update(func(tx *bbolt.Tx) error {
			b, _, err := queueBuckets(tx, 0)
			return errors.Join(err, tx.Bucket(bucketMeta).Put(keyVersion, oldLayout), b.SetSequence(2),
				b.Put(seqKey(1), appendRecord(nil, 0, sized(1, 50_000))), b.Put(seqKey(2), appendRecord(nil, 0, sized(2, 50))),
				tx.Bucket(bucketDepths).Put(queueName(0), []byte{2}))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	file, contents := openedFile(t, dir)
	items, err := file.Read(0, 0, 9)
	if contents[0].Depth != 2 || err != nil || len(items) != 2 || len(items[0].Envelope.Body) < 49_000 {
		t.Errorf("got %+v, %d items, %v", contents[0], len(items), err)
	}
	if err := file.Commit(&Change{Put: []Put{{0, sized(3, 50_000)}}, Delete: []Place{{Queue: 0, Seq: 1}}}); err != nil {
		t.Fatal(err)
	}
	if r, err := checkPath(t, file.path(), true); err != nil || r.Queues[0].Depth != 2 || r.Queues[0].First != 2 {
		t.Errorf("%v, %+v", err, r.Queues[0])
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}
