package main

import (
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/rig"
)

// TestFolderInMemoryIsLogged: a store that does not outlive the machine's memory is
// told of at the start.
func TestFolderInMemoryIsLogged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Logf("cannot mount a file system here: %v", err)
		return
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	p := rig.Start(t, "standalone", "BROKER_URL=embedded://"+dir+"/store", "EMBEDDED_MIN_FREE=1MiB", "DATA_OUTPUT_DIR="+t.TempDir())
	p.Await("a warning", func(l rig.Line) bool {
		return l.Message == "the folder is on a file system in memory, so a restart of the machine loses what is in it"
	})
	if code := p.Stop(); code != exitClean {
		t.Errorf("exit %d", code)
	}
}
