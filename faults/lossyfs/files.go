package lossyfs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Open needs no handle: a file that is open is known by its number, with or
// without a name.
func (v *volume) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return v.look(cancel, func() syscall.Errno { return 0 })
}

func (v *volume) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	var n int
	status := v.look(cancel, func() syscall.Errno {
		data := v.known[in.NodeId].data
		n = copy(buf, data[min(in.Offset, uint64(len(data))):])
		return 0
	})
	return fuse.ReadResultData(buf[:n]), status
}

func (v *volume) Write(cancel <-chan struct{}, in *fuse.WriteIn, p []byte) (uint32, fuse.Status) {
	status := v.do(cancel, Write, in.NodeId, "", func(i *inode) syscall.Errno {
		i.write(p, int64(in.Offset))
		i.modified = time.Now()
		if in.Flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0 {
			i.sync()
		}
		return 0
	})
	if !status.Ok() {
		return 0, status
	}
	return uint32(len(p)), status
}

// Writev is Write: its buffers are not worth a second way.
func (v *volume) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

func (v *volume) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	return v.do(cancel, Close, in.NodeId, "", func(*inode) syscall.Errno { return 0 })
}

func (v *volume) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return v.do(cancel, Sync, in.NodeId, "", func(i *inode) syscall.Errno {
		i.sync()
		return 0
	})
}
