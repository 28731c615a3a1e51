package output

import (
	"crypto/rand"

	"async-data-processor/message"
)

// probeBytes is what the probe writes at least: more than a file system keeps
// beside a file's name, so that it needs room of its own.
const probeBytes = 4096

// probe fails unless the folder takes a file now, by every step that a Write
// takes but the visible name: whoever cannot write must not be given messages,
// because each time they are handed out counts towards the end of the broker's
// patience with them. The names it takes away are durably gone with the fsync
// of the folder that follows.
//
// It writes as much as the owner before could not for lack of space, if that is
// known: where there is room for less only, every new owner would find as much.
func (s *Shard) probe() error {
	size := max(probeBytes, s.wanted.Load())
	stem := tempPrefix + "probe_"
	temp, second := stem+message.NewID()+tempSuffix, stem+message.NewID()+tempSuffix
	content := make([]byte, size)
	_, _ = rand.Read(content) // it does not fail; zeros might take no room
	if err := s.spool(temp, content); err != nil {
		return err
	}
	if err := s.folder.link(temp, second); err != nil {
		// It may have happened all the same.
		return s.discardTemp(second, s.discardTemp(temp, s.failed("link", second, err)))
	}
	for _, name := range []string{second, temp} {
		if err := s.folder.remove(name); err != nil {
			return s.failed("unlink", name, err)
		}
	}
	s.wanted.Store(0)
	return nil
}
