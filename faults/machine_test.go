package faults

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/lossyfs"
	"async-data-processor/faults/rig"
)

// machine is a campaign whose processes have their files, those of an embedded
// broker included, on a disk that fails and loses power as the test wants.
type machine struct {
	*campaign
	disk  *lossyfs.Disk
	dir   string // where the disk is mounted
	mount *lossyfs.Mount
}

// steady is a load that a process which is away most of the time catches up with,
// on a slow machine, too.
var steady = rig.LoadConfig{Clients: 2, Size: 20, Pause: 400 * time.Millisecond}

// onMachine runs a scenario on each of the engines, side by side: the embedded
// broker is on the disk, RabbitMQ elsewhere.
func onMachine(t *testing.T, fault string, scenario func(*machine), engines ...engine) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.testName(), func(t *testing.T) {
			t.Parallel()
			m := &machine{disk: lossyfs.New(), dir: t.TempDir()}
			t.Cleanup(func() { m.halt(t) })
			m.boot(t)
			b := e.open(t)
			if b.Consumer == "" {
				b.Server = "embedded://" + filepath.Join(m.dir, "broker")
			}
			m.campaign = newCampaign(t, fault, e, b)
			m.campaign.dir = filepath.Join(m.dir, "data")
			// More than a shard has unsettled; what the consumer knows it reads anew at
			// each of its many starts, from a disk that is slow.
			m.settings = []string{"DEDUPE_IDS=20000"}
			scenario(m)
		})
	}
}

func (m *machine) boot(t *testing.T) {
	t.Helper()
	var err error
	m.mount, err = m.disk.Mount(m.dir)
	if errors.Is(err, fs.ErrPermission) {
		t.Skipf("run this test as root: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *machine) halt(t *testing.T) {
	t.Helper()
	if m.mount == nil {
		return
	}
	if err := m.mount.Unmount(); err != nil {
		t.Error(err)
	}
}

// local is the process that is on the machine: the consumer, or all.
func (m *machine) local() *rig.Process { return m.consumer }

// launch starts that process and does not wait for anything.
func (m *machine) launch() *rig.Process {
	if m.Consumer == "" {
		return m.spawn("standalone", m.Server)
	}
	return m.spawn("message-consumer", m.Consumer)
}

// inOutput tells whether an operation is on what a shard publishes: its files
// or their folder.
func inOutput(op lossyfs.Op) bool {
	shard, name, _ := strings.Cut(strings.TrimPrefix(op.Path, "data/"), "/")
	return shard != op.Path && strings.HasPrefix(shard, "shard-") && name != ".lock"
}

// within waits for what a hook is to tell.
func within[T any](m *machine, what string, c <-chan T) (told T) {
	m.Helper()
	select {
	case told = <-c:
	case <-time.After(rig.Patience):
		m.Fatalf("no %s:\n%s", what, m.local().Dump())
	}
	return told
}
