// Package door leads to the process that has an embedded store: HTTP at a Unix
// socket in the folder of the store, for programs of the same user.
package door

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/net/netutil"
)

// Name is the name of the socket in the folder of a store.
const Name = "control.sock"

const (
	// maxPath is the longest path of a socket, in bytes, that every system takes.
	maxPath = 103
	// maxConnections bounds what clients hold of the process. More of them wait.
	maxConnections = 16
)

// ErrNoProcess: no process listens at the folder.
var ErrNoProcess = errors.New("no process listens")

// Listen makes the socket in the folder of a store. The caller has the store's
// lock, so a socket that is there belongs to a killed process, and is replaced. Only
// this user can connect. Close removes the socket; it may be called more than once.
func Listen(dir string) (_ net.Listener, err error) {
	root, err := os.OpenRoot(dir) // so that Close finds the folder when it was moved
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("control socket in %s: %w", dir, errors.Join(err, root.Close()))
		}
	}()
	if err := remove(root); err != nil {
		return nil, err
	}
	path, release, err := address(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	config := net.ListenConfig{Control: private}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // at the path may be another folder by then
	return netutil.LimitListener(listener{l, sync.OnceValue(func() error {
		return errors.Join(remove(root), root.Close(), l.Close())
	})}, maxConnections), nil
}

type listener struct {
	net.Listener
	close func() error
}

func (l listener) Close() error { return l.close() }

func remove(root *os.Root) error {
	if err := root.Remove(Name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// private gives the socket its mode before it has a name. Linux passes the mode on
// to the file, so at no moment can another user connect.
func private(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }), err)
}

// address returns the path of the socket in a folder, in a form that is short
// enough. The path is valid until release.
func address(dir string) (path string, release func(), err error) {
	dir, err = filepath.Abs(dir) // "@" at the beginning would mean something else
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, Name)
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), Name), func() { _ = f.Close() }, nil
}

// dial connects to the process that listens at the folder of a store. Without one it
// fails with ErrNoProcess.
func dial(ctx context.Context, dir string) (conn net.Conn, err error) {
	path, release, err := address(dir)
	if err == nil {
		defer release()
		conn, err = new(net.Dialer).DialContext(ctx, "unix", path)
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		err = ErrNoProcess
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w; run this as the user that owns the folder", err)
	}
	return conn, err
}

// Transport reaches the process that has the store in the folder, whatever the host of
// a URL. Without a process requests fail with ErrNoProcess.
func Transport(dir string) http.RoundTripper {
	return &http.Transport{
		DisableKeepAlives: true, // the process has few connections
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dial(ctx, dir)
			if err != nil {
				err = fmt.Errorf("the store in %s: %w", dir, err)
			}
			return conn, err
		},
	}
}
