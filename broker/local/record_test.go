package local

import (
	"bytes"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"async-data-processor/message"
)

// TestRecord: a record yields what it was made of, at its place and nowhere else,
// and any change of a byte shows.
func TestRecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		queue := rapid.IntRange(Dead, 1024).Draw(t, "queue")
		it := Item{Seq: rapid.Uint64().Draw(t, "seq"), Envelope: message.Envelope{
			ID: rapid.String().Draw(t, "id"), Shard: queue, Count: rapid.IntRange(0, 1000).Draw(t, "count"),
			Body:    rapid.SliceOf(rapid.Byte()).Draw(t, "body"),
			Foreign: rapid.Bool().Draw(t, "foreign"),
			Attributes: rapid.MapOfN(rapid.StringMatching("[a-z]{1,5}"), rapid.StringMatching("[a-z]{1,5}"), -1, 3).
				Draw(t, "attributes"),
		}}
		if queue == Dead {
			it.Envelope.Shard = rapid.IntRange(-1, 1024).Draw(t, "shard")
			it.Reason = rapid.String().Draw(t, "reason")
			it.Time = time.Unix(0, rapid.Int64().Draw(t, "time")).UTC()
		}
		record := appendRecord(nil, queue, &it)
		got, err := parseRecord(queue, it.Seq, record)
		if err != nil {
			t.Fatal(err)
		}
		a, b := got.Envelope, it.Envelope
		if a.ID != b.ID || a.Shard != b.Shard || a.Count != b.Count || a.Foreign != b.Foreign || !bytes.Equal(a.Body, b.Body) ||
			!maps.Equal(a.Attributes, b.Attributes) || got.Reason != it.Reason || !got.Time.Equal(it.Time) || got.Seq != it.Seq {
			t.Fatalf("got %+v, want %+v", got, it)
		}
		if _, err := parseRecord(queue+1, it.Seq, record); err == nil {
			t.Error("it is good in another queue")
		}
		if _, err := parseRecord(queue, it.Seq+1, record); err == nil {
			t.Error("it is good at another place")
		}
		record[rapid.IntRange(0, len(record)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := parseRecord(queue, it.Seq, record); err == nil {
			t.Error("a changed bit does not show")
		}
	})
}

// FuzzRecord: no record with a right sum makes parseRecord fail otherwise than
// with an error.
func FuzzRecord(f *testing.F) {
	f.Add(appendRecord(nil, 3, &Item{Seq: 7, Envelope: message.Envelope{ID: "a", Shard: 3, Count: 1, Body: []byte("{}\n")}}))
	f.Add(appendRecord(nil, Dead, &Item{Seq: 7, Reason: "no", Envelope: message.Envelope{ID: "a", Attributes: map[string]string{"a": "b"}}}))
	f.Fuzz(func(t *testing.T, record []byte) {
		if len(record) < 6 {
			return
		}
		for _, queue := range []int{3, Dead} {
			s := sum(queue, 7, record[4:])
			record[0], record[1], record[2], record[3] = byte(s), byte(s>>8), byte(s>>16), byte(s>>24)
			_, _ = parseRecord(queue, 7, record)
		}
	})
}
