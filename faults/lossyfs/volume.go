package lossyfs

import (
	"math"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// volume is a disk as the kernel sees it through one mount. Nothing is cached
// there: every operation comes here. flock and its like are the kernel's alone.
type volume struct {
	fuse.RawFileSystem // what is missing here is not supported

	disk *Disk
	life int // of the disk, in which this was mounted
	gone <-chan struct{}

	// The disk's lock guards what follows.
	known    map[uint64]*known
	listings map[uint64][]fuse.DirEntry // of open folders
	handle   uint64                     // the newest of those
}

// known is an inode that the kernel refers to, by its number.
type known struct {
	*inode
	references uint64
}

// volume returns a view of the disk that ends with gone.
func (d *Disk) volume(gone <-chan struct{}) *volume {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &volume{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		disk:          d,
		life:          d.lives,
		gone:          gone,
		known:         map[uint64]*known{fuse.FUSE_ROOT_ID: {inode: d.root, references: math.MaxUint64 / 2}},
		listings:      map[uint64][]fuse.DirEntry{},
	}
}

// String implements fuse.RawFileSystem, as do the methods after it.
func (v *volume) String() string { return "lossyfs" }

// look does what changes nothing. After a loss of power it does not return
// until the mount is gone, or the caller is interrupted.
func (v *volume) look(cancel <-chan struct{}, f func() syscall.Errno) fuse.Status {
	v.disk.mu.Lock()
	if v.disk.lives == v.life {
		defer v.disk.mu.Unlock()
		return fuse.Status(f())
	}
	v.disk.mu.Unlock()
	select {
	case <-v.gone:
		return fuse.EIO
	case <-cancel:
		return fuse.EINTR
	}
}

// do does an operation that the hook is asked about, before and after. at
// finds the inode that the operation is on, whose path is told with name.
func (v *volume) do(cancel <-chan struct{}, kind Kind, node uint64, name string, f func(*inode) syscall.Errno) fuse.Status {
	op := Op{Kind: kind}
	var on *inode
	status := v.look(cancel, func() syscall.Errno {
		on = v.known[node].inode
		op.Path = on.path()
		if name != "" {
			op.Path = join(op.Path, name)
		}
		return 0
	})
	if !status.Ok() {
		return status
	}
	if errno := v.disk.ask(op); errno != 0 {
		if kind == Sync {
			v.look(cancel, func() syscall.Errno { on.forget(); return 0 })
		}
		return fuse.Status(errno)
	}
	if status := v.look(cancel, func() syscall.Errno { return f(on) }); !status.Ok() {
		return status
	}
	op.Done = true
	return fuse.Status(v.disk.ask(op))
}

func join(folder, name string) string {
	if folder == "" {
		return name
	}
	return folder + "/" + name
}

// refer tells the kernel of an inode, and notes that it knows it.
func refer(v *volume, i *inode, out *fuse.EntryOut) {
	k := v.known[i.number]
	if k == nil {
		k = &known{inode: i}
		v.known[i.number] = k
	}
	k.references++
	out.NodeId = i.number
	i.attributes(&out.Attr)
}

func (i *inode) attributes(out *fuse.Attr) {
	size, links := len(i.data), i.links
	if i.isDir() {
		size, links = 4096, 2
	}
	*out = fuse.Attr{
		Ino: i.number, Size: uint64(size), Blocks: uint64(size+sector-1) / sector, Blksize: 4096,
		Mode: i.mode, Nlink: uint32(links), Owner: fuse.Owner{Uid: i.uid, Gid: i.gid},
	}
	out.SetTimes(&i.modified, &i.modified, &i.modified)
}

func (v *volume) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return v.look(cancel, func() syscall.Errno {
		child := v.known[h.NodeId].names[name]
		if child == nil {
			return syscall.ENOENT
		}
		refer(v, child, out)
		return 0
	})
}

func (v *volume) Forget(node, references uint64) {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	if k := v.known[node]; k.references > references {
		k.references -= references
	} else {
		delete(v.known, node)
	}
}

func (v *volume) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return v.look(cancel, func() syscall.Errno {
		v.known[in.NodeId].attributes(&out.Attr)
		return 0
	})
}

func (v *volume) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if size, ok := in.GetSize(); ok {
		status := v.do(cancel, Truncate, in.NodeId, "", func(i *inode) syscall.Errno {
			i.truncate(int64(size))
			i.modified = time.Now()
			return 0
		})
		if !status.Ok() {
			return status
		}
	}
	return v.look(cancel, func() syscall.Errno {
		i := v.known[in.NodeId].inode
		if mode, ok := in.GetMode(); ok {
			i.mode = i.mode&syscall.S_IFMT | mode
		}
		if uid, ok := in.GetUID(); ok {
			i.uid = uid
		}
		if gid, ok := in.GetGID(); ok {
			i.gid = gid
		}
		if modified, ok := in.GetMTime(); ok {
			i.modified = modified
		}
		i.attributes(&out.Attr)
		return 0
	})
}

// StatFs tells of a disk that is never full.
func (v *volume) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const blocks, inodes = 1 << 24, 1 << 20
	*out = fuse.StatfsOut{
		Bsize: 4096, Frsize: 4096, NameLen: 255,
		Blocks: blocks, Bfree: blocks, Bavail: blocks, Files: inodes, Ffree: inodes,
	}
	return fuse.OK
}
