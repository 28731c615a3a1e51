package committed

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestKeysAreDifferent: ids that are not the same text are not the same key,
// however much they look like it.
func TestKeysAreDifferent(t *testing.T) {
	ids := []string{
		ulid + ".0", ulid + ".1", ulid + ".63", ulid + ".64", ulid + ".9999", ulid + ".10000",
		ulid + ".00", ulid + ".01", ulid + ".+1", ulid + ".-1", ulid + ".1 ", ulid + ".", ulid, ulid + "x0",
		ulid + ".4194239", ulid + ".4194240", ulid + ".4194241", ulid + ".4194303", ulid + ".4294967295", ulid + ".4294967296", ulid + ".99999999999999999999",
		strings.ToLower(ulid) + ".0", strings.Replace(ulid, "0", "O", 1) + ".0", strings.Replace(ulid, "1", "I", 1) + ".0", strings.Replace(ulid, "1", "L", 1) + ".0",
		"7ZZZZZZZZZZZZZZZZZZZZZZZZZ.0", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ.0", "ZZZZZZZZZZZZZZZZZZZZZZZZZZ.0", "00000000000000000000000000.0",
		"a", "b", ".", "order-1", "order-2", strings.Repeat("x", 255), strings.Repeat("x", 254),
	}
	seen := make(map[Key]string)
	for _, id := range ids {
		k := KeyOf([]byte(id))
		if other, ok := seen[k]; ok {
			t.Errorf("%q and %q are the same key", id, other)
		}
		seen[k] = id
		if !k.isID() {
			t.Errorf("%q is no id", id)
		}
		if KeyOf([]byte(id)) != k {
			t.Errorf("%q has two keys", id)
		}
	}
	if KeyOf(nil).isID() {
		t.Error("no id is an id")
	}
}

func TestTimeOf(t *testing.T) {
	// github.com/ulid/spec: the first ten digits are milliseconds.
	for text, want := range map[string]int64{
		"00000000000000000000000000": 0,
		"0000000001ZZZZZZZZZZZZZZZZ": 1,
		"01ARYZ6S41TSV4RRFFQ69G5FAV": 1469918176385,
		"7ZZZZZZZZZZZZZZZZZZZZZZZZZ": 1<<48 - 1,
	} {
		if at, ok := TimeOf(text); !ok || at.UnixMilli() != want {
			t.Errorf("%s: got %v, %v, want %v", text, at, ok, time.UnixMilli(want))
		}
	}
	for _, text := range []string{"", "01ARYZ6S41", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01ARYZ6S41TSV4RRFFQ69G5FAU", "01aryz6s41tsv4rrffq69g5fav", "01ARYZ6S41TSV4RRFFQ69G5FAV0"} {
		if _, ok := TimeOf(text); ok {
			t.Errorf("%q was taken for a ULID", text)
		}
	}
}

// FuzzKey: an id of our form can be read back from its key, so no two have the
// same; every other one is hashed.
func FuzzKey(f *testing.F) {
	f.Add(ulid + ".0")
	f.Add(ulid + ".4194240")
	f.Add("8" + ulid[1:] + ".1")
	f.Add("")
	f.Fuzz(func(t *testing.T, id string) {
		k := KeyOf([]byte(id))
		switch {
		case !k.isID():
			if id != "" {
				t.Errorf("%q is no id", id)
			}
		case k.index != foreignIndex:
			if got := text(k); got != id {
				t.Errorf("%q became %q", id, got)
			}
		}
	})
}

func TestKeysCanBeReadBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		k := Key{rnd.Uint64(), rnd.Uint64(), rnd.Uint32N(maxIndex + 1)}
		if got := KeyOf([]byte(text(k))); got != k {
			t.Fatalf("%v became %v by %s", k, got, text(k))
		}
	}
}

// text is the id of a key that is not hashed.
func text(k Key) string {
	var out [ulidLen]byte
	hi, lo := k.hi, k.lo
	for i := ulidLen - 1; i >= 0; i-- {
		out[i] = alphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return fmt.Sprintf("%s.%d", out[:], k.index)
}

// TestPack: what is packed comes back, the keys of a block in the order of their indexes.
func TestPack(t *testing.T) {
	ids := []string{ulid + ".0", ulid + ".1", ulid + ".63", ulid + ".64", ulid + ".4194239", "foreign", "other", ulid + ".2"}
	packed := Pack(append(keys(ids...), noKey))
	if len(packed) != 6 {
		t.Errorf("%d records", len(packed))
	}
	if got := Unpack(packed, nil); !slices.Equal(got, keys(ids...)) {
		t.Errorf("got %v, want %v", got, keys(ids...))
	}
	if got := Unpack(Pack(keys(ulid+".3", ulid+".1", ulid+".3")), nil); !slices.Equal(got, keys(ulid+".1", ulid+".3")) {
		t.Errorf("got %v", got)
	}
}
