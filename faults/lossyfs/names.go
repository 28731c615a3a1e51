package lossyfs

import (
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// add names a new inode in a folder.
func (v *volume) add(folder *inode, name string, mode uint32, h *fuse.InHeader, out *fuse.EntryOut) syscall.Errno {
	if folder.names[name] != nil {
		return syscall.EEXIST
	}
	i := v.disk.inode(mode)
	i.uid, i.gid = h.Uid, h.Gid
	folder.edit(edit{name: i})
	refer(v, i, out)
	return 0
}

func (v *volume) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return v.do(cancel, Create, in.NodeId, name, func(folder *inode) syscall.Errno {
		return v.add(folder, name, syscall.S_IFREG|in.Mode&0o7777, &in.InHeader, &out.EntryOut)
	})
}

func (v *volume) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return v.do(cancel, Mkdir, in.NodeId, name, func(folder *inode) syscall.Errno {
		return v.add(folder, name, syscall.S_IFDIR|in.Mode&0o7777, &in.InHeader, out)
	})
}

func (v *volume) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return v.do(cancel, Link, in.NodeId, name, func(folder *inode) syscall.Errno {
		if folder.names[name] != nil {
			return syscall.EEXIST
		}
		i := v.known[in.Oldnodeid].inode
		folder.edit(edit{name: i})
		refer(v, i, out)
		return 0
	})
}

func (v *volume) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return v.do(cancel, Unlink, h.NodeId, name, func(folder *inode) syscall.Errno {
		switch i := folder.names[name]; {
		case i == nil:
			return syscall.ENOENT
		case i.isDir():
			return syscall.EISDIR
		}
		folder.edit(edit{name: nil})
		return 0
	})
}

func (v *volume) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return v.do(cancel, Rmdir, h.NodeId, name, func(folder *inode) syscall.Errno {
		if errno := removable(folder.names[name]); errno != 0 {
			return errno
		}
		folder.edit(edit{name: nil})
		return 0
	})
}

// removable tells whether a folder is one and empty.
func removable(i *inode) syscall.Errno {
	switch {
	case i == nil:
		return syscall.ENOENT
	case !i.isDir():
		return syscall.ENOTDIR
	case len(i.names) > 0:
		return syscall.ENOTEMPTY
	}
	return 0
}

func (v *volume) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return v.do(cancel, Rename, in.Newdir, to, func(target *inode) syscall.Errno {
		source := v.known[in.NodeId].inode
		i, there := source.names[from], target.names[to]
		switch {
		case i == nil:
			return syscall.ENOENT
		case in.Flags&^unix.RENAME_NOREPLACE != 0:
			return syscall.EINVAL
		case there != nil && in.Flags&unix.RENAME_NOREPLACE != 0:
			return syscall.EEXIST
		case there == i:
			return 0 // so POSIX wants it
		case there != nil && i.isDir():
			if errno := removable(there); errno != 0 {
				return errno
			}
		case there != nil && there.isDir():
			return syscall.EISDIR
		}
		if source == target {
			source.edit(edit{from: nil, to: i})
			return 0
		}
		source.edit(edit{from: nil})
		target.edit(edit{to: i})
		return 0
	})
}

func (v *volume) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return v.do(cancel, OpenDir, in.NodeId, "", func(folder *inode) syscall.Errno {
		list := make([]fuse.DirEntry, 0, len(folder.names))
		for _, name := range slices.Sorted(maps.Keys(folder.names)) {
			i := folder.names[name]
			list = append(list, fuse.DirEntry{Name: name, Ino: i.number, Mode: i.mode, Off: uint64(len(list) + 1)})
		}
		v.handle++
		out.Fh = v.handle
		v.listings[out.Fh] = list
		return 0
	})
}

// ReadDir lists the names as they were when the folder was opened.
func (v *volume) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return v.look(cancel, func() syscall.Errno {
		list := v.listings[in.Fh]
		for _, e := range list[min(in.Offset, uint64(len(list))):] {
			if !out.AddDirEntry(e) {
				break
			}
		}
		return 0
	})
}

func (v *volume) ReleaseDir(in *fuse.ReleaseIn) {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	delete(v.listings, in.Fh)
}

func (v *volume) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return v.do(cancel, SyncDir, in.NodeId, "", func(folder *inode) syscall.Errno {
		folder.sync()
		return 0
	})
}
