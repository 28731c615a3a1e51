package durable

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// InMemory tells that a folder is on a file system in memory, where an fsync makes
// nothing durable. A folder that cannot be looked at is not.
func InMemory(dir string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(dir, &stat) == nil && (stat.Type == unix.TMPFS_MAGIC || stat.Type == unix.RAMFS_MAGIC)
}

// CheckLocal refuses a folder on a network file system. What is mapped into memory, or
// locked, there is not the same for all machines. Its error calls the folder by the noun.
func CheckLocal(noun, dir string) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("%s %s: %w", noun, dir, err)
	}
	switch uint32(stat.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.AFS_FS_MAGIC:
		return fmt.Errorf("%s %s is on a network file system, want a local disk", noun, dir)
	}
	return nil
}
