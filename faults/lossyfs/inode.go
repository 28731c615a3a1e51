package lossyfs

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"syscall"
	"time"
)

// inode is a file or folder, as its users see it and as it is on the disk. The
// disk's lock guards it.
type inode struct {
	number   uint64
	mode     uint32 // with its type; changes of it are durable at once
	uid, gid uint32
	modified time.Time

	links  int    // the names that users see
	parent *inode // where it was named last
	name   string

	content // of a file

	names    map[string]*inode // of a folder, as users see it
	kept     map[string]*inode // the names that are durable
	unsynced []edit            // what names has that kept lacks, oldest first
}

// edit is one change of a folder's names: nil takes a name away.
type edit map[string]*inode

// inode makes a new one. The caller holds mu.
func (d *Disk) inode(mode uint32) *inode {
	d.last++
	i := &inode{number: d.last, mode: mode, modified: time.Now()}
	if i.isDir() {
		i.names, i.kept = map[string]*inode{}, map[string]*inode{}
	}
	return i
}

func (i *inode) isDir() bool { return i.mode&syscall.S_IFMT == syscall.S_IFDIR }

// path is the path below the mount point.
func (i *inode) path() string {
	if i.parent == nil {
		return i.name
	}
	return path.Join(i.parent.path(), i.name)
}

// edit changes the names of a folder, for its users.
func (i *inode) edit(e edit) {
	for name, to := range e {
		if old := i.names[name]; old != nil {
			old.links--
		}
		if to == nil {
			delete(i.names, name)
			continue
		}
		i.names[name] = to
		to.links++
		to.parent, to.name = i, name
	}
	i.unsynced = append(i.unsynced, e)
	i.modified = time.Now()
}

// sync makes durable what users see.
func (i *inode) sync() {
	if !i.isDir() {
		i.content.sync()
		return
	}
	for _, e := range i.unsynced {
		i.keep(e)
	}
	i.unsynced = nil
}

func (i *inode) keep(e edit) {
	for name, to := range e {
		if to == nil {
			delete(i.kept, name)
		} else {
			i.kept[name] = to
		}
	}
}

// survivors returns what is left of i, and of all it leads to, after a loss of
// power: new inodes, so that what still goes on with the old ones is without
// effect. Those made before are in done, for a file may have several names.
func survivors(i *inode, chance *rand.Rand, done map[*inode]*inode) *inode {
	if left := done[i]; left != nil {
		return left
	}
	left := &inode{number: i.number, mode: i.mode, uid: i.uid, gid: i.gid, modified: i.modified}
	done[i] = left
	if !i.isDir() {
		left.content = i.survivor(chance)
		return left
	}
	left.kept = maps.Clone(i.kept)
	if chance != nil {
		for _, e := range i.unsynced {
			if chance.IntN(2) == 0 {
				left.keep(e)
			}
		}
	}
	left.names = map[string]*inode{}
	// In order, for the same chances make the same disk.
	for _, name := range slices.Sorted(maps.Keys(left.kept)) {
		child := survivors(left.kept[name], chance, done)
		left.names[name] = child
		child.links++
		child.parent, child.name = left, name
	}
	left.kept = maps.Clone(left.names)
	return left
}
