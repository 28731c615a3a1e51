package faults

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"async-data-processor/faults/lossyfs"
	"async-data-processor/faults/rig"
)

// machine is a computer whose disk is the test's: it can fail, and lose power.
type machine struct {
	t     *testing.T
	disk  *lossyfs.Disk
	dir   string // where the disk is mounted
	mount *lossyfs.Mount
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, disk: lossyfs.New(), dir: t.TempDir()}
	m.boot()
	t.Cleanup(m.halt)
	return m
}

func (m *machine) boot() {
	m.t.Helper()
	var err error
	m.mount, err = m.disk.Mount(m.dir)
	if errors.Is(err, fs.ErrPermission) {
		m.t.Skipf("run this test as root: %v", err)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) halt() {
	m.t.Helper()
	if err := m.mount.Unmount(); err != nil {
		m.t.Error(err)
	}
}

// reboot is what comes after a loss of power.
func (m *machine) reboot(dead ...*rig.Process) {
	m.t.Helper()
	for _, p := range dead {
		p.Kill()
	}
	m.halt()
	m.disk.SetHook(nil)
	m.boot()
}

// output is the folder of the files.
func (m *machine) output() string { return filepath.Join(m.dir, "data") }

// settings keep everything on the machine's disk.
func (m *machine) settings() []string {
	return []string{
		"DATA_OUTPUT_DIR=" + m.output(),
		"BROKER_URL=embedded://" + filepath.Join(m.dir, "broker"),
	}
}
