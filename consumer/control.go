package consumer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"async-data-processor/output"
	"async-data-processor/workerpool"
)

// control is what commands have set of a shard. Its folder keeps it, as JSON:
//
//	{"v":1,"pause":{"since":"…","until":"…","reason":"…","by":"…","oldest":"…"},"workers":{"min":3,"max":8},"recent":[{"id":"…","verb":"pause"}]}
//
// Every owner reads it before it consumes. A file that cannot be understood pauses the
// shard: what it said may have been a pause, and paused messages are safe.
type control struct {
	Version int      `json:"v"`
	Pause   *Pause   `json:"pause,omitempty"`
	Workers *workers `json:"workers,omitempty"`
	// Recent is the commands with an id that were applied last, the newest last.
	Recent []applied `json:"recent,omitempty"`
}

// Pause is why nothing of a shard is consumed.
type Pause struct {
	Since time.Time `json:"since"`
	// Until is when it ends by itself; zero for never.
	Until time.Time `json:"until,omitzero"`
	// Reason and By are what the command said.
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
	// Oldest is when no message was accepted earlier that is in no file since the pause
	// began; zero if that is not known. Nothing is consumed meanwhile, so an owner that
	// comes later knows it from here.
	Oldest time.Time `json:"oldest,omitzero"`
	// Damaged is why the control file of the shard's folder could not be understood. It
	// is nil if a command paused the shard.
	Damaged error `json:"-"`
}

// workers bounds the workers of a shard.
type workers struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

func (w workers) check() error {
	if w.Min < 1 || w.Min > w.Max || w.Max > workerpool.MaxWorkers {
		return fmt.Errorf("%d to %d workers, want 1 <= min <= max <= %d", w.Min, w.Max, workerpool.MaxWorkers)
	}
	return nil
}

type applied struct {
	ID   string `json:"id"`
	Verb Verb   `json:"verb"`
}

const (
	controlVersion = 1
	// recentLimit bounds how many commands a shard remembers.
	recentLimit = 32
)

// decodeControl reads a control file. One that it does not understand pauses the shard.
func decodeControl(content []byte, now time.Time) control {
	var c control
	err := json.Unmarshal(content, &c)
	switch {
	case err != nil:
	case c.Version != controlVersion:
		err = fmt.Errorf("it has version %d, this program knows %d", c.Version, controlVersion)
	case c.Workers != nil:
		err = c.Workers.check()
	}
	if err != nil {
		return damagedControl(err, now)
	}
	c.Recent = c.Recent[max(0, len(c.Recent)-recentLimit):]
	return c
}

func damagedControl(why error, now time.Time) control {
	return control{Version: controlVersion, Pause: &Pause{Since: now, Damaged: fmt.Errorf("cannot understand the control file: %w", why)}}
}

// encode never exceeds output.MaxControl, as Command.check bounds every text.
func (c control) encode() ([]byte, error) {
	content, err := json.Marshal(c)
	if err == nil && len(content) > output.MaxControl {
		err = errors.New("the control file would be too large")
	}
	return content, err
}

// with returns the control after the command, and whether that was applied before. No
// message that is in no file is older than oldest.
func (c control) with(cmd Command, now, oldest time.Time) (next control, repeated bool) {
	if cmd.ID != "" && slices.Contains(c.Recent, applied{cmd.ID, cmd.Verb}) {
		return c, true
	}
	next = c
	next.Version = controlVersion
	switch cmd.Verb {
	case PauseShard:
		since := now
		if c.Pause != nil {
			since = c.Pause.Since
		}
		if c.paused(now) {
			oldest = c.Pause.Oldest
		}
		next.Pause = &Pause{Since: since.UTC(), Until: cmd.Until.UTC(), Reason: cmd.Reason, By: cmd.By, Oldest: oldest.UTC()}
	case ResumeShard:
		next.Pause = nil
	case ResizeShard:
		next.Workers = nil
		if cmd.Max > 0 {
			next.Workers = &workers{cmd.Min, cmd.Max}
		}
	}
	if cmd.ID != "" {
		// A new array: others may read the old one.
		next.Recent = append(slices.Clone(c.Recent[max(0, len(c.Recent)-recentLimit+1):]), applied{cmd.ID, cmd.Verb})
	}
	return next, false
}

