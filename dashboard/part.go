package dashboard

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// maxGone bounds how many rows that are gone a part remembers. A stream that has not told
// them when they are forgotten tells the whole part anew.
const maxGone = 4096

// part is a Part as it was seen last. It is guarded by Feed.mu.
type part struct {
	Part
	viewers int       // how many streams tell of it
	looked  time.Time // when the last look began

	// What follows is as of the last look. version rises with each change.
	known   bool
	state   State // without its rows
	version uint64
	looks   uint64 // how many there were
	rows    map[string]*row
	order   []*row // the one that changed last is the last
	gone    []row  // in the order of their going
	forgot  uint64 // the version up to which rows that are gone are forgotten
}

// row is a row, or that it is gone, of the version of its change.
type row struct {
	key        string
	news, text []byte
	version    uint64
	look       uint64 // the number of the look that has seen it last
}

// forget has the next look tell all anew.
func (p *part) forget() {
	p.known, p.rows, p.order, p.gone = false, make(map[string]*row), nil, nil
	p.forgot = p.version
}

// take takes a look, and returns whether anything is new.
func (p *part) take(s *State) (changed bool) {
	was := p.version
	p.looks++
	if !p.known || p.state.Complete != s.Complete || p.state.More != s.More || p.state.Node != s.Node {
		p.version++ // the stream tells that, also without a row
	}
	p.known, p.state = true, State{AsOf: s.AsOf, Node: s.Node, Complete: s.Complete, More: s.More}
	var fresh []*row
	for _, r := range s.Rows {
		old := p.rows[r.Key]
		if old != nil && (old.look == p.looks || bytes.Equal(old.news, r.News)) {
			old.look = p.looks
			continue
		}
		if old != nil {
			old.version = 0 // another one is in its place
		}
		p.version++
		n := &row{key: r.Key, news: r.News, text: r.Text(), version: p.version, look: p.looks}
		p.rows[r.Key] = n
		fresh = append(fresh, n)
	}
	p.order = slices.DeleteFunc(p.order, func(r *row) bool {
		if r.version > 0 && r.look != p.looks {
			delete(p.rows, r.key)
			if p.Form == Rows {
				p.version++
				p.gone = append(p.gone, row{key: r.key, version: p.version})
			}
			return true
		}
		return r.version == 0
	})
	p.order = append(p.order, fresh...)
	if len(p.gone) > maxGone {
		p.forgot, p.gone = p.version, nil
		for _, r := range p.order {
			p.version++
			r.version = p.version
		}
	}
	return p.version > was
}

// isNew tells whether there is something that a stream at a version has not told.
func (p *part) isNew(at uint64) bool { return p.known && at < p.version }

// event adds an event with what is new after a version, the oldest changes first, as much
// as fits. It returns the version that is told with it.
func (p *part) event(at uint64, out *bytes.Buffer) uint64 {
	whole := at <= p.forgot || p.Form == Value // at is 0 of a stream that has told nothing
	node, _ := json.Marshal(p.state.Node)
	fmt.Fprintf(out, "event: state\ndata: {\"part\":%q,\"as_of\":%q,\"node\":%s,\"complete\":%t,\"whole\":%t", p.Name, stamp(p.state.AsOf), node, p.state.Complete, whole)
	if p.state.More {
		out.WriteString(`,"more":true`)
	}
	after := func(r row, at uint64) int { return cmp.Compare(r.version, at+1) }
	i, _ := slices.BinarySearchFunc(p.order, at, func(r *row, at uint64) int { return after(*r, at) })
	j, _ := slices.BinarySearchFunc(p.gone, at, after)
	first, firstGone := i, j
	for size := 0; size < maxEvent && (i < len(p.order) || j < len(p.gone)); {
		if j == len(p.gone) || i < len(p.order) && p.order[i].version < p.gone[j].version {
			at = p.order[i].version
			size += len(p.order[i].text)
			i++
		} else {
			at = p.gone[j].version
			size += len(p.gone[j].key)
			j++
		}
	}
	if i == len(p.order) && j == len(p.gone) {
		at = p.version
	}
	if p.Form == Value {
		value := []byte("null")
		if len(p.order) > 0 {
			value = p.order[0].text
		}
		fmt.Fprintf(out, `,"value":%s`, value)
	} else {
		fmt.Fprintf(out, `,%q:[`, p.Form)
		for n, r := range p.order[first:i] {
			if n > 0 {
				out.WriteByte(',')
			}
			out.Write(r.text)
		}
		out.WriteByte(']')
	}
	if gone := p.gone[firstGone:j]; len(gone) > 0 && !whole {
		out.WriteString(`,"gone":[`)
		for n, r := range gone {
			if n > 0 {
				out.WriteByte(',')
			}
			out.WriteString(r.key)
		}
		out.WriteByte(']')
	}
	out.WriteString("}\n\n")
	return at
}
