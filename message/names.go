package message

import "bytes"

// maxNames is how many names a scanner remembers. So few are faster compared
// each with each than hashed.
const maxNames = 64

// names are those of the objects that a scanner is inside of, as they are quoted
// in its text; the innermost object's come last.
type names struct {
	places [maxNames]struct{ from, end int }
	open   int // how many there are
}

// add notes the name src[from:end] of an object whose first name has the index
// first. It returns false if the object has the name already, or there are too
// many.
func (n *names) add(src []byte, from, end, first int) bool {
	name := src[from:end]
	for _, other := range n.places[first:n.open] {
		if bytes.Equal(name, src[other.from:other.end]) {
			return false
		}
	}
	if n.open == maxNames {
		return false
	}
	n.places[n.open].from, n.places[n.open].end = from, end
	n.open++
	return true
}
