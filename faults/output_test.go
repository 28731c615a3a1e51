package faults

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/lossyfs"
	"async-data-processor/faults/rig"
)

// small gives the output a file system of some MiB. Where that is not allowed it
// returns false; the tests of output inject the errors there.
func (c *campaign) small(size int) bool {
	c.Helper()
	if err := unix.Mount("none", c.dir, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		c.note("cannot mount a file system here: %v", err)
		return false
	}
	c.Cleanup(func() { _ = unix.Unmount(c.dir, unix.MNT_DETACH) })
	return true
}

// fill takes what is left of the output's disk but for so many bytes, and returns
// how to free it.
func (c *campaign) fill(but int) (free func()) {
	c.Helper()
	path := filepath.Join(c.dir, ".ballast")
	f, err := os.Create(path)
	if err != nil {
		c.Fatal(err)
	}
	defer f.Close()
	for err == nil && c.free() > but {
		_, err = f.Write(make([]byte, min(max(c.free()-but, 4096), 1<<20)))
	}
	return func() { _ = os.Remove(path) }
}

// free is how many bytes the output's disk has left.
func (c *campaign) free() int {
	c.Helper()
	var stat unix.Statfs_t
	if err := unix.Statfs(c.dir, &stat); err != nil {
		c.Fatal(err)
	}
	return int(stat.Bavail) * int(stat.Bsize)
}

// notReady waits until the consumer says that it is not ready for the reason, and
// that its broker is.
func (c *campaign) notReady(reason string) {
	c.Helper()
	rig.Eventually(c, "not being ready", func() error {
		err := c.consumer.NotReady()
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), `"broker":"ok"`) {
			return fmt.Errorf("%v, want %q", err, reason)
		}
		return nil
	})
}

// TestDiskFull fills the disk of the output under load, and frees it again.
func TestDiskFull(t *testing.T) {
	on(t, "output's disk full", func(c *campaign) {
		if !c.small(256) {
			return
		}
		// A disk this small is low at once; and one that is full has not failed.
		c.settings = []string{"OUTPUT_MIN_FREE=0", "OUTPUT_ERROR_TIMEOUT=1ms"}
		c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
		for range either(1, 5) {
			c.load.More(500)
			free := c.fill(0)
			c.consumer.Await("a batch that is held", func(l rig.Line) bool { return strings.HasPrefix(l.Message, "cannot write the batch") })
			c.notReady("no space left on device")
			c.moment(2 * time.Second)
			free()
			c.consumer.Ready()
			c.cycle()
		}
		c.finish()
	}, inBothModes(rabbitmq, embedded)...)
}

// TestDiskFullAtStart: over a full disk a process is up, consumes nothing and says
// why; when there is space it goes on by itself.
func TestDiskFullAtStart(t *testing.T) {
	on(t, "output's disk full at the start", func(c *campaign) {
		if !c.small(16) {
			return
		}
		free := c.fill(0)
		c.settings = []string{"OUTPUT_MIN_FREE=0", "OUTPUT_ERROR_TIMEOUT=1ms"}
		c.begin()
		c.notReady("no space left on device")
		ids := c.server.PostAll(20, 7)
		c.consumer.Await("a warning", func(l rig.Line) bool {
			return l.Level == "warn" && strings.HasPrefix(l.Message, "cannot open the shard")
		})
		if files := rig.ReadTree(c, c.dir, shards, c.batch).Files; len(files) > 0 {
			c.Errorf("%d files on a full disk", len(files))
		}
		free()
		c.consumer.Ready()
		c.settled(shards, ids)
	}, rabbitmq, embedded, jetstream)
}

