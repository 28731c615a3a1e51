package durable

import (
	"fmt"

	"golang.org/x/sys/unix"
)

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
