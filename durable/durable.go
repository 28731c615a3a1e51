// Package durable has what the owner of a folder on disk needs: a folder whose
// name survives a loss of power, a lock against a second owner, and a watch over
// the free space.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Folder makes the folder at path durably, with Mkdir, unless it is there, and
// returns its absolute path. It fails if this user cannot read and write the
// folder. Its errors call the folder by the noun ("output folder"), and say what
// to do.
func Folder(noun, path string, mode fs.FileMode) (abs string, err error) {
	if path == "" {
		return "", fmt.Errorf("%s: no folder given", noun)
	}
	abs, err = filepath.Abs(path) // a change of working directory must not matter
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", noun, path, err)
	}
	if info, err := os.Stat(abs); err == nil && !info.IsDir() {
		return "", fmt.Errorf("%s %s: %w; move that file away or choose another folder", noun, abs, unix.ENOTDIR)
	}
	if err := Mkdir(abs, mode); err != nil {
		return "", fmt.Errorf("make %s: %w; make %s by hand or choose another folder", noun, err, abs)
	}
	// A file made for a trial would need space. On a full disk the program has
	// to start: it waits for space, or drains what is stored.
	err = unix.Faccessat(unix.AT_FDCWD, abs, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w; let user %d read and write it or choose another folder", noun, abs, err, os.Geteuid())
	}
	return abs, nil
}

// Mkdir makes the folder at path, which may exist. Missing parents get the mode
// 0755. Each new name is durable when Mkdir returns.
func Mkdir(path string, mode fs.FileMode) error {
	return mkdir(path, mode, SyncDir)
}

// mkdir is Mkdir with the fsync of a folder as a parameter.
func mkdir(path string, mode fs.FileMode, sync func(path string) error) error {
	var missing []string
	for p := path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, p)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil {
		if info, _ := os.Stat(path); info == nil || !info.IsDir() {
			return err
		}
	}
	for _, p := range missing {
		if err := sync(filepath.Dir(p)); err != nil {
			return err
		}
	}
	return nil
}

// SyncDir makes the names in the folder at path durable.
func SyncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
