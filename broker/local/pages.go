package local

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"sync/atomic"
)

// This file reads the format of bbolt's files, version 2, without bbolt. bbolt maps
// the file and trusts its pages: a damaged page makes it panic, also in goroutines of
// its own, and a short file ends the process with SIGBUS. The format has the byte
// order of the machine; this reader knows the little-endian one only.
//
//	page     id u64, flags u16, count u16, overflow u32 (how many pages it has beyond
//	         its first); then count elements of 16 bytes; then their keys and values
//	element  branch: pos u32, key size u32, child u64
//	         leaf:   flags u32, pos u32, key size u32, value size u32
//	bucket   the value of an element with bucketFlag: root page u64, sequence u64;
//	         with a root of 0 its only page follows
const (
	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16
	metaSize     = 64

	branchFlag = 1
	leafFlag   = 2
	metaFlag   = 4
	bucketFlag = 1 // of an element

	magic         = 0xED0CDAED
	formatVersion = 2

	maxKey   = 32768 // bbolt's
	maxDepth = 32    // a tree of two children a page would have 2^32 pages
)

var order = binary.LittleEndian

// flaw is something wrong in the file, in words. Other errors are those of reading.
type flaw string

func (f flaw) Error() string { return string(f) }

func isFlaw(err error) bool {
	_, ok := errors.AsType[flaw](err)
	return ok
}

func flawf(format string, args ...any) error { return flaw(fmt.Sprintf(format, args...)) }

// readFull reads all of b. That the file ends before is a flaw.
func readFull(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return flawf("the file ends at byte %d", offset+int64(n))
	}
	return err
}

// meta is a meta page: it says where a state of the file begins.
type meta struct {
	pageSize int
	root     bucket
	pages    uint64 // of the file; none in use has a higher number
	txid     uint64
}

// readMeta reads the meta page with the given number.
func readMeta(r io.ReaderAt, number uint64, offset int64) (*meta, error) {
	var b [pageHeader + metaSize]byte
	if err := readFull(r, b[:], offset); err != nil {
		return nil, err
	}
	m := b[pageHeader:]
	h := fnv.New64a()
	h.Write(m[:metaSize-8])
	size := order.Uint32(m[8:])
	found := &meta{
		pageSize: int(size),
		root:     bucket{root: order.Uint64(m[16:]), sequence: order.Uint64(m[24:])},
		pages:    order.Uint64(m[40:]),
		txid:     order.Uint64(m[48:]),
	}
	switch {
	case order.Uint32(m) != magic || order.Uint16(b[8:]) != metaFlag || order.Uint64(b[:]) != number:
		return nil, flaw("it is not a meta page")
	case order.Uint32(m[4:]) != formatVersion:
		return nil, flawf("it has the format %d", order.Uint32(m[4:]))
	case h.Sum64() != order.Uint64(m[metaSize-8:]):
		return nil, flaw("its checksum does not match")
	case size < 1<<10 || size > 1<<24 || size&(size-1) != 0 || found.txid%2 != number ||
		found.root.root < 2 || found.root.root >= found.pages || found.pages >= 1<<62/uint64(size):
		return nil, flaw("its numbers cannot be")
	}
	return found, nil
}

// readMetas returns the valid meta pages, the newest first. The error tells what is
// wrong with another one.
func readMetas(r io.ReaderAt) (valid []*meta, err error) {
	take := func(m *meta, e error) {
		if e == nil {
			valid = append(valid, m)
		} else if !isFlaw(e) {
			err = e
		}
	}
	take(readMeta(r, 0, 0))
	low, high := int64(1<<10), int64(1<<24) // where the second may be
	if len(valid) > 0 {
		low, high = int64(valid[0].pageSize), int64(valid[0].pageSize)
	}
	for first := len(valid); low <= high && len(valid) == first; low *= 2 {
		take(readMeta(r, 1, low))
	}
	switch {
	case err != nil:
	case len(valid) == 0:
		return nil, flaw("both of its meta pages are damaged")
	case len(valid) == 1:
		return valid, flaw("one of its two meta pages is damaged, so the last write may be missing")
	}
	slices.SortFunc(valid, func(a, b *meta) int { return cmp.Compare(b.txid, a.txid) })
	if err == nil && (valid[0].txid != valid[1].txid+1 || valid[0].pageSize != valid[1].pageSize) {
		err = flaw("its two meta pages do not belong together, so the last write may be missing")
	}
	return valid, err
}

