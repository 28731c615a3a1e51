package output

import (
	"fmt"
	"slices"
)

// discard removes the temporary files after err.
func (s *Shard) discard(files []publication, err error) error {
	for _, p := range files {
		err = s.discardTemp(p.temp, err)
	}
	return err
}

// discardTemp removes a temporary file after err, or else leaves that to the
// next Write, to Close, or to the next owner of the folder.
func (s *Shard) discardTemp(temp string, err error) error {
	removal := s.folder.remove(temp)
	if removal == nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.litter = append(s.litter, temp)
	return fmt.Errorf("%w; %w", err, s.failed("unlink", temp, removal))
}

// undo makes the files invisible again after err, or else leaves that to the
// next Write; to make it durable it always does, before it publishes anything.
func (s *Shard) undo(files []publication, err error) error {
	for _, p := range files {
		undoing := s.hide(p)
		s.mu.Lock()
		if undoing != nil {
			s.undone = append(s.undone, p)
			s.mu.Unlock()
			err = fmt.Errorf("%w; %w", err, undoing)
			continue
		}
		s.hidden++
		s.mu.Unlock()
		err = s.discardTemp(p.temp, err)
	}
	return err
}

// hide removes p's visible name, unless it turns out to be of another file. A
// link over a network may fail although it happened; one that fails with "file
// exists" may be that, or a file that is not ours to remove.
func (s *Shard) hide(p publication) error {
	if !p.tried {
		return nil
	}
	if !p.linked {
		ours, err := s.folder.linked(p.temp, p.final)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrStillVisible, s.failed("stat", p.final, err))
		}
		if !ours {
			return nil
		}
	}
	if err := s.folder.remove(p.final); err != nil {
		return fmt.Errorf("%w: %w", ErrStillVisible, s.failed("unlink", p.final, err))
	}
	return nil
}

// finishUndo makes good for the undos that failed, and removes what temporary
// files it can. The caller holds mu.
func (s *Shard) finishUndo() error {
	for len(s.undone) > 0 {
		p := s.undone[0]
		if err := s.hide(p); err != nil {
			return err
		}
		s.undone = s.undone[1:]
		s.hidden++
		s.litter = append(s.litter, p.temp)
	}
	s.litter = slices.DeleteFunc(s.litter, func(temp string) bool { return s.folder.remove(temp) == nil })
	return nil
}

// interrupted undoes what is known of the files. It owes the undo before it
// tries, as that may panic, too.
func (s *Shard) interrupted(files []publication) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undone = append(s.undone, files...)
	_ = s.finishUndo() // or else the next Write does it
}

// settleHidden makes durable that what failed earlier is invisible again. Or a
// loss of power could take the removal back and keep what is published after it,
// unless the file system keeps their order.
func (s *Shard) settleHidden() error {
	s.mu.Lock()
	hidden, settled := s.hidden, s.settled
	s.mu.Unlock()
	if hidden == settled {
		return nil
	}
	if err := s.settleNames(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = max(s.settled, hidden)
	return nil
}