// TestDiskReserve: before the disk is full standalone refuses what is new, and
// writes what it has accepted; with space again it accepts.
func TestDiskReserve(t *testing.T) {
	on(t, "output's disk low", func(c *campaign) {
		const reserve = 16 << 20
		if !c.small(64) {
			return
		}
		c.settings = []string{"OUTPUT_MIN_FREE=" + strconv.Itoa(reserve)}
		p := rig.Start(c, "standalone", c.environment("BROKER_URL="+c.Server)...).Ready()
		c.server, c.consumer = p, p
		free := c.fill(reserve + 4<<20)

		var ids []string
		large := fmt.Sprintf(`[{"timestamp":"2019-10-12T08:10:54Z","value":%q}]`, strings.Repeat("x", 100<<10))
		for {
			status, r, header := p.Post(large)
			if status == http.StatusServiceUnavailable {
				if header.Get("Retry-After") == "" || header.Get("Content-Type") != "application/problem+json" {
					c.Errorf("503 with %v", header)
				}
				break
			}
			if ids = append(ids, r.IDs()...); status != http.StatusCreated || len(ids) > 1000 {
				c.Fatalf("status %d after %d accepted", status, len(ids))
			}
		}
		resp, err := http.Post("http://"+p.Addr+"/message", "application/json", strings.NewReader(large))
		if err != nil {
			c.Fatal(err)
		}
		defer resp.Body.Close()
		var problem struct{ Type, Detail string }
		if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil ||
			!strings.HasSuffix(problem.Type, ":not-published") || !strings.HasPrefix(problem.Detail, "the output takes nothing new now") {
			c.Errorf("%s: %+v, %v", resp.Status, problem, err)
		}
		c.notReady(c.dir + " is full")
		p.Await("a warning", func(l rig.Line) bool { return l.Level == "warn" && l.Message == "the output's disk runs low" })
		c.written(shards, ids)
		if left := c.free(); left < reserve/2 {
			c.Errorf("only %d bytes were free when intake ended", left)
		}
		if c.Consumer != "" { // what others submit is written below the mark, too
			c.stop()
			c.begin()
			ids = append(ids, c.server.PostAll(5, 7)...)
			c.notReady(c.dir + " is full")
		} else {
			free()
			p.Ready()
			ids = append(ids, p.PostAll(5, 7)...)
			p.Await("the end of it", func(l rig.Line) bool { return l.Message == "the output's disk has enough space again" })
		}
		c.settled(shards, ids)
	}, rabbitmq, embedded)
}

// TestDiskUnusable: a folder that stays unusable ends the process, the server in
// it included; what the other shards had is in files, and the rest once it is
// mended.
func TestDiskUnusable(t *testing.T) {
	on(t, "a shard's folder unusable", func(c *campaign) {
		bad := filepath.Join(c.dir, "shard-3")
		if err := os.WriteFile(bad, nil, 0o600); err != nil {
			c.Fatal(err)
		}
		c.settings = []string{"OUTPUT_ERROR_TIMEOUT=10s", "BATCH_LINGER=10m"}
		c.begin()
		c.notReady("not a directory")
		var ids []string
		for n := range 50 { // one process ends meanwhile
			_, r, _ := c.server.Post(rig.Entries(n*7, 7))
			ids = append(ids, r.IDs()...)
		}
		if len(ids) == 0 {
			c.Error("nothing was accepted before")
		}
		c.gaveUp("shard 3 in "+c.dir, bad+": not a directory")
		if err := os.Remove(bad); err != nil {
			c.Fatal(err)
		}
		c.settings = nil
		c.up()
		c.settled(shards, ids)
	}, rabbitmq, embedded, jetstream)
}

// TestDiskBreaks lets every fsync fail from one moment on: the consumer exits 1,
// with unwritten batches and long before the drain's deadline, and its successor on
// a sound disk writes what came back.
func TestDiskBreaks(t *testing.T) {
	onMachine(t, "disk broken", func(m *machine) {
		m.settings = []string{"OUTPUT_ERROR_TIMEOUT=2s", "DRAIN_TIMEOUT=10m"}
		m.start(rig.LoadConfig{Size: 7})
		m.load.More(100)
		m.disk.SetHook(func(op lossyfs.Op) error {
			if op.Kind == lossyfs.Sync && inOutput(op) {
				return unix.EIO
			}
			return nil
		})
		m.load.More(100)
		m.gaveUp("shard-", "fsync", "input/output error", m.campaign.dir)
		m.disk.SetHook(nil)
		m.finish()
	}, rabbitmq)
}

// gaveUp waits until the consumer ends by itself because of its output, and checks
// that its last line says what an operator has to know.
func (c *campaign) gaveUp(words ...string) {
	c.Helper()
	if code := c.consumer.Wait(); code != 1 {
		c.Errorf("exit %d, want 1", code)
	}
	lines, found := c.consumer.Lines(), c.consumer.Errors()
	last := lines[len(lines)-1]
	for _, word := range append(words, "the output has failed for too long: shard ", "; since ", "start again") {
		if last.Message != "stopped" || last.Level != "error" || !strings.Contains(last.Error, word) ||
			found[len(found)-1] != last.Message+": "+last.Error { // or something is no line of the log
			c.Errorf("the last line has no %q: %+v, %q", word, last, found)
		}
	}
	c.gone(c.consumer)
}
