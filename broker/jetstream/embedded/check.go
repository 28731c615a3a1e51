package embedded

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"slices"
	"strings"
	"time"
)

// damage is something that the server would drop without a word: it cuts a
// block off at the first record that it cannot read, skips a stream whose
// configuration it cannot read, and does not miss a block.
type damage struct {
	path string
	what string
	// repair makes the store usable without what is damaged, which stays on disk
	// under another name.
	repair func() error
}

func (d damage) String() string { return d.path + ": " + d.what }

// check reads the whole store as the server will, at the speed of the disk,
// and returns what is damaged in it. A record cut off at the end of the last
// block is none: a process died while it wrote what was never acknowledged.
//
// If nothing is damaged it removes what holds no message but would mislead the
// server: states of consumers that are wrong or ahead of the clock, and streams
// that were being made.
func (s *store) check() ([]damage, error) {
	damages, repairs, err := s.inspect()
	if err != nil || len(damages) > 0 {
		return damages, err
	}
	for _, repair := range repairs {
		err = errors.Join(err, repair())
	}
	return nil, err
}

// inspect is check without its repairs, which it returns.
func (s *store) inspect() (damages []damage, repairs []func() error, _ error) {
	entries, err := os.ReadDir(s.path(streamsPath))
	if ignoreMissing(err) != nil {
		return nil, nil, err
	}
	repairs, err = s.probes()
	if err != nil {
		return nil, nil, err
	}
	closed, clean := s.readManifest()
	damages = s.missing(closed)
	highWaters := s.readHighWaters()
	for _, e := range entries {
		// A name with a dot is a stream that was being deleted.
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		c := streamCheck{store: s, name: e.Name(), clean: clean, reader: blockReader{stream: e.Name()}}
		if err := c.run(); err != nil {
			return nil, nil, fmt.Errorf("check %s: %w", s.path(streamsPath, e.Name()), err)
		}
		damages = append(damages, c.damages...)
		repairs = append(repairs, c.repairs...)
		if highWater := highWaters[e.Name()]; len(c.damages) == 0 && !c.unread && c.last < highWater {
			damages = append(damages, c.short(highWater))
		}
		delete(highWaters, e.Name())
	}
	for name, highWater := range highWaters {
		c := streamCheck{store: s, name: name}
		damages = append(damages, c.short(highWater))
	}
	return damages, repairs, nil
}

// probes finds what a process left behind that died while its server tried out
// whether it may write. The server would take it for an account that is missing.
func (s *store) probes() (removals []func() error, _ error) {
	entries, err := os.ReadDir(s.path(accountsPath))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), probePrefix) {
			removals = append(removals, func() error {
				return ignoreMissing(os.Remove(s.path(accountsPath, e.Name())))
			})
		}
	}
	return removals, ignoreMissing(err)
}

// streamCheck is the check of one stream.
type streamCheck struct {
	store *store
	name  string
	clean bool // the store was closed in order

	reader    blockReader
	consumers []*consumerState
	last      uint64 // the highest sequence met
	unread    bool   // the blocks are of a kind that is not read
	torn      *block // the last block, if its end cannot be read
	damages   []damage
	repairs   []func() error
}

func (c *streamCheck) dir(elem ...string) string {
	return c.store.path(append([]string{streamsPath, c.name}, elem...)...)
}

func (c *streamCheck) run() error {
	blocks, err := blocksIn(c.dir(messagesName))
	if err != nil {
		return err
	}
	// The server has just made them, or emptied them; it copes with that.
	blocks = slices.DeleteFunc(blocks, func(b block) bool { return b.size == 0 })
	var config struct {
		Compression string `json:"compression"`
	}
	switch err := readMeta(c.dir(), c.name, &config); {
	case errors.Is(err, errBadMeta) && len(blocks) == 0:
		// A process died while it made the stream.
		c.repairs = append(c.repairs, func() error { return os.RemoveAll(c.dir()) })
		return nil
	case errors.Is(err, errBadMeta):
		c.damages = append(c.damages, damage{
			c.dir(metaName), err.Error(),
			c.setAside,
		})
		return nil
	case err != nil:
		return err
	}
	if config.Compression != "" && config.Compression != "none" {
		c.unread = true // not ours: no stream of ours is compressed
		return nil
	}
	if err := c.readConsumers(); err != nil {
		return err
	}
	for i, b := range blocks {
		if err := c.block(b, i == len(blocks)-1); err != nil {
			return err
		}
	}
	for _, consumer := range c.consumers {
		switch {
		case consumer.contradicted(c.last):
			c.repairs = append(c.repairs, consumer.reset)
		case consumer.clampFuture(time.Now().Unix()):
			c.repairs = append(c.repairs, consumer.rewrite)
		}
	}
	return nil
}

