// Package output publishes batches as files in the folders of their shards.
//
// It promises:
//
//   - a visible file (*.ndjson) is complete and never changes;
//   - what was written survives a loss of power;
//   - a message is never visible twice, within the Window;
//   - one process at a time owns a shard's folder.
//
// The package often owes the disk something. This is when it pays:
//
//	owed                                  paid by                at the latest before
//	content of a file is durable          fsync of the file      its link, its claim.Commit
//	name of a visible file is durable     fsync of the folder    its claim.Commit
//	name of a rolling file is durable     fsync of the folder    its first append
//	sealed rolling file is published      appender.finishSealed  the next append, or next owner
//	broken rolling file is repaired       appender.repair        its publication, or next owner
//	visible name of a failed attempt is
//	removed                               undo.finish            the next Write, Close
//	that removal, or the one of a hidden
//	name, is durable                      undo.syncRemovals      the next file
//	temporary file of a failed attempt is
//	removed                               undo.finish            Close, or next owner
//	what a crash left is removed,
//	published and durable                 Dir.Shard              Dir.Shard returns
package output

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrAbandoned: the batch was abandoned while it was being written. Nothing of
	// it is visible; its messages are in other batches by now.
	ErrAbandoned = errors.New("the batch was abandoned before it was published")

	// ErrStillVisible: a file of an attempt that failed could not be removed
	// again, so its batch is, or may be, visible under a name that Write never
	// returned. Every later Write of the shard, and its Close, tries to remove
	// that file first.
	ErrStillVisible = errors.New("the file of a failed attempt is still visible")

	// ErrLost: the shard's folder or its lock file was removed or replaced, so
	// another process may own what now has its name. Another try is in vain;
	// close the shard and open it again.
	ErrLost = errors.New("the shard's folder is no longer the one that was locked")

	// ErrDamaged: another program has removed or changed the rolling file, and not all
	// that was acknowledged of it is on the disk under its name.
	ErrDamaged = errors.New("what was written to it is no longer there")

	// ErrClosed: the shard was closed.
	ErrClosed = errors.New("the shard is closed")

	// ErrTurn: the batch waited for turnPatience while others were appended.
	ErrTurn = errors.New("other batches are still being appended")
)

// LacksSpace tells whether err is of a disk, or a quota, that is full, or of a
// process or a system that may open no more files. These are the failures of an
// output that may end without a repair of the output.
func LacksSpace(err error) bool {
	for _, scarce := range []error{unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, scarce) {
			return true
		}
	}
	return false
}

// Window is what a shard remembers of the messages it has written: the last IDs
// of them at least, unless they are older than Age. Both are positive. A message
// beyond the window is written again if it comes again.
//
// The last Unsettled of them are remembered whatever their age: as many as the caller
// may have unsettled at a time. After a crash the broker delivers those again.
//
//	file A begun     file B begun       crash ... next owner      + Age
//	────┴────────────────┴────────────────┊           ├─────────────┤
//	    its ids count as committed when            ids of the newest file
//	    B was begun, as much earlier               count as committed now
//
// Age counts from the commit, but stands still while no process owns the shard. A
// process that owned the shard before goes on counting. A clock that jumps between two
// owners changes what has which age. It does not change the order: names of files sort
// as they were written. committed.New says what memory a window takes.
type Window struct {
	IDs, Unsettled int
	Age            time.Duration
}

// Roll says when a file that batches are appended to is published. The zero
// value has none: every batch is a file of its own.
type Roll struct {
	// Bytes is the size at which a file is full, 0 for no limit. A file has at
	// most a batch more.
	Bytes int64
	// Interval is how long after its first message a file is published, 0 for no
	// limit. For that the caller has to call Shard.Roll now and then.
	Interval time.Duration
}

// Rolls tells whether batches are appended to files.
func (r Roll) Rolls() bool { return r.Bytes > 0 || r.Interval > 0 }

// Rebuilt is what the owner of a shard found in its files when it opened it.
type Rebuilt struct {
	// IDs is how many ids are in the window, Files how many files were read. Beforehand
	// is how many of these were read while another process owned the shard.
	IDs, Files, Beforehand int
	// Damaged counts our files with a line that is cut off or has no id. Foreign
	// counts files named *.ndjson whose name is not ours, or is of a time that no
	// clock of ours had. Ids that are only in
	// such files are not in the window.
	Damaged, Foreign int
	// Example is the name of one of the damaged or foreign files, or empty.
	Example string
	// Recovered counts the rolling files of an earlier owner that were published.
	// Cut is how many bytes behind their last whole lines were cut off.
	Recovered int
	Cut       int64
	Took      time.Duration
}
