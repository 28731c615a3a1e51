package output

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"async-data-processor/message"
)

func TestParseName(t *testing.T) {
	id := message.NewID()
	for name, want := range map[string]Kind{
		"0-2_" + id + ".ndjson":                        Visible,
		"." + "0-2_" + id + ".tmp":                     Temporary,
		"." + "0-2_" + id + ".rolling":                 Rolling,
		"0-2_" + id + ".rolling":                       Foreign,
		".lock":                                        Lock,
		"":                                             Foreign,
		"lock":                                         Foreign,
		".lock2":                                       Foreign,
		"0-2_" + id + ".tmp":                           Foreign,
		".0-2_" + id + ".ndjson":                       Foreign,
		"0-2_" + id + ".ndjson.gz":                     Foreign,
		"0-2_" + id + ".ndjson\n":                      Foreign,
		"0-2_" + id[1:] + ".ndjson":                    Foreign,
		"_" + id + ".ndjson":                           Foreign,
		"0/2_" + id + ".ndjson":                        Foreign,
		"0-2_" + strings.ToLower(id):                   Foreign,
		"0-2" + id + ".ndjson":                         Foreign,
		"x_y_" + id + ".ndjson":                        Foreign,
		"0-2_7ZZZZZZZZZZZZZZZZZZZZZZZZZ.ndjson":        Visible,
		"0-2_80000000000000000000000000.ndjson":        Foreign, // it is no ULID
		strings.Repeat("a", 65) + "_" + id + ".ndjson": Foreign,
	} {
		if got := ParseName(name); got != want {
			t.Errorf("%q is %v, want %v", name, got, want)
		}
	}
}

func TestParseShard(t *testing.T) {
	for name, want := range map[string]int{
		"shard-0": 0, "shard-7": 7, "shard-1023": 1023,
		"shard-": -1, "shard-01": -1, "shard--1": -1, "shard-+1": -1, "shard-x": -1, "7": -1,
		"shard-0 ": -1, "Shard-0": -1, "shard-99999999999999999999": -1, "": -1,
	} {
		n, ok := ParseShard(name)
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("%q is shard %d, want %d", name, n, want)
		}
	}
}

func TestOwned(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "shard-0")
	owned := func(want bool) {
		t.Helper()
		if got, err := Owned(folder); err != nil || got != want {
			t.Fatalf("owned: %v, %v, want %v", got, err, want)
		}
	}
	owned(false) // there is no folder
	s := openShard(t, dir)
	owned(true)
	must(t, s.Close())
	owned(false)
	takeShard(t, openTestDir(t, dir)) // the look took nothing away
	if _, err := Owned(filepath.Join(folder, lockName)); err == nil {
		t.Error("a file passed for a shard's folder")
	}
	must(t, os.RemoveAll(folder))
	owned(false)
}
