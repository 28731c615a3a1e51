package output

import (
	"cmp"
	"io"
)

// hooked is a folder whose hook sees, and may spoil or fail, what is done in it:
// "link" to a name, "open" for reading and "write" before they are done, "read"
// after it.
type hooked struct {
	folder
	hook func(step, name string, p []byte) error
}

func (h hooked) link(temp, final string) error {
	if err := h.hook("link", final, nil); err != nil {
		return err
	}
	return h.folder.link(temp, final)
}

func (h hooked) create(name string) (file, error) {
	f, err := h.folder.create(name)
	return hookedFile{f, h, name}, err
}

func (h hooked) read(name string) (io.ReadSeekCloser, error) {
	if err := h.hook("open", name, nil); err != nil {
		return nil, err
	}
	in, err := h.folder.read(name)
	return hookedInput{in, h, name}, err
}

func (h hooked) reopen(name string) (reopened, error) {
	f, err := h.folder.reopen(name)
	return hookedReopened{f, h, name}, err
}

type hookedFile struct {
	file
	h    hooked
	name string
}

func (f hookedFile) Write(p []byte) (int, error) {
	if err := f.h.hook("write", f.name, p); err != nil {
		return 0, err
	}
	return f.file.Write(p)
}

type hookedInput struct {
	io.ReadSeekCloser
	h    hooked
	name string
}

func (f hookedInput) Read(p []byte) (int, error) {
	n, err := f.ReadSeekCloser.Read(p)
	return n, cmp.Or(f.h.hook("read", f.name, p[:n]), err)
}

type hookedReopened struct {
	reopened
	h    hooked
	name string
}

func (f hookedReopened) ReadAt(p []byte, at int64) (int, error) {
	n, err := f.reopened.ReadAt(p, at)
	return n, cmp.Or(f.h.hook("read", f.name, p[:n]), err)
}