// short is the damage of a stream that ends before its highWater.
func (c *streamCheck) short(highWater uint64) damage {
	return damage{
		c.dir(),
		fmt.Sprintf("messages were stored up to number %d, those after %d are missing", highWater, c.last),
		func() error {
			if c.torn == nil {
				return nil
			}
			return c.repair(*c.torn) // the server would cut it off
		},
	}
}

// block checks one block.
func (c *streamCheck) block(b block, last bool) error {
	if err := c.reader.load(b); err != nil {
		return err
	}
	bad := c.reader.walk(func(r record) {
		c.last = max(c.last, r.sequence)
		for _, consumer := range c.consumers {
			consumer.see(r)
		}
	})
	if bad == len(c.reader.buf) {
		return nil
	}
	if last && !c.clean && c.reader.next(bad) < 0 {
		c.torn = &b
		return nil // never acknowledged; check compares c.last with what was
	}
	c.damages = append(c.damages, damage{
		b.path,
		fmt.Sprintf("bad record at byte %d of %d", bad, b.size),
		func() error { return c.repair(b) },
	})
	return nil
}

// setAside takes the whole stream away.
func (c *streamCheck) setAside() error {
	to, err := c.store.aside(c.dir())
	if err != nil {
		return err
	}
	return os.Rename(c.dir(), to)
}

// repair puts the good records of a block in its place, and the block aside. It
// can be interrupted, and then done again.
func (c *streamCheck) repair(b block) error {
	if err := c.reader.load(b); err != nil {
		return err
	}
	temp := strings.TrimSuffix(b.path, blockSuffix) + ".repaired"
	if err := c.reader.salvage(temp); err != nil {
		return err
	}
	to, err := c.store.aside(b.path)
	if err == nil {
		err = os.Link(b.path, to)
	}
	if err != nil {
		return err
	}
	return os.Rename(temp, b.path)
}

// admit fails with ErrStoreDamaged if there is damage, or repairs it if losing
// it was accepted. It returns what was repaired.
func (s *store) admit(accept bool) ([]damage, error) {
	damages, err := s.check()
	if err != nil || len(damages) == 0 {
		return nil, err
	}
	if !accept {
		var text strings.Builder
		for i, d := range damages {
			if i == 5 {
				fmt.Fprintf(&text, "\n\tand %d more", len(damages)-i)
				break
			}
			fmt.Fprintf(&text, "\n\t%s", d)
		}
		return nil, fmt.Errorf("%w: %s; restore it, move it away to start empty, or accept the loss to go on with the rest:%s",
			ErrStoreDamaged, s.dir, &text)
	}
	for _, d := range damages {
		if err := d.repair(); err != nil {
			return nil, fmt.Errorf("repair %s: %w", d.path, err)
		}
	}
	if err := s.forget(); err != nil {
		return nil, err
	}
	// Once more, for the states of the consumers, which are judged by a whole
	// stream.
	if left, err := s.check(); err != nil || len(left) > 0 {
		return nil, errors.Join(err, fmt.Errorf("%w: %s cannot be repaired: %v", ErrStoreDamaged, s.dir, left))
	}
	return damages, s.syncTree()
}

// forget removes what describes a store as it was before it was repaired.
func (s *store) forget() error {
	err := errors.Join(s.forgetManifest(), s.forgetHighWaters())
	streams, _ := os.ReadDir(s.path(streamsPath)) // check has read it
	for _, e := range streams {
		err = errors.Join(err, ignoreMissing(os.Remove(s.path(streamsPath, e.Name(), messagesName, indexName))))
	}
	return err
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }
