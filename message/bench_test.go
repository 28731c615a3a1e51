package message_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"async-data-processor/message"
)

// entriesOf returns n entries of about 60 bytes, as clients send them.
func entriesOf(n int) []string {
	entries := make([]string, n)
	for i := range entries {
		entries[i] = fmt.Sprintf(`{"timestamp":"2019-10-12T08:%02d:%02d.52Z","value":"reading %05d"}`, i/60%60, i%60, i)
	}
	return entries
}

// BenchmarkDecode stands next to what reading the JSON alone costs. What is rare
// is read twice, the second time by jsontext.
func BenchmarkDecode(b *testing.B) {
	id := message.NewID()
	for _, n := range []int{1, 100, 1000} {
		array := []byte("[" + strings.Join(entriesOf(n), ",") + "]")
		for _, bm := range []struct {
			name   string
			body   []byte
			format message.Format
		}{
			{"json", array, message.JSON},
			{"ndjson", []byte(strings.Join(entriesOf(n), "\n")), message.NDJSON},
			{"rare", bytes.ReplaceAll(array, []byte(`"value"`), []byte(`"v\u0061lue"`)), message.JSON},
		} {
			b.Run(fmt.Sprintf("%s/entries=%d", bm.name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(bm.body)))
				for b.Loop() {
					s, err := message.Decode(id, bm.body, bm.format)
					must(b, err)
					s.Recycle()
				}
			})
		}
		b.Run(fmt.Sprintf("json.Valid/entries=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(array)))
			for b.Loop() {
				if !json.Valid(array) {
					b.Fatal("not valid")
				}
			}
		})
	}
}
