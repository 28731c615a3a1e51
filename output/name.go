package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what a name in a shard's folder stands for.
type Kind uint8

const (
	// Foreign: the name is nothing that this package gives.
	Foreign Kind = iota
	// Visible: a published file, complete.
	Visible
	// Temporary: a file being written, or left over by a crash.
	Temporary
	// Rolling: a file that batches are appended to, or that a crash has left.
	Rolling
	// Lock: the file whose lock the folder's owner holds.
	Lock
)

const shardPrefix = "shard-"

var visibleName = regexp.MustCompile(`^` + workerPattern + `_` + ulidPattern + `\.ndjson$`)

// ParseName tells what a name in a shard's folder stands for.
func ParseName(name string) Kind {
	switch {
	case visibleName.MatchString(name):
		return Visible
	case tempName.MatchString(name):
		return Temporary
	case rollingName.MatchString(name):
		return Rolling
	case name == lockName:
		return Lock
	default:
		return Foreign
	}
}

// ParseShard returns the shard that a name in the output folder stands for.
func ParseShard(name string) (n int, ok bool) {
	n, err := strconv.Atoi(strings.TrimPrefix(name, shardPrefix))
	return n, err == nil && n >= 0 && name == shardName(n)
}

func shardName(n int) string { return fmt.Sprintf("%s%d", shardPrefix, n) }

// Owned tells whether some process owns the shard's folder at path. A folder
// without a lock file has never had an owner.
//
// The system can only be asked by trying, so for an instant the lock is held,
// shared: an owner-to-be who comes in that instant looks again after the
// interval of a standby.
func Owned(path string) (bool, error) {
	path = filepath.Join(path, lockName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, failed("open", path, err)
	}
	defer f.Close() // gives the lock back
	switch err := flock(f, unix.LOCK_SH); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return true, nil
	case err != nil:
		return false, failed("lock", path, err)
	}
	return false, nil
}