// paused tells whether nothing is to be consumed.
func (c control) paused(now time.Time) bool {
	return c.Pause != nil && (c.Pause.Until.IsZero() || now.Before(c.Pause.Until))
}

// bounds returns how many workers there may be.
func (c control) bounds(cfg Config) (lowest, highest int) {
	if c.Workers != nil {
		return c.Workers.Min, c.Workers.Max
	}
	return cfg.WorkersMin, cfg.WorkersMax
}

// text describes the state for the audit.
func (c control) text(cfg Config) string {
	var b strings.Builder
	switch p := c.Pause; {
	case p == nil:
		b.WriteString("running")
	case p.Until.IsZero():
		b.WriteString("paused")
	default:
		fmt.Fprintf(&b, "paused until %s", p.Until.UTC().Format(time.RFC3339))
	}
	lowest, highest := c.bounds(cfg)
	fmt.Fprintf(&b, ", %d to %d workers", lowest, highest)
	return b.String()
}

// load reads the control of a folder that was just taken. If the folder has none, but
// had one when this shard lost it, another program has removed the file, or the folder:
// then it is written again, as no command has ended what it says.
func (sh *shard) load(f Folder) error {
	content, err := f.Control()
	var c control
	switch {
	case errors.Is(err, output.ErrLarge):
		c = damagedControl(err, time.Now())
	case err != nil:
		return err
	case content != nil:
		c = decodeControl(content, time.Now())
	default:
		sh.set.mu.Lock()
		c = sh.control
		sh.set.mu.Unlock()
		if c.Version == 0 || c.Pause != nil && c.Pause.Damaged != nil {
			break
		}
		if content, err = c.encode(); err == nil {
			err = f.SetControl(sh.stopping, content)
		}
		if err != nil {
			return err
		}
	}
	sh.set.mu.Lock()
	defer sh.set.mu.Unlock()
	sh.folder, sh.control = f, c
	if c.paused(time.Now()) && !c.Pause.Oldest.IsZero() {
		sh.age.know(c.Pause.Oldest)
	}
	sh.turned()
	return nil
}

// apply is what a command does to a shard whose folder has the control by now.
func (sh *shard) apply(f Folder, c control) {
	s := sh.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh.folder != nil && sh.folder != f {
		return // it was read from the folder
	}
	sh.control = c // its next owner reads it if it is given back
	if sh.pool != nil {
		sh.pool.Resize(c.bounds(s.cfg))
	}
	if c.Pause != nil && sh.drain != nil {
		sh.drain()
	}
	sh.turned()
}

// turned wakes what waits for a change of the shard. set.mu is held.
func (sh *shard) turned() {
	close(sh.turn)
	sh.turn = make(chan struct{})
}

// keepOldest has the folder of a paused shard say when the oldest message was accepted,
// once that is known better than before: the queue was empty when the pause began. It
// returns the pause that says so, or nil. If it fails, the next look tries again.
func keepOldest(sh *shard, f Folder) *Pause {
	select {
	case sh.deciding <- struct{}{}:
		defer func() { <-sh.deciding }()
	default:
		return nil // a command is being decided
	}
	sh.set.mu.Lock()
	c := sh.control
	sh.set.mu.Unlock()
	at := sh.age.least()
	if c.Pause == nil || c.Pause.Damaged != nil || sh.age.queued.Load() <= 0 || at.Sub(c.Pause.Oldest) < time.Second {
		return nil
	}
	p := *c.Pause
	p.Oldest, c.Pause = at.UTC(), &p
	content, err := c.encode()
	if err == nil {
		err = f.SetControl(sh.stopping, content)
	}
	if err != nil {
		return nil
	}
	sh.set.mu.Lock()
	defer sh.set.mu.Unlock()
	sh.control = c
	return &p
}