// bucket is the header of one, and its page if that is not one of the file.
type bucket struct {
	root, sequence uint64
	inline         []byte
}

func parseBucket(value []byte) (bucket, error) {
	if len(value) < bucketHeader {
		return bucket{}, flaw("the header of a bucket is cut off")
	}
	b := bucket{root: order.Uint64(value), sequence: order.Uint64(value[8:])}
	if b.root == 0 {
		b.inline = append([]byte{}, value[bucketHeader:]...)
	} else if len(value) != bucketHeader {
		return bucket{}, flaw("the header of a bucket is too long")
	}
	return b, nil
}

// there tells whether b was read.
func (b bucket) there() bool { return b.root != 0 || b.inline != nil }

// page is a page of a tree, without the pages of its overflow.
type page struct {
	tree   *tree
	offset int64
	head   []byte // its first page
	leaf   bool
	starts []int64  // of its keys
	keys   [][]byte // in head, or copies
	buffer []byte   // for a value
}

func (p *page) element(i int) []byte { return p.head[pageHeader+i*elementSize:][:elementSize] }

// parse reads the elements. It returns where the contents end.
func (p *page) parse() (end int64, err error) {
	p.starts, p.keys = p.starts[:0], p.keys[:0]
	if len(p.head) < pageHeader {
		return 0, flaw("it is cut off")
	}
	flags, count := order.Uint16(p.head[8:]), int(order.Uint16(p.head[10:]))
	if flags != leafFlag && flags != branchFlag {
		return 0, flaw("it is neither a branch nor a leaf of the tree")
	}
	p.leaf = flags == leafFlag
	end = int64(pageHeader + count*elementSize)
	if end > int64(len(p.head)) {
		return 0, flawf("it cannot hold %d entries", count)
	}
	for i := range count {
		e := p.element(i)
		pos, key, value := order.Uint32(e), order.Uint32(e[4:]), uint32(0)
		if p.leaf {
			if order.Uint32(e) > bucketFlag {
				return 0, flawf("its entry %d is of an unknown kind", i)
			}
			pos, key, value = key, order.Uint32(e[8:]), order.Uint32(e[12:])
		}
		if int64(pageHeader+i*elementSize)+int64(pos) != end || key == 0 || key > maxKey {
			return 0, flawf("its entry %d is not where it belongs", i)
		}
		p.starts = append(p.starts, end)
		end += int64(key) + int64(value)
	}
	return end, nil
}

// readKeys fills p.keys.
func (p *page) readKeys() error {
	for i, start := range p.starts {
		size := order.Uint32(p.element(i)[4:])
		if p.leaf {
			size = order.Uint32(p.element(i)[8:])
		}
		key, err := p.read(start, int64(size), nil)
		if err != nil {
			return err
		}
		p.keys = append(p.keys, key)
	}
	return nil
}

// read returns a part of the page: of its head, or read into the buffer.
func (p *page) read(start, size int64, buffer []byte) ([]byte, error) {
	if start+size <= int64(len(p.head)) {
		return p.head[start : start+size], nil
	}
	if int64(cap(buffer)) < size {
		buffer = make([]byte, size)
	}
	return buffer[:size], readFull(p.tree.file, buffer[:size], p.offset+start)
}

// value returns a value of a leaf, valid until the next call.
func (p *page) value(i int) ([]byte, error) {
	size := int64(order.Uint32(p.element(i)[12:]))
	b, err := p.read(p.starts[i]+int64(len(p.keys[i])), size, p.buffer)
	if err == nil && cap(b) > cap(p.buffer) && size > int64(len(p.head)) {
		p.buffer = b
	}
	return b, err
}

func (p *page) isBucket(i int) bool { return order.Uint32(p.element(i)) == bucketFlag }
func (p *page) child(i int) uint64  { return order.Uint64(p.element(i)[8:]) }

// tree reads the trees of one state of the file. It visits no page twice.
type tree struct {
	ctx   context.Context
	file  io.ReaderAt
	meta  *meta
	seen  []atomic.Uint64 // a bit for each page
	pages sync.Pool       // of *page
	slots chan struct{}   // of the goroutines beside that of the caller
	group sync.WaitGroup
}

