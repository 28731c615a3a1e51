package pipeline

import (
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/event"
)

// TestFolderInMemory: a store or an output folder that a restart of the machine empties
// is told of; one on a disk is not.
func TestFolderInMemory(t *testing.T) {
	dir := t.TempDir()
	memory, disk := filepath.Join(dir, "memory"), filepath.Join(dir, "disk")
	for _, path := range []string{memory, disk} {
		if err := unix.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("none", memory, "tmpfs", 0, "size=64k"); err != nil {
		t.Logf("cannot mount a file system here: %v", err)
		return
	}
	t.Cleanup(func() { _ = unix.Unmount(memory, unix.MNT_DETACH) })
	for _, tt := range []struct {
		broker, output string
		consumer       bool
		want           []string
	}{
		{"embedded://" + memory, disk, true, []string{memory}},
		{"embedded://" + disk, memory, true, []string{memory}},
		{"embedded://" + memory, memory, true, []string{memory, memory}},
		{"embedded://" + disk, disk, true, nil},
		{"amqp://h/", memory, true, []string{memory}},
		{"amqp://h/", memory, false, nil},
		{"embedded://" + filepath.Join(dir, "missing"), disk, true, nil},
	} {
		p := &process{cfg: Config{BrokerURL: tt.broker, OutputDir: tt.output}}
		p.tellMemory(tt.consumer)
		var got []string
		for _, e := range p.started {
			got = append(got, e.(event.FolderInMemory).Dir)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s and %s: told of %q, want %q", tt.broker, tt.output, got, tt.want)
		}
	}
}
