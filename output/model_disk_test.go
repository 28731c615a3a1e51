package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"async-data-processor/message"
)

// modelDisk is a folder on a disk that may lose its power. What it holds is
// guarded by the world's lock.
//
// Names become durable in the order in which they changed, as a journal has
// them, contents in no order at all. A loss of power keeps any part of what was
// not synced.
type modelDisk struct {
	live, durable map[string]*modelFile
	// pending leads from durable to live.
	pending []change
	// returned is the files that were said to survive.
	returned []string
	made     uint64 // files
	// breaches is which promises were broken about what can be seen.
	breaches []string
}

// change is a name that was given to a file, or taken away if there is none.
type change struct {
	name string
	file *modelFile
}

// modelFile is a file.
type modelFile struct {
	number  uint64 // no other file has it
	written []byte
	synced  []byte // what is durable
	// poisoned tells that a fsync failed: the next one reports success for
	// pages that never reached the disk.
	poisoned bool
}

func newModelDisk() *modelDisk {
	return &modelDisk{live: map[string]*modelFile{}, durable: map[string]*modelFile{}}
}

// ids is whose messages are in the file.
func (n *modelFile) ids() (ids []string) {
	for line := range bytes.Lines(n.written) {
		ids = append(ids, message.Message{Line: line}.ID())
	}
	return ids
}

func (n *modelFile) sync() {
	if n.poisoned { // no page, but the size
		n.synced = n.synced[:min(len(n.synced), len(n.written))]
		return
	}
	n.synced = bytes.Clone(n.written)
}

// forget leaves what the disk has: not what a fsync failed to write.
func (n *modelFile) forget() (forgotten bool) {
	if n.poisoned {
		n.written, n.poisoned = bytes.Clone(n.synced), false
		return true
	}
	return false
}

func (n *modelFile) durable() bool { return bytes.Equal(n.synced, n.written) }

// load takes over what is in a real folder, as durable.
func (d *modelDisk) load(real folder) (err error) {
	listing := real.names(func(name string) {
		if name == lockName {
			return
		}
		in, opening := real.read(name)
		if opening != nil {
			err = opening
			return
		}
		defer in.Close()
		n := new(modelFile)
		if n.written, err = io.ReadAll(in); err == nil {
			n.synced = bytes.Clone(n.written)
			d.live[name], d.durable[name] = n, n
		}
	})
	return errors.Join(listing, err)
}

func (d *modelDisk) find(name string) (*modelFile, error) {
	if n := d.live[name]; n != nil {
		return n, nil
	}
	return nil, fs.ErrNotExist
}

func (d *modelDisk) create(name string) (*modelFile, error) {
	if d.live[name] != nil {
		return nil, fs.ErrExist
	}
	d.made++
	n := &modelFile{number: d.made}
	d.set(name, n)
	return n, nil
}

func (d *modelDisk) link(temp, final string) error {
	if d.live[final] != nil {
		return fs.ErrExist
	}
	n, err := d.find(temp)
	if err == nil {
		d.set(final, n)
	}
	return err
}

func (d *modelDisk) replace(temp, final string) error {
	n, err := d.find(temp)
	if err == nil {
		d.set(final, n)
		d.set(temp, nil)
	}
	return err
}

func (d *modelDisk) linked(temp, final string) (bool, error) {
	there := d.live[final]
	if there == nil {
		return false, nil
	}
	n, err := d.find(temp)
	return n == there, err
}

func (d *modelDisk) remove(name string) {
	if d.live[name] != nil {
		d.set(name, nil)
	}
}

func (d *modelDisk) set(name string, n *modelFile) {
	d.pending = append(d.pending, change{name, n})
	apply(d.live, d.pending[len(d.pending)-1:])
	if n != nil && strings.HasSuffix(name, visibleSuffix) {
		d.check("a link")
	}
}

// syncNames is the fsync of the folder.
func (d *modelDisk) syncNames() {
	d.durable, d.pending = maps.Clone(d.live), nil
}

// losePower keeps as much of what was not synced as the bits say.
func (d *modelDisk) losePower(bits uint64) {
	kept := bits % uint64(len(d.pending)+1)
	apply(d.durable, d.pending[:kept])
	d.live, d.pending = maps.Clone(d.durable), nil
	for i, name := range d.names() {
		n := d.live[name]
		half := (len(n.synced) + len(n.written)) / 2 // of what was appended
		switch kept := bits >> (8 + i%53) & 7; {
		case kept < 4 || !bytes.HasPrefix(n.written, n.synced):
			n.written = bytes.Clone(n.synced)
		case kept == 4:
			n.written = n.written[:half]
		case kept == 5: // the other half
			clear(n.written[len(n.synced):half])
		}
		n.synced, n.poisoned = bytes.Clone(n.written), false
	}
	d.check("a loss of power")
	for _, name := range d.returned {
		if !d.has(d.live, name) {
			d.breach("a loss of power took %s away, although Write had returned it", name)
		}
	}
}

func apply(names map[string]*modelFile, changes []change) {
	for _, c := range changes {
		if c.file == nil {
			delete(names, c.name)
		} else {
			names[c.name] = c.file
		}
	}
}

func (d *modelDisk) names() []string { return slices.Sorted(maps.Keys(d.live)) }

// check notes which promises are broken about the files that can be seen.
func (d *modelDisk) check(after string) {
	seen := map[string]string{}
	for _, name := range d.names() {
		if !strings.HasSuffix(name, visibleSuffix) {
			continue
		}
		n := d.live[name]
		if !n.durable() || !bytes.HasSuffix(n.written, []byte("\n")) {
			d.breach("after %s %s is visible with %d bytes, %d of them durable", after, name, len(n.written), len(n.synced))
		}
		for _, id := range n.ids() {
			if other := seen[id]; other != "" && id != "" {
				d.breach("after %s %s is in %s and in %s", after, id, other, name)
			}
			seen[id] = name
		}
	}
}

func (d *modelDisk) breach(format string, args ...any) {
	d.breaches = append(d.breaches, fmt.Sprintf(format, args...))
}

// kept is the ids in visible and rolling files that a loss of power would leave,
// whatever it keeps of the rest.
func (d *modelDisk) kept() map[string]bool {
	ids := map[string]bool{}
	for name, n := range d.durable {
		if d.live[name] != n {
			continue
		}
		kind := ParseName(name)
		if kind == Rolling {
			n = &modelFile{written: n.synced[:bytes.LastIndexByte(n.synced, '\n')+1]}
		}
		if kind == Rolling || kind == Visible && n.durable() {
			for _, id := range n.ids() {
				ids[id] = true
			}
		}
	}
	return ids
}

// has tells whether there is a file of a visible name, or that will have it.
func (d *modelDisk) has(names map[string]*modelFile, name string) bool {
	return names[name] != nil || names[rollingName(strings.TrimSuffix(name, visibleSuffix))] != nil
}
