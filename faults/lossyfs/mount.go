package lossyfs

import (
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"async-data-processor/faults/process"
)

const (
	device = "/dev/fuse"
	// The kernel's numbers for it, for a file that was not made.
	deviceMajor, deviceMinor = 10, 229

	maxWrite = 1 << 20 // the most that the kernel sends at a time, by default
)

// Mount is a disk in use. It serves the kernel from this process, so its
// user must not be stopped by what this process waits for.
type Mount struct {
	path   string
	server *fuse.Server
	gone   chan struct{} // closed by the first Unmount
	once   sync.Once
	served sync.WaitGroup
}

// Mount makes the disk's files visible below the folder at path. It needs the
// right to mount. A disk has one mount at a time, but for those that a loss of
// power has ended.
func (d *Disk) Mount(path string) (_ *Mount, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if err := guarded(); err != nil {
		return nil, err
	}
	fd, err := openDevice()
	if err != nil {
		return nil, err
	}
	// Mounted here, because the library leaves the descriptor to child
	// processes, who would keep the mount alive.
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other,max_read=%d",
		fd, unix.Geteuid(), unix.Getegid(), maxWrite)
	if err := unix.Mount(source, path, "fuse.lossyfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("mount at %s: %w", path, err)
	}
	m := &Mount{path: path, gone: make(chan struct{})}
	m.server, err = fuse.NewServer(d.volume(m.gone), fmt.Sprint("/dev/fd/", fd), &fuse.MountOptions{
		MaxWrite:           maxWrite,
		DisableXAttrs:      true,
		DisableReadDirPlus: true,
		DisableSplice:      true,
		ExtraCapabilities:  fuse.CAP_DIRECT_IO_ALLOW_MMAP, // for programs that read through a mapping
		Logger:             log.New(io.Discard, "", 0),    // of requests that went with their process
		PanicHandler:       func(cause any) fuse.Status { panic(cause) },
	})
	if err != nil {
		_ = unix.Unmount(path, unix.MNT_DETACH)
		return nil, fmt.Errorf("serve %s: %w", path, err)
	}
	m.served.Go(m.server.Serve)
	if err := poll(path); err != nil {
		return nil, fmt.Errorf("look into %s: %w", path, err)
	}
	return m, nil
}

// source names the mounts of this process.
var source = fmt.Sprint("lossyfs-", os.Getpid())

// guarded starts a process, once, that ends the mounts of this one after its death.
// The kernel does not: a thread that waits for a mount of its own process cannot be
// killed, and keeps the descriptor by which the kernel would notice. It also ends
// the mounts of processes that are dead already.
var guarded = sync.OnceValue(func() error {
	const script = `
		end() {
			while read -r source path _; do
				case $source in lossyfs-*) ;; *) continue ;; esac
				if [ "$source" = "$1" ] || ! [ -d "/proc/${source#lossyfs-}" ]; then umount -i -f -l "$path"; fi
			done </proc/self/mounts
		}
		sleep infinity &
		trap 'kill $!' TERM
		end none
		echo
		wait
		end "$0"`
	guard := exec.Command("sh", "-c", script, source)
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out, err := guard.StdoutPipe()
	if err != nil {
		return err
	}
	if _, err := process.Start(guard); err != nil {
		return fmt.Errorf("guard the mounts: %w", err)
	}
	_, err = out.Read(make([]byte, 1)) // it is ready
	return err
})

// Unmount ends the mount, even in use: operations fail from
// then on. The disk keeps what they have done. Unmounting again does nothing.
func (m *Mount) Unmount() error {
	var err error
	m.once.Do(func() {
		close(m.gone)
		err = unix.Unmount(m.path, unix.MNT_FORCE|unix.MNT_DETACH)
		m.served.Wait()
	})
	return err
}

func openDevice() (int, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != unix.ENOENT {
		return fd, wrapped(err)
	}
	if err := unix.Mknod(device, unix.S_IFCHR|0o600, int(unix.Mkdev(deviceMajor, deviceMinor))); err != nil {
		return -1, fmt.Errorf("make %s: %w", device, err)
	}
	fd, err = unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	return fd, wrapped(err)
}

func wrapped(err error) error {
	if err != nil {
		return fmt.Errorf("open %s: %w", device, err)
	}
	return nil
}

// poll lets the kernel find out that files cannot be polled. Else it would ask
// when this process opens the first, in a moment in which the Go runtime may
// have no thread left for the answer. The library knows the name, and does the
// same for a mount of its own.
func poll(path string) error {
	fd, err := unix.Open(filepath.Join(path, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return unix.Close(fd)
}
