package pipeline

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"async-data-processor/durable"
	"async-data-processor/output"
)

// TestOutputFolderGone: a process whose output folder has vanished, or is another one,
// accepts nothing, says why, and ends after its time-out, also if there is nothing to
// write.
func TestOutputFolderGone(t *testing.T) {
	for name, tt := range map[string]struct {
		lose func(dir string) error
		want string
	}{
		"removed":  {os.RemoveAll, "moved away, removed or replaced"},
		"moved":    {func(dir string) error { return os.Rename(dir, dir+".old") }, "moved away, removed or replaced"},
		"replaced": {func(dir string) error { return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o755)) }, "moved away, removed or replaced"},
	} {
		for _, free := range []int64{0, 1} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var dir string
				w := newWorks(t, func(c *Config) {
					c.OutputDir += "/out"
					c.OutputMinFree = free
					c.OutputErrorTimeout = 2 * time.Second
					dir = c.OutputDir
				})
				if err := tt.lose(dir); err != nil {
					t.Fatal(err)
				}
				w.eventually("warning", func() bool { return w.logged("the output folder cannot be used") })
				if status := w.post(body("a")); status != http.StatusServiceUnavailable {
					t.Errorf("it answers %d", status)
				}
				if status, _ := w.status("/readyz"); status != http.StatusServiceUnavailable {
					t.Errorf("ready: %d", status)
				}
				select {
				case err := <-w.done:
					if !errors.Is(err, ErrOutputFailed) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), tt.want) {
						t.Errorf("it ended with %v", err)
					}
				case <-time.After(patience):
					t.Error("it goes on")
				}
				if w.logged("runs low") {
					t.Error("the log tells of a lack of space")
				}
			})
		}
	}
}

// TestOutputFolderIsBack: what does not last does not end the process.
func TestOutputFolderIsBack(t *testing.T) {
	var dir string
	w := newWorks(t, func(c *Config) {
		c.OutputDir += "/out"
		dir = c.OutputDir
	})
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	w.eventually("warning", func() bool { return w.logged("the output folder cannot be used") })
	if err := os.Rename(dir+".old", dir); err != nil {
		t.Fatal(err)
	}
	w.eventually("end of it", func() bool { return w.logged("the output folder can be used again") })
	w.eventually("201", func() bool { return w.post(body("a")) == http.StatusCreated })
	w.eventually("file", func() bool { return len(w.values()) == 1 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// owned returns an output folder, and the shard of it that another owner has.
func owned(t *testing.T) (out string, other *output.Shard) {
	t.Helper()
	out = t.TempDir()
	dir, err := output.Open(out, DefaultConfig().window(), output.Roll{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	other, err = dir.Shard(t.Context(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return out, other
}

// TestOwnStoreOnAnothersFolder: a process with a store of its own accepts nothing while
// another one owns its shards, and says so. When that one goes it does.
func TestOwnStoreOnAnothersFolder(t *testing.T) {
	out, other := owned(t)
	w := newWorksWith(t, wraps{unready: true}, func(c *Config) {
		c.OutputDir = out
		c.BrokerURL = "embedded://" + t.TempDir()
	})
	w.eventually("warning", func() bool { return w.logged("another process owns 1 shards in " + out) })
	if status := w.post(body("a", "b", "c")); status != http.StatusServiceUnavailable {
		t.Errorf("it answers %d", status)
	}
	if status, text := w.status("/readyz?verbose"); status != http.StatusServiceUnavailable || !strings.Contains(text, "another process owns") {
		t.Errorf("ready: %d, %s", status, text)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	w.eventually("201", func() bool { return w.post(body("a", "b", "c")) == http.StatusCreated })
	w.eventually("files", func() bool { return len(w.values()) == 3 })
	if status, _ := w.status("/readyz"); status != http.StatusOK {
		t.Errorf("ready: %d", status)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestStandbyOnASharedBroker: over a broker that both use, a standby is ready and
// accepts.
func TestStandbyOnASharedBroker(t *testing.T) {
	out, _ := owned(t)
	w := newWorksWith(t, wraps{unready: true}, func(c *Config) { c.OutputDir = out })
	w.eventually("readiness", func() bool { status, _ := w.status("/readyz"); return status == http.StatusOK })
	if status := w.post(body("a", "b", "c")); status != http.StatusCreated {
		t.Errorf("it answers %d", status)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

type standby int

func (standby) FolderMet(error) {}
func (s standby) Standby() int  { return int(s) }

// TestRoomIsFree: to ask costs nothing while there is room, since each request does.
func TestRoomIsFree(t *testing.T) {
	r := &room{set: standby(0), reserve: durable.NewWatermark("/", 1), store: true}
	if n := testing.AllocsPerRun(100, func() { _ = r.err() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	r.set = standby(1)
	r.dir = new(output.Dir)
	if r.err() == nil {
		t.Error("there is room beside another owner")
	}
}

// TestOutputDirIsAFolder: a device or a file is an error of the configuration.
func TestOutputDirIsAFolder(t *testing.T) {
	dir := t.TempDir()
	for path, ok := range map[string]bool{"/dev/null": false, "/dev/null/x": false, dir: true, dir + "/a/b": true} {
		c := DefaultConfig()
		c.OutputDir = path
		if err := c.CheckOutputDir(); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "--output-dir "+path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
