package output

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// TestFind finds the file and the line of a message, wherever it stands, and reads what
// was begun before the message became durable first.
func TestFind(t *testing.T) {
	path := t.TempDir()
	folder := filepath.Join(path, ShardName(3))
	must(t, os.Mkdir(folder, 0o755))
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	stem := func(second int) string { return "3-1_" + ulid.MustNew(ulid.Timestamp(at(second)), nil).String() }
	line := func(id string) string { return fmt.Sprintf(`{"message_id":%q,"value":"x"}`+"\n", id) }
	file := func(name, content string) { must(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644)) }
	for i := range 5 {
		file(visibleName(stem(10*i)), line(fmt.Sprint("a", i))+line(fmt.Sprint("b", i)))
	}
	file(visibleName(stem(41)), line("long")[:20]+strings.Repeat("x", 300_000)+"\"}\n"+line("behind")+line("cut")[:30])
	file(rollingName(stem(42)), line("open1")+line("open2")+line("torn")[:25])
	file(tempName(stem(43)), line("temporary"))
	file("other.ndjson", line("foreign"))
	d, err := Open(path, Window{IDs: 1, Age: time.Hour}, Roll{})
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })

	for id, want := range map[string]Found{
		"a0": {File: visibleName(stem(0)), Line: 1}, "b4": {File: visibleName(stem(40)), Line: 2},
		"behind": {File: visibleName(stem(41)), Line: 2}, "open2": {File: rollingName(stem(42)), Line: 2, Open: true},
		"cut": {Whole: true}, "torn": {Whole: true}, "temporary": {Whole: true}, "foreign": {Whole: true}, "gone": {Whole: true}, "x": {Whole: true},
	} {
		if want.File != "" {
			want.File = ShardName(3) + "/" + want.File
		}
		for _, second := range []int{45, 20, -9} { // a clock that was set back hides nothing
			if got, err := d.Find(t.Context(), 3, []byte(id), at(second)); err != nil || got != want {
				t.Errorf("%s of second %d: %+v, %v, want %+v", id, second, got, err, want)
			}
		}
	}
	// One id in two files: that of its time.
	file(visibleName(stem(22)), line("a4"))
	for second, want := range map[int]int{25: 22, 45: 40} {
		if got, err := d.Find(t.Context(), 3, []byte("a4"), at(second)); err != nil || got.File != ShardName(3)+"/"+visibleName(stem(want)) {
			t.Errorf("a4 of second %d: %+v, %v", second, got, err)
		}
	}
	must(t, os.Remove(filepath.Join(folder, visibleName(stem(0)))))
	if got, err := d.Find(t.Context(), 3, []byte("a0"), at(0)); err != nil || got != (Found{Whole: true}) {
		t.Errorf("of a file that was removed: %+v, %v", got, err)
	}
}

// TestFindIsBounded: it reads as much as it may, and says that this was not all.
func TestFindIsBounded(t *testing.T) {
	path := t.TempDir()
	folder := filepath.Join(path, ShardName(0))
	must(t, os.Mkdir(folder, 0o755))
	d, err := Open(path, Window{IDs: 1, Age: time.Hour}, Roll{})
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	if _, err := d.Find(t.Context(), 1, []byte("x"), time.Now()); err == nil {
		t.Error("no error without a folder")
	}
	start := time.Now().Add(-time.Hour)
	name := func(i int) string {
		return visibleName("0-1_" + ulid.MustNew(ulid.Timestamp(start)+uint64(i), nil).String())
	}
	for i := range lastFiles + 5 {
		must(t, os.WriteFile(filepath.Join(folder, name(i)), fmt.Appendf(nil, `{"message_id":"%d"}`+"\n", i), 0o644))
	}
	const room = 4 << 20
	find := func(id string) Found {
		t.Helper()
		f, err := d.find(t.Context(), 0, []byte(id), time.Now(), room)
		must(t, err)
		return f
	}
	if f := find("5"); f.File != ShardName(0)+"/"+name(5) {
		t.Errorf("the oldest of those that are read: %+v", f)
	}
	if f := find("4"); f != (Found{}) {
		t.Errorf("an older one: %+v", f)
	}
	// A hole takes no space, and is a line without an end.
	huge, err := os.Create(filepath.Join(folder, name(lastFiles+9)))
	must(t, err)
	must(t, huge.Truncate(4*room))
	must(t, huge.Close())
	if f := find("1003"); f != (Found{}) {
		t.Errorf("behind a file beyond the bound: %+v", f)
	}
}
