package lossyfs

import (
	"math/rand/v2"
	"slices"
)

// sector is what a disk writes wholly or not at all.
const sector = 512

// content is what a file holds. A sync costs what was written since the last
// one, not what the file has in all.
type content struct {
	data  []byte   // as users see it
	disk  []byte   // what is durable
	dirty []change // what data has that disk lacks, oldest first
	// shared: data is disk itself, until it is written to; a disk has much that
	// is never touched again.
	shared bool
}

// change is a write of the bytes from one offset to another, or a truncation
// to the size to.
type change struct {
	from, to int64
	truncate bool
}

// part gives users data of their own, which they may change.
func (c *content) part() {
	if c.shared {
		c.data, c.shared = slices.Clone(c.data), false
	}
}

func (c *content) write(p []byte, at int64) {
	c.part()
	end := at + int64(len(p))
	if end > int64(len(c.data)) {
		c.data = resized(c.data, end)
	}
	copy(c.data[at:], p)
	if n := len(c.dirty); n > 0 && !c.dirty[n-1].truncate && c.dirty[n-1].to == at {
		c.dirty[n-1].to = end
		return
	}
	c.dirty = append(c.dirty, change{from: at, to: end})
}

func (c *content) truncate(size int64) {
	if size == int64(len(c.data)) {
		return
	}
	c.part()
	c.data = resized(c.data, size)
	c.dirty = append(c.dirty, change{to: size, truncate: true})
}

func (c *content) sync() {
	for _, ch := range c.dirty {
		c.keep(ch)
	}
	c.disk = resized(c.disk, int64(len(c.data)))
	c.dirty = nil
}

// keep makes a change durable. What was written over or cut off later is not
// known any more; then the later is taken.
func (c *content) keep(ch change) {
	if ch.truncate {
		c.disk = resized(c.disk, ch.to)
		return
	}
	ch.to = min(ch.to, int64(len(c.data)))
	if ch.from >= ch.to {
		return
	}
	if ch.to > int64(len(c.disk)) {
		c.disk = resized(c.disk, ch.to)
	}
	copy(c.disk[ch.from:], c.data[ch.from:ch.to])
}

// forget takes what is not durable for clean.
func (c *content) forget() { c.dirty = nil }

// survivor is what is left after a loss of power; see Disk.PowerLoss.
func (c *content) survivor(chance *rand.Rand) content {
	left := content{data: c.data, disk: slices.Clone(c.disk)}
	if chance != nil {
		for _, ch := range c.dirty {
			switch chance.IntN(3) {
			case 0:
				left.keep(ch)
			case 1:
				if !ch.truncate {
					ch.to = (ch.from + chance.Int64N(ch.to-ch.from+1)) &^ (sector - 1)
				}
				left.keep(ch)
			}
		}
	}
	return content{data: left.disk, disk: left.disk, shared: true}
}

// resized returns b with another length; what is new is zero.
func resized(b []byte, size int64) []byte {
	old := len(b)
	if int(size) <= old {
		return b[:size]
	}
	if int(size) > cap(b) {
		grown := make([]byte, size, max(size, int64(2*cap(b))))
		copy(grown, b)
		return grown
	}
	b = b[:size]
	clear(b[old:])
	return b
}
