package live

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of JSON pointers: bytes, and names in one, as deep as an entry may nest.
const (
	maxPointer = 1024
	maxTokens  = 32
)

// mask stands for what is redacted.
const mask = `"***"`

// pointers are places in a JSON text (RFC 6901), as a tree of their names. It is
// read-only after parsePointers.
type pointers struct {
	ends  []int // which pointers end here
	below map[string]*pointers
}

// NewMask returns what masks the values at the JSON pointers (RFC 6901) in an entry. It
// returns the same text if there are none. Of a text that it cannot read nothing is left.
// An error says that one of the texts is no JSON pointer, or points to the whole text.
func NewMask(texts []string) (mask func(entry []byte) []byte, err error) {
	p, err := parsePointers(texts)
	if err != nil {
		return nil, err
	}
	return p.masked, nil
}

func parsePointers(texts []string) (*pointers, error) {
	root := new(pointers)
	for i, text := range texts {
		names := strings.Split(text, "/")
		if len(text) > maxPointer || len(names)-1 > maxTokens {
			return nil, fmt.Errorf("a JSON pointer of %d bytes and %d names, want at most %d and %d", len(text), len(names)-1, maxPointer, maxTokens)
		}
		if names[0] != "" || len(names) == 1 {
			return nil, fmt.Errorf("%.40q is no JSON pointer, want one such as /user/id", text)
		}
		at := root
		for _, name := range names[1:] {
			name, err := unescapeName(name)
			if err != nil {
				return nil, fmt.Errorf("%.40q is no JSON pointer: %w", text, err)
			}
			if at.below == nil {
				at.below = make(map[string]*pointers)
			}
			if at.below[name] == nil {
				at.below[name] = new(pointers)
			}
			at = at.below[name]
		}
		at.ends = append(at.ends, i)
	}
	return root, nil
}

var errEscape = errors.New("after ~ there has to be 0 or 1")

// unescapeName is section 4 of RFC 6901.
func unescapeName(name string) (string, error) {
	for i := range len(name) {
		if name[i] == '~' && (i+1 == len(name) || name[i+1] != '0' && name[i+1] != '1') {
			return "", errEscape
		}
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~"), nil
}

// find calls found with each place that is there, and where in the text its value is. A
// place within another one comes before it. find fails if the text is no JSON object or
// array. Its caller must not use text after an error.
func (p *pointers) find(text []byte, found func(place, from, to int)) error {
	w := walkers.Get().(*walker)
	defer walkers.Put(w)
	w.src.Reset(text)
	w.dec.Reset(&w.src, jsontext.AllowDuplicateNames(true))
	w.found = found
	err := w.inside(p)
	w.src.Reset(nil)
	w.found = nil
	return err
}

// walker reads one text. Its memory is used again.
type walker struct {
	dec   jsontext.Decoder
	src   bytes.Reader
	found func(place, from, to int)
}

var walkers = sync.Pool{New: func() any { return new(walker) }}

// value reads the next value, which is at p; nil for no place.
func (w *walker) value(p *pointers) error {
	if p == nil {
		return w.dec.SkipValue()
	}
	if kind := w.dec.PeekKind(); p.below != nil && (kind == '{' || kind == '[') {
		return w.inside(p)
	}
	value, err := w.dec.ReadValue()
	if err == nil {
		to := int(w.dec.InputOffset())
		w.tell(p, to-len(value), to)
	}
	return err
}

// inside reads an object or an array that is at p.
func (w *walker) inside(p *pointers) error {
	begin, err := w.dec.ReadToken()
	if err != nil {
		return err
	}
	from := int(w.dec.InputOffset()) - 1
	switch begin.Kind() {
	case '{':
		for w.dec.PeekKind() != '}' {
			name, err := w.dec.ReadToken()
			if err != nil {
				return err
			}
			if err := w.value(p.below[name.String()]); err != nil {
				return err
			}
		}
	case '[':
		for i := 0; w.dec.PeekKind() != ']'; i++ {
			if err := w.value(p.below[strconv.Itoa(i)]); err != nil {
				return err
			}
		}
	default:
		return errors.New("no object and no array")
	}
	if _, err := w.dec.ReadToken(); err != nil {
		return err
	}
	w.tell(p, from, int(w.dec.InputOffset()))
	return nil
}

func (w *walker) tell(p *pointers, from, to int) {
	for _, place := range p.ends {
		w.found(place, from, to)
	}
}

// masked returns the line with the values at the places masked; the line itself if it
// has none of them. Of a line that it cannot read nothing is left but the mask.
func (p *pointers) masked(line []byte) []byte {
	var spans [][2]int // none within another, ascending
	err := p.find(line, func(_, from, to int) {
		for len(spans) > 0 && spans[len(spans)-1][0] >= from {
			spans = spans[:len(spans)-1]
		}
		spans = append(spans, [2]int{from, to})
	})
	if err != nil {
		return []byte(mask)
	}
	if len(spans) == 0 {
		return line
	}
	out, next := make([]byte, 0, len(line)+len(spans)*len(mask)), 0
	for _, s := range spans {
		out = append(append(out, line[next:s[0]]...), mask...)
		next = s[1]
	}
	return append(out, line[next:]...)
}

// scalar is the text that a Where is compared with; false of an object or array.
func scalar(value []byte) (text []byte, ok bool) {
	switch value[0] {
	case '{', '[':
		return nil, false
	case '"':
		text, err := jsontext.AppendUnquote(nil, value)
		return text, err == nil
	}
	return value, true
}
