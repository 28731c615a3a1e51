package consumer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/output"
)

// TestFolderIsLost: a shard whose folder was moved away goes on in a new one, with a
// warning, and does not write again what it wrote.
func TestFolderIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.publish(0, 5)
		r.after(2 * time.Second)
		r.checkFiles(0, 5)
		must(t, os.Rename(r.folder(0), r.folder(0)+".old"))
		r.publish(0, 7) // the same, and two more
		r.after(time.Minute)
		r.checkStatus("")
		r.checkFiles(0, 2)
		r.checkDepth(0, 0)
		r.checkTold(1, "opening it again", `"level":"warn"`)
		r.stop()
	})
}

// damaged is a folder whose open file another program has truncated.
type damaged struct {
	Folder
	err error
}

func (d damaged) Roll(context.Context) error { return d.err }
func (d damaged) RollErr() error             { return d.err }
func (d damaged) Close() error               { return errors.Join(d.err, d.Folder.Close()) }

// TestDamagedIsNotDurable: of entries that are gone no line says that they are durable.
// The process ends, as its output has failed.
func TestDamagedIsNotDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.RollInterval = time.Second
		r.around = func(n int, f Folder) Folder {
			if n > 0 {
				return f
			}
			return damaged{f, broken("stat", 0, fmt.Errorf("%w: 3 of 5 bytes are left", output.ErrDamaged))}
		}
		r.start()
		r.after(r.cfg.ErrorTimeout + 2*time.Second)
		err := r.ended()
		if !errors.Is(err, ErrOutputFailed) || !strings.Contains(err.Error(), "3 of 5 bytes are left") {
			t.Errorf("it ended with %v", err)
		}
		if r.told("acknowledged entries are missing", `"level":"error"`) == 0 {
			t.Error("nothing is told")
		}
		if r.told("durable", "") > 0 || strings.Contains(err.Error(), "durable") {
			t.Errorf("it is said to be durable: %v", err)
		}
	})
}

// TestFolderFails: a folder that cannot be used ends the Set, also if no shard has
// anything to write. A lack of space, or a failure that ends, does not.
func TestFolderFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		meet := func(err error, d time.Duration) {
			for range d / time.Second {
				r.set.FolderMet(err)
				r.after(time.Second)
			}
		}
		gone := broken("stat", 0, syscall.ENOENT)
		meet(broken("statfs", 0, syscall.ENOSPC), time.Hour)
		meet(gone, r.cfg.ErrorTimeout-2*time.Second)
		meet(nil, time.Second)
		meet(gone, r.cfg.ErrorTimeout-2*time.Second)
		r.checkRunning(shards, shards)
		meet(gone, 4*time.Second)
		if err := r.ended(); !errors.Is(err, ErrOutputFailed) || !strings.Contains(err.Error(), "folder "+filepath.Clean(r.dir)) {
			t.Errorf("it ended with %v", err)
		}
	})
}
