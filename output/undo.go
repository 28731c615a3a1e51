package output

import (
	"fmt"
	"slices"
	"sync"
)

// undo is what failed attempts owe the folder:
//
//	a visible name  ── finish ──▶  removed  ── syncRemovals ──▶  durably removed
//	a temporary file  ── finish ──▶  removed
//
// Its methods may be called concurrently.
type undo struct {
	dir *shardDir

	mu         sync.Mutex    // guards what follows
	visible    []publication // they failed, and possibly are visible
	staleTemps []string      // temporary files that could not be removed, but may be later
	// removed is the visible names that were removed and must not come back with a
	// loss of power. synced counts those that no longer can.
	removed []string
	synced  int
}

// discard removes the temporary files after err.
func (u *undo) discard(files []publication, err error) error {
	for _, p := range files {
		err = u.discardTemp(p.temp, err)
	}
	return err
}

// discardTemp removes a temporary file after err, or else leaves that to the
// next Write, to Close, or to the next owner of the folder.
func (u *undo) discardTemp(temp string, err error) error {
	removal := u.dir.remove(temp)
	if removal == nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.staleTemps = append(u.staleTemps, temp)
	return fmt.Errorf("%w; %w", err, u.dir.failed("unlink", temp, removal))
}

// retract makes the files invisible again after err, or else leaves that to the
// next Write. Before anything else is published, syncRemovals makes it durable.
func (u *undo) retract(files []publication, err error) error {
	for _, p := range files {
		if hiding := u.hide(p); hiding != nil {
			u.mu.Lock()
			u.visible = append(u.visible, p)
			u.mu.Unlock()
			err = fmt.Errorf("%w; %w", err, hiding)
			continue
		}
		u.oweSync(p.final)
		err = u.discardTemp(p.temp, err)
	}
	return err
}

// hide removes p's visible name, unless it turns out to be of another file. A
// link over a network may fail although it happened. One that fails with "file
// exists" may be that, or a file that is not ours to remove.
func (u *undo) hide(p publication) error {
	if !p.tried {
		return nil
	}
	if !p.linked {
		ours, err := u.dir.linked(p.temp, p.final)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStillVisible, u.dir.failed("stat", p.final, err))
		}
		if !ours {
			return nil
		}
	}
	if err := u.dir.remove(p.final); err != nil {
		return fmt.Errorf("%w: %w", ErrStillVisible, u.dir.failed("unlink", p.final, err))
	}
	return nil
}

// finish removes the visible names that retract could not, and what temporary
// files it can.
func (u *undo) finish() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.finishLocked()
}

// finishLocked is finish for a caller that holds mu.
func (u *undo) finishLocked() error {
	for len(u.visible) > 0 {
		p := u.visible[0]
		if err := u.hide(p); err != nil {
			return err
		}
		u.visible = u.visible[1:]
		u.removed = append(u.removed, p.final)
		u.staleTemps = append(u.staleTemps, p.temp)
	}
	u.staleTemps = slices.DeleteFunc(u.staleTemps, func(temp string) bool { return u.dir.remove(temp) == nil })
	return nil
}

// interrupted undoes what is known of the files. It notes the debt before it
// tries to pay, as that may panic, too.
func (u *undo) interrupted(files []publication) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.visible = append(u.visible, files...)
	_ = u.finishLocked() // or else the next Write does it
}

// oweSync notes that a name of a file, which has this visible name, was removed and not
// durably.
func (u *undo) oweSync(final string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.removed = append(u.removed, final)
}

// syncRemovals makes durable what was removed. Otherwise a loss of power could
// take a removal back and keep what is published after it, unless the file system
// keeps their order.
func (u *undo) syncRemovals() error {
	u.mu.Lock()
	owed, removals := len(u.removed), u.synced+len(u.removed)
	u.mu.Unlock()
	if owed == 0 {
		return nil
	}
	if err := u.dir.syncNames(); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for ; u.synced < removals; u.synced++ {
		u.dir.settled(u.removed[0])
		u.removed = u.removed[1:]
	}
	return nil
}
