// Package lossyfs is a disk for tests that can lose power. It is a file system
// in memory, served by FUSE, that knows of each file and folder what a real
// disk must still have after a loss of power, and lets go of the rest.
//
// What counts as durable is what POSIX promises, not what a particular file
// system happens to do beyond it:
//
//   - the content and size of a file, by its fsync or fdatasync, or as written
//     through a descriptor with O_SYNC or O_DSYNC;
//   - a name, or that it is gone, by the fsync of the folder it is in. The
//     fsync of a file says nothing about its name, that of a folder nothing
//     about the folder's own;
//   - a rename within a folder is one change, one across folders is two.
package lossyfs

import (
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
)

// Kind is what an operation does.
type Kind string

// The operations that a Hook is asked about. There is a Close for each
// descriptor of a file that is closed, by the death of its process as well.
const (
	Create   Kind = "create"
	Write    Kind = "write"
	Truncate Kind = "truncate"
	Sync     Kind = "fsync"
	Close    Kind = "close"
	Link     Kind = "link"
	Rename   Kind = "rename"
	Unlink   Kind = "unlink"
	Mkdir    Kind = "mkdir"
	Rmdir    Kind = "rmdir"
	OpenDir  Kind = "open folder"
	SyncDir  Kind = "fsync folder"
)

// Op is an operation of a process that uses the disk.
type Op struct {
	Kind Kind
	// Path is relative to the mount point: the new name where there are two,
	// and the one that it was given last for a file with several.
	Path string
	// Done tells that it has happened, and that its user does not know it yet.
	Done bool
}

// Hook is called before each operation, and after each that has succeeded. An
// error before it fails the operation, which then does not happen; one after
// it is reported although it has happened. It may be called concurrently, and
// may take as long as it likes.
//
// What an fsync that failed should have made durable never will be: Linux takes
// pages that it could not write for clean, so that the next fsync succeeds.
type Hook func(Op) error

// Disk is a disk with a file system on it, empty at first.
type Disk struct {
	mu    sync.Mutex // guards what follows and all inodes
	root  *inode
	last  uint64 // the number of the newest inode
	lives int    // losses of power so far
	hook  Hook
}

// New returns an empty disk.
func New() *Disk {
	d := &Disk{}
	d.root = d.inode(syscall.S_IFDIR | 0o755)
	return d
}

// SetHook replaces the hook, nil is none.
func (d *Disk) SetHook(h Hook) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = h
}

// PowerLoss takes away what is not durable. The processes that use the disk
// are as good as dead: their operations do not return before the mount is
// unmounted, or a signal ends them. It can be mounted again at once.
//
// With chance each change that is not durable may have reached the disk all
// the same, independently of the others, and of a write only a part.
func (d *Disk) PowerLoss(chance *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lives++
	d.root = survivors(d.root, chance, map[*inode]*inode{})
}

// Survivors returns the files that a PowerLoss now would leave in a folder, by name.
func (d *Disk) Survivors(folder string, chance *rand.Rand) map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	files := map[string][]byte{}
	if left := survivors(d.root, chance, map[*inode]*inode{}).names[folder]; left != nil {
		for name, file := range left.names {
			files[name] = file.data
		}
	}
	return files
}

// ask asks the hook about an operation.
func (d *Disk) ask(op Op) syscall.Errno {
	d.mu.Lock()
	hook := d.hook
	d.mu.Unlock()
	if hook == nil {
		return 0
	}
	err := hook(op)
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return syscall.EIO
}
