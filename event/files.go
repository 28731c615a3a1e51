package event

import "time"

// FilesUnrecorded tells that published files cannot be recorded in the state database, at
// once and every 10 minutes. They are recorded later.
type FilesUnrecorded struct {
	Files int // that wait, as far as that is known
	Since time.Time
	Err   error
}

// FilesRecorded tells that files are recorded again.
type FilesRecorded struct{ Away time.Duration }

// FilesCaughtUp tells that the files are recorded that earlier owners of a shard have
// left.
type FilesCaughtUp struct {
	Shard, Files int
	Took         time.Duration
}

func (FilesUnrecorded) event() {}
func (FilesRecorded) event()   {}
func (FilesCaughtUp) event()   {}
