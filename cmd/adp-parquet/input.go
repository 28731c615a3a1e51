package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"async-data-processor/message"
)

const (
	published = ".ndjson"
	suffix    = ".parquet"
)

// input is a published file.
type input struct {
	*os.File
	settings
	name, stem string // without a folder; stem without its ending, too
	// rules find the timestamp; unstamped take a line without one.
	rules, unstamped *message.Rules
}

// result is a Parquet file that is whole.
type result struct {
	*os.File
	size, rows int64
	identity   string
}

// open opens the file and sees that it is one that can have been published.
func open(s settings) (*input, error) {
	in := &input{settings: s, name: filepath.Base(s.file)}
	var ok bool
	if in.stem, ok = strings.CutSuffix(in.name, published); !ok || in.stem == "" || in.name[0] == '.' {
		return nil, never(fmt.Errorf("%s: the name of a published file ends in %s and begins with no dot", s.file, published))
	}
	var err error
	if in.rules, err = message.NewRules(s.field, false, true); err != nil {
		return nil, never(fmt.Errorf("the field of the timestamp: %w", err))
	}
	if in.unstamped, err = message.NewRules(s.field, true, true); err != nil {
		return nil, never(fmt.Errorf("the field of the timestamp: %w", err))
	}
	// A pipe under that name would otherwise wait for a writer.
	in.File, err = os.OpenFile(s.file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = never(err)
	}
	if err != nil {
		return nil, err
	}
	info, err := in.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = never(fmt.Errorf("%s is not a regular file", s.file))
	case s.bytes != 0 && info.Size() != s.bytes:
		err = never(fmt.Errorf("%s has %d bytes, and %d were published", s.file, info.Size(), s.bytes))
	}
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// fingerprint begins the identity of a result: the SHA-256 of the field of the timestamp, a
// newline, and the file. It says what was made, whatever program of whatever version
// has made it: the bytes of Parquet may differ.
func (in *input) fingerprint() hash.Hash {
	h := sha256.New()
	_, _ = io.WriteString(h, in.field+"\n") // it never fails
	return h
}

// identity reads the file to its end.
func (in *input) identity(ctx context.Context) (string, error) {
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	h := in.fingerprint()
	if _, err := io.Copy(h, reader{ctx, in.File}); err != nil {
		return "", err
	}
	return text(h), nil
}

func text(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// reader fails once its context has ended.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}