// newTree makes a tree that is read by so many goroutines. The file has the given size.
func newTree(ctx context.Context, file io.ReaderAt, size int64, m *meta, goroutines int) *tree {
	pages := min(m.pages, uint64(size)/uint64(m.pageSize)+1)
	t := &tree{ctx: ctx, file: file, meta: m, seen: make([]atomic.Uint64, pages/64+1), slots: make(chan struct{}, goroutines-1)}
	t.pages.New = func() any { return &page{tree: t} }
	return t
}

// visitor takes what a walk finds.
type visitor struct {
	// leaf gets a leaf, one after the other. The keys ascend, unless wrong was told of it.
	leaf func(p *page)
	// wrong gets a flaw, or an error of reading. The walk goes on with the next page.
	wrong func(err error)
}

// walk visits a bucket.
func (t *tree) walk(b bucket, v visitor) {
	if b.root != 0 {
		t.walkPage(b.root, nil, nil, 0, v)
		return
	}
	p := &page{tree: t, head: b.inline}
	switch end, err := p.parse(); {
	case err != nil:
		v.wrong(err)
	case !p.leaf || end != int64(len(b.inline)) || order.Uint64(b.inline) != 0 || order.Uint32(b.inline[12:]) != 0:
		v.wrong(flaw("a small bucket is not as it was written"))
	default:
		if err := errors.Join(p.readKeys(), p.order(nil, nil)); err != nil {
			v.wrong(err)
		}
		t.visit(p, nil, 0, v)
	}
}

// spawn calls f, in a goroutine if there is one to spare. The caller has to wait for the
// group.
func (t *tree) spawn(f func()) {
	select {
	case t.slots <- struct{}{}:
		t.group.Go(func() {
			defer func() { <-t.slots }()
			f()
		})
	default:
		f()
	}
}

// walkPage visits what is below a page. The keys are from lo on and below hi; nil is
// no bound.
func (t *tree) walkPage(id uint64, lo, hi []byte, depth int, v visitor) {
	p := t.pages.Get().(*page)
	err := t.ctx.Err()
	if err == nil {
		err = t.load(p, id)
	}
	if err == nil && depth > maxDepth {
		err = flaw("the tree is too deep")
	}
	if err == nil && len(p.starts) == 0 && (depth > 0 || !p.leaf) {
		err = flaw("it is empty")
	}
	sound := err == nil
	if sound {
		err = p.order(lo, hi)
	}
	if err != nil { // before what is wrong with its contents, which may follow from it
		v.wrong(fmt.Errorf("page %d: %w", id, err))
	}
	if sound {
		t.visit(p, hi, depth, v)
	}
	t.pages.Put(p)
}

// load reads a page.
func (t *tree) load(p *page, id uint64) error {
	if id < 2 || id >= t.meta.pages {
		return flawf("it is not one of the file's %d pages", t.meta.pages)
	}
	size := int64(t.meta.pageSize)
	if p.head == nil {
		p.head = make([]byte, size)
	}
	p.offset = int64(id) * size
	if err := readFull(t.file, p.head, p.offset); err != nil {
		return err
	}
	if n := order.Uint64(p.head); n != id {
		return flawf("it has the number %d", n)
	}
	end, err := p.parse()
	if err != nil {
		return err
	}
	more := uint64(order.Uint32(p.head[12:]))
	if more != uint64(max(end-1, 0)/size) || id+more >= t.meta.pages {
		return flaw("its length is not that of its contents")
	}
	for n := id; n <= id+more; n++ {
		if n/64 >= uint64(len(t.seen)) {
			return flaw("the file ends before it does")
		}
		if bit := uint64(1) << (n % 64); t.seen[n/64].Or(bit)&bit != 0 {
			return flaw("it has two places in the tree")
		}
	}
	return p.readKeys()
}

// order returns what is wrong with the keys, which are from lo on and below hi.
func (p *page) order(lo, hi []byte) error {
	for i, key := range p.keys {
		if i > 0 && bytes.Compare(p.keys[i-1], key) >= 0 || i == 0 && bytes.Compare(lo, key) > 0 ||
			hi != nil && bytes.Compare(key, hi) >= 0 {
			return flaw("its keys are out of order")
		}
	}
	return nil
}

// visit goes on with the contents of a page.
func (t *tree) visit(p *page, hi []byte, depth int, v visitor) {
	if p.leaf {
		v.leaf(p)
		return
	}
	for i, key := range p.keys {
		child, next := p.child(i), hi
		if i+1 < len(p.keys) {
			next = p.keys[i+1]
		}
		t.walkPage(child, key, next, depth+1, v)
	}
}
