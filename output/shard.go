package output

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"async-data-processor/output/committed"
)

// errMoved: whoever started anew would find another output folder. It is not
// made anew here, because what is missing may be a mount.
var errMoved = errors.New("the output folder was moved away or replaced; move it back, or start again")

// errBusy: another process, or another Shard of this one, has the lock.
var errBusy = errors.New("the shard's folder is owned by somebody else")

// Shard takes the folder shard-<n>, made if missing. It waits until no other
// process owns it, or until ctx is done; then it fails with ctx's cause. If it
// has to wait it calls onStandby first, once; nil is allowed. The owner may go
// by Close or by dying, its lock goes with it.
//
// The temporary files of an earlier owner are removed (see Swept), what it has
// not come to publish is published, the folder has just taken a file (see
// probe), every name that is visible when Shard returns is durable, and what is
// in the newest of those files is known (see Recalled).
// A file of ours that is there and cannot be read fails Shard: without it
// messages might be written twice, and nobody would hear of it.
//
// After an error nothing is held, and Shard may be called again: a disk that is
// full or fails may have recovered.
func (d *Dir) Shard(ctx context.Context, n int, onStandby func()) (*Shard, error) {
	s := &Shard{name: shardName(n), roll: d.roll, turn: make(chan struct{}, 1), wanted: d.wantedBy(shardName(n))}
	for waited := false; ; waited = true {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for %s: %w", s.name, context.Cause(ctx))
		}
		// A standby starts over each time, so that it never waits for the lock
		// of a folder that was moved away meanwhile.
		f, err := d.acquire(s.name)
		if err == nil {
			s.folder, s.syncer.folder = f, f
			break
		}
		if !errors.Is(err, errBusy) {
			return nil, err
		}
		if !waited && onStandby != nil {
			onStandby()
		}
		pause := time.NewTimer(d.standby)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
	s.window = committed.New(d.window.IDs, d.window.Age)
	began := time.Now()
	files := newest{limit: d.window.IDs, age: d.window.Age, now: began}
	err := d.settleName(s.name)
	if err == nil {
		err = s.sweep(ctx, &files)
	}
	if err == nil {
		err = s.probe()
	}
	if err == nil {
		err = s.settleNames()
	}
	if err == nil {
		err = s.recall(ctx, &files)
		s.recalled.Took = time.Since(began)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// wantedBy returns what the owners of a shard tell each other.
func (d *Dir) wantedBy(name string) *atomic.Int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wanted[name] == nil {
		d.wanted[name] = new(atomic.Int64)
	}
	return d.wanted[name]
}

// acquire makes and opens the folder and takes its lock, or fails with errBusy.
func (d *Dir) acquire(name string) (folder, error) {
	if err := d.there(); err != nil {
		return nil, err
	}
	if err := d.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, failed("mkdir", filepath.Join(d.path, name), err)
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, failed("open", filepath.Join(d.path, name), err)
	}
	disk, err := lock(root, filepath.Join(d.path, name))
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if d.wrap != nil {
		return d.wrap(disk), nil
	}
	return disk, nil
}

// there fails unless the output folder is what is found at its path.
func (d *Dir) there() error {
	ours, err := d.root.Stat(".")
	if err != nil {
		return failed("stat", d.path, err)
	}
	found, err := os.Stat(d.path)
	if err == nil && !os.SameFile(ours, found) {
		err = errMoved
	}
	if err != nil {
		return failed("stat", d.path, err)
	}
	return nil
}

// settleName makes the folder's own name durable. An earlier process may have
// died between making the folder and this, so it is done for an old one, too.
func (d *Dir) settleName(name string) error {
	if err := d.sync(d.path); err != nil {
		return fmt.Errorf("make the name %s durable: %w", name, err)
	}
	return nil
}

// sweep removes the temporary files, and publishes the rolling ones. The names
// of visible files it leaves in files.
func (s *Shard) sweep(ctx context.Context, files *newest) error {
	var orphans, unpublished []string
	err := s.folder.names(func(name string) {
		switch {
		case strings.HasSuffix(name, visibleSuffix):
			files.add(name)
		case tempName.MatchString(name):
			orphans = append(orphans, name)
		case rollingName.MatchString(name):
			unpublished = append(unpublished, name)
		}
	})
	if err != nil {
		return s.failed("list", "", err)
	}
	for _, name := range orphans {
		if err := s.folder.remove(name); err != nil {
			return s.failed("remove", name, err)
		}
		s.swept++
	}
	for _, name := range unpublished {
		added, err := s.adopt(ctx, name)
		if err != nil {
			return err
		}
		if added != "" {
			files.add(added)
		}
	}
	return nil
}

// settleNames makes durable which names are in the folder: those that a crashed
// owner published last, too, because its fsync may never have happened, and
// whoever finds a message in a visible file lets the broker forget it.
func (s *Shard) settleNames() error {
	names, err := s.syncer.begin()
	if err != nil {
		return s.failed("open", "", err)
	}
	if err := names.sync(); err != nil {
		return s.failed("fsync", "", err)
	}
	return nil
}

// Swept is the number of temporary files of an earlier owner that were removed
// when this process took the shard.
func (s *Shard) Swept() int {
	return s.swept
}

// Recalled is what this process learnt from the shard's files when it took it.
func (s *Shard) Recalled() Recalled {
	return s.recalled
}

// Close publishes the rolling file, and gives the shard's folder to the next
// owner. It waits for writers that are publishing or appending; those still busy
// with their temporary file, or waiting for their turn, find the shard closed
// when they are done. A file that it cannot publish, which its error says, the
// next owner of that folder publishes. In a folder that was moved away it is
// published where that is now. Closing it again does nothing.
func (s *Shard) Close() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	first, err := s.shut()
	if !first {
		return nil
	}
	err = errors.Join(err, s.finishLast(), s.leave())
	return errors.Join(err, s.folder.unlock())
}

// shut lets no more writers in; the caller is one itself.
func (s *Shard) shut() (first bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, nil
	}
	s.closed = true
	s.writers++
	return true, s.finishUndo()
}

// finishLast publishes the rolling file, unless it may be somebody else's now. In
// a folder that was moved away it is not: the lock went along, and no next owner
// would look there for what was acknowledged.
func (s *Shard) finishLast() error {
	if s.file == nil {
		return nil
	}
	lost := s.folder.held()
	if lost != nil {
		if err := s.folder.locked(); err != nil {
			return s.leaveHidden(errors.Join(lost, s.failed("stat", lockName, err)))
		}
	}
	s.file.sealed = true
	return errors.Join(lost, s.finishSealed())
}

// leaveHidden leaves the rolling file alone because of err.
func (s *Shard) leaveHidden(err error) error {
	if f := s.file.f; f != nil {
		_ = f.Close() // what was promised of it is durable
	}
	if s.file.size == 0 {
		return err
	}
	err = fmt.Errorf("%w; %s stays hidden in that folder, with entries that were acknowledged", err, filepath.Join(s.name, s.file.hidden))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unrolled = err
	return err
}

// failed is the error of a step on a name of the shard's folder, or on the
// folder itself.
func (s *Shard) failed(step, name string, err error) error {
	return failed(step, filepath.Join(s.name, name), err)
}

// failed puts the step and the path that mean something to the reader in place
// of those of the standard library.
func failed(step, path string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		err = e.Err
	}
	return &fs.PathError{Op: step, Path: path, Err: err}
}
