// Package output publishes batches as files in the folders of their shards.
//
// It promises that a visible file (*.ndjson) is complete and never changes,
// that what was written survives a loss of power, that a message is never
// visible twice, and that one process at a time owns a shard's folder. What a
// crash leaves behind are temporary files, which the next owner of the folder
// removes, and a file that batches were appended to (see Roll), which that owner
// publishes.
//
// Which messages are in files already a shard knows for those written last (see
// Window); its next owner learns it from the files.
package output

import (
	"errors"
	"io"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/output/committed"
)

var (
	// ErrAbandoned: the batch was given up while it was being written. Nothing
	// of it is visible, and what becomes of it is somebody else's decision.
	ErrAbandoned = errors.New("the batch was abandoned before it was published")

	// ErrStillVisible: a file of an attempt that failed could not be removed
	// again, so its batch is, or may be, visible under a name that Write never
	// returned. Every later Write of the shard, and its Close, tries to remove
	// that file first.
	ErrStillVisible = errors.New("the file of a failed attempt is still visible")

	// ErrLost: the shard's folder or its lock file was removed or replaced, so
	// another process may own what now has its name. Trying again is in vain;
	// close the shard and take it anew.
	ErrLost = errors.New("the shard's folder is no longer the one that was locked")

	// ErrClosed: the shard was closed.
	ErrClosed = errors.New("the shard is closed")
)

// LacksSpace tells whether err is of a disk, or a quota, that is full: the one
// failure of an output that is mended without anybody touching the output.
func LacksSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// Names inside a shard's folder. A temporary name is hidden from a shell's
// globs by its dot and from every other "*.ndjson" by its ending.
const (
	lockName      = ".lock"
	visibleSuffix = ".ndjson"
	tempPrefix    = "."
	tempSuffix    = ".tmp"
	rollingSuffix = ".rolling"

	workerPattern = `[0-9A-Za-z-]{1,64}`
	ulidPattern   = `[0-9A-HJKMNP-TV-Z]{26}`
)

var (
	workerName = regexp.MustCompile(`^` + workerPattern + `$`)
	tempName   = regexp.MustCompile(`^\.` + workerPattern + `_` + ulidPattern + `\.tmp$`)
	// rollingName is of a file that is published as its stem and visibleSuffix.
	rollingName = regexp.MustCompile(`^\.` + workerPattern + `_` + ulidPattern + `\.rolling$`)
)

// standbyInterval is how often a standby asks for the lock. It bounds how long
// a shard stays without an owner after a crash.
const standbyInterval = 200 * time.Millisecond

// Window is what a shard remembers of the messages it has written: the ids of
// the last IDs of them at least, unless they are older than Age. Both are
// positive. An id beyond the window is written again if it comes again.
//
// Age counts from the commit, but stands still while the shard has no owner: what
// is in the newest file counts as committed when the shard is taken, what is in
// another when the next one was begun, as much earlier as their names say. What comes again after a crash is
// known however long nobody restarts the process, and whatever was done to the
// clock. What a window costs in memory says committed.New.
type Window struct {
	IDs int
	Age time.Duration
}

// Recalled is what the owner of a shard learnt from its files at the start.
type Recalled struct {
	// IDs is how many ids are in the window, Files how many files were read.
	IDs, Files int
	// Damaged counts files of ours with a line that is cut off or has no id,
	// Foreign those named *.ndjson that are not named as ours. Ids that are in
	// such a file and in no other are not known to be written.
	Damaged, Foreign int
	// Example is the name of one of the damaged or foreign files, or empty.
	Example string
	// Adopted counts the rolling files of an earlier owner that were published,
	// Cut the bytes behind the last whole line of such files, which are gone.
	Adopted int
	Cut     int64
	Took    time.Duration
}

// Dir is the output folder. Its methods may be called concurrently.
type Dir struct {
	root   *os.Root
	path   string // absolute, so that a change of working directory does not matter
	window Window
	roll   Roll

	mu     sync.Mutex               // guards wanted
	wanted map[string]*atomic.Int64 // see Shard; by the shard's name

	// Set before the first Shard, read-only after; tests put theirs in.
	standby time.Duration
	sync    func(path string) error
	wrap    func(folder) folder
}

// Shard is one shard's folder, owned by this process until Close. Its methods
// may be called concurrently.
type Shard struct {
	name   string // relative to the output folder: "shard-0"
	folder folder
	syncer syncer
	roll   Roll
	// window has the ids of what is in durable files, and those in hand.
	window *committed.Window

	// Set while the shard is taken, read-only after.
	swept    int
	recalled Recalled

	// wanted is the size of the largest file for which there was no room, until
	// a probe finds it. It is the shard's whoever owns it in this process.
	wanted *atomic.Int64

	// gate is held shared by a writer from asking for the right to publish
	// until its file is durable or undone, or while it is at the rolling file,
	// and alone by Close: the lock is never given away in the middle of that.
	gate sync.RWMutex

	// turn is a lock that can be waited for with a context. Who has it and holds
	// the gate, or who holds the gate alone, may use what follows.
	turn   chan struct{}
	file   *rolling // or nil
	buffer []byte   // of the last append

	mu      sync.Mutex // guards what follows
	closed  bool
	writers int           // Writes under way; the last one out closes the folder
	undone  []publication // failed, and possibly still visible
	litter  []string      // temporary files that could not be removed, but may be later
	// hidden counts the names that were taken away and must not come back with a
	// loss of power, settled those of them that will not.
	hidden, settled int
	unrolled        error // see Unrolled
}

// publication is an attempt's pair of names.
type publication struct {
	temp, final string
	// tried tells that final may be ours, linked that it is. It is not known
	// after a link that reported an error.
	tried, linked bool
}

// folder is what a shard asks of its folder, a call each of the operating
// system or little more. Names are relative to it.
type folder interface {
	// create makes a file that did not exist, open for writing.
	create(name string) (file, error)
	// open opens the folder itself, for its fsync.
	open() (handle, error)
	// link gives temp's file a second name; it never overwrites.
	link(temp, final string) error
	// linked tells whether final is a name of temp's file.
	linked(temp, final string) (bool, error)
	// remove takes a name away; that it is gone already is no error.
	remove(name string) error
	// names visits the names of the regular files.
	names(visit func(name string)) error
	// reopen opens a file that a descriptor is not trusted for any more.
	reopen(name string) (reopened, error)
	// read opens a file for reading.
	read(name string) (io.ReadSeekCloser, error)
	// held fails with ErrLost unless the lock that this process holds is the
	// one found at the shard's path.
	held() error
	// locked fails unless the lock that this process holds is the one found in
	// the folder, wherever that is now: as long as it is, nobody else owns it.
	locked() error
	// unlock lets the next process have the folder.
	unlock() error
	close() error
}

type file interface {
	Write(p []byte) (int, error)
	handle
}

// reopened is a file whose end is in doubt.
type reopened interface {
	io.ReaderAt
	Size() (int64, error)
	Truncate(size int64) error
	// forget has what is durable read from the disk the next time, as far as the
	// system can be told to.
	forget()
	handle
}

type handle interface {
	Sync() error
	Close() error
}
