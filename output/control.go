package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
)

// MaxControl bounds the control file, in bytes.
const MaxControl = 16 << 10

// controlWorker is the worker in the temporary name of a control file. An owner that
// opens the folder removes what a crash has left under such a name.
const controlWorker = "control"

// ErrLarge: the control file is longer than MaxControl.
var ErrLarge = errors.New("the control file is too large")

// Control returns the shard's control file, nil if there is none. It is what the owners
// of the shard tell each other beside the messages, and moves with the folder. A file
// that is longer than MaxControl is ErrLarge.
func (s *Shard) Control() ([]byte, error) {
	f, err := s.dir.read(controlName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.dir.failed("open", controlName, err)
	}
	defer f.Close() // only read from: nothing of it can be lost
	content, err := io.ReadAll(io.LimitReader(f, MaxControl+1))
	switch {
	case err != nil:
		return nil, s.dir.failed("read", controlName, err)
	case len(content) > MaxControl:
		return nil, fmt.Errorf("%s: %w", filepath.Join(s.dir.name, controlName), ErrLarge)
	case content == nil:
		content = []byte{} // it is there
	}
	return content, nil
}

// SetControl replaces the shard's control file. When it returns nil, the file survives
// a loss of power. After an error the old file is there, or the new one: the next
// SetControl settles it.
//
//	newfstatat(lock file's absolute path)    is the folder still ours?
//	openat(temp, O_CREAT|O_EXCL)
//	write(temp)
//	fsync(temp)
//	close(temp)
//	renameat(temp, control file)             never a part of it
//	fsync(folder)                            durable from here
func (s *Shard) SetControl(ctx context.Context, content []byte) error {
	if len(content) > MaxControl {
		return fmt.Errorf("%s: %w", filepath.Join(s.dir.name, controlName), ErrLarge)
	}
	s.dir.gate.RLock()
	defer s.dir.gate.RUnlock()
	if err := s.dir.ready(ctx); err != nil {
		return err
	}
	names, err := s.dir.syncer.begin()
	if err != nil {
		return s.dir.failed("open", "", err)
	}
	temp := tempName(s.dir.newStem(controlWorker))
	if err := (&attempt{dir: s.dir, undo: s.undo}).spool(temp, content); err != nil {
		return err
	}
	if err := s.dir.ready(ctx); err != nil { // the fsync may have taken long
		return s.undo.discardTemp(temp, err)
	}
	if err := s.dir.replace(temp, controlName); err != nil {
		return s.undo.discardTemp(temp, s.dir.failed("rename", controlName, err))
	}
	if err := names.sync(); err != nil {
		return s.dir.failed("fsync", "", err)
	}
	return nil
}

// Held fails unless the folder is still the one that was locked (see ErrLost). It asks
// the disk.
func (s *Shard) Held() error { return s.dir.ready(context.Background()) }
