package pipeline

import (
	"syscall"
	"testing"
)

// TestConnections: what is reserved for files and the broker is not for connections.
func TestConnections(t *testing.T) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	set := func(limit syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { set(was) })
	if was.Max < 1024 {
		t.Fatalf("the hard limit of open files is %d", was.Max)
	}
	for _, tt := range []struct {
		limit  uint64
		set    int
		writes bool
		want   int
	}{
		{1024, 0, false, 960},
		{1024, 0, true, 915}, // 5 shards of 9 files
		{128, 0, true, 32},
		{512, 7, true, 7},
	} {
		set(syscall.Rlimit{Cur: tt.limit, Max: was.Max})
		cfg := DefaultConfig()
		cfg.MaxConnections = tt.set
		if got := cfg.connections(tt.writes); got != tt.want {
			t.Errorf("%+v: got %d", tt, got)
		}
	}
}
