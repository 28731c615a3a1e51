package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"async-data-processor/durable"
)

// What the server's own files cannot tell about themselves is kept beside
// them: a cut at the end of a block, or a block less, leaves a store that looks
// whole.

// highWater is a sequence that a stream is known to have reached. It is written
// over in place and not synced: it survives the death of the process, and
// after a loss of power it may be old, which only makes it weaker. The server
// synced what it counts before it counted it.
type highWater struct {
	file *os.File
	last uint64
}

const highWaterFormat = "%020d\n"

// openHighWater opens a stream's highWater for writing; a full disk may refuse a new
// one.
func (s *store) openHighWater(stream string) (*highWater, error) {
	f, err := os.OpenFile(s.path(highWaterPrefix+stream), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &highWater{file: f}, nil
}

// set records that the stream has reached a sequence.
func (f *highWater) set(sequence uint64) error {
	if sequence == f.last {
		return nil
	}
	if _, err := f.file.WriteAt(fmt.Appendf(nil, highWaterFormat, sequence), 0); err != nil {
		return err
	}
	f.last = sequence
	return nil
}

func (f *highWater) close() error { return f.file.Close() }

// readHighWaters returns the highWaters above 0 by the names of their streams. A file
// that cannot be read says nothing.
func (s *store) readHighWaters() map[string]uint64 {
	highWaters := map[string]uint64{}
	entries, _ := os.ReadDir(s.dir) // what cannot be listed cannot be checked either
	for _, e := range entries {
		stream, ok := strings.CutPrefix(e.Name(), highWaterPrefix)
		if !ok {
			continue
		}
		text, _ := os.ReadFile(s.path(e.Name()))
		n, err := strconv.ParseUint(strings.TrimSuffix(string(text), "\n"), 10, 64)
		if err == nil && n > 0 && len(text) == len(fmt.Sprintf(highWaterFormat, 0)) {
			highWaters[stream] = n
		}
	}
	return highWaters
}

func (s *store) forgetHighWaters() error {
	var errs []error
	for stream := range s.readHighWaters() {
		errs = append(errs, ignoreMissing(os.Remove(s.path(highWaterPrefix+stream))))
	}
	return errors.Join(errs...)
}

// manifest lists the blocks of a store that was closed in order and their
// sizes, by their path below the folder of the streams. It is there only while
// no server runs on the store.
type manifest map[string]int64

// writeManifest records that the server has stopped in order. Without space
// for it the store is as after a crash.
func (s *store) writeManifest() error {
	m, err := s.blockSizes()
	if err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	temp := s.path(manifestName + ".tmp")
	if err := writeSynced(temp, text); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(temp)))
	}
	return errors.Join(os.Rename(temp, s.path(manifestName)), durable.SyncDir(s.dir))
}

// readManifest returns the manifest, if the store was closed in order. One
// that cannot be read says no more than none: it is written whole, and synced
// before it has its name.
func (s *store) readManifest() (m manifest, ok bool) {
	text, err := os.ReadFile(s.path(manifestName))
	if err != nil || json.Unmarshal(text, &m) != nil {
		return nil, false
	}
	return m, true
}

// forgetManifest is done, durably, before the server changes anything. Unlike
// a mark in a file it needs no space.
func (s *store) forgetManifest() error {
	return errors.Join(ignoreMissing(os.Remove(s.path(manifestName))), durable.SyncDir(s.dir))
}

// missing lists what differs from the manifest.
func (s *store) missing(m manifest) []damage {
	var damages []damage
	for rel, want := range m {
		path := s.path(streamsPath, rel)
		switch info, err := os.Stat(path); {
		case err != nil:
			damages = append(damages, damage{path, "missing", func() error { return nil }})
		case info.Size() != want:
			damages = append(damages, damage{
				path,
				fmt.Sprintf("%d bytes long, was %d when the store was closed", info.Size(), want),
				func() error { return nil },
			})
		}
	}
	return damages
}

// bytesUsed is what the blocks of the store take.
func (s *store) bytesUsed() int64 {
	var used int64
	sizes, _ := s.blockSizes() // an estimate, for a limit that may be corrected
	for _, size := range sizes {
		used += size
	}
	return used
}

// blockSizes makes a manifest of the blocks that are there and hold something.
func (s *store) blockSizes() (manifest, error) {
	m := manifest{}
	root := s.path(streamsPath)
	return m, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, blockSuffix) {
			return ignoreMissing(err)
		}
		info, err := entry.Info()
		if err != nil || info.Size() == 0 { // may be removed at any time
			return ignoreMissing(err)
		}
		rel, err := filepath.Rel(root, path)
		m[rel] = info.Size()
		return err
	})
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}
