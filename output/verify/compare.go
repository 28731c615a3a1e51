package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"async-data-processor/message"
)

// maxRanges is how many ranges of a submission's missing indexes are listed.
const maxRanges = 8

// compare finds the duplicates and the gaps among all messages.
func (l *ledger) compare(ctx context.Context, t *tally) error {
	c := comparison{l: l, t: t}
	seen := 0
	for r, err := range l.sorted() {
		if err != nil {
			return err
		}
		if seen++; seen%(1<<16) == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.next(r); err != nil {
			return err
		}
	}
	return c.end()
}

// comparison looks at sorted records, each beside the one before it.
type comparison struct {
	l *ledger
	t *tally

	last    record
	started bool
	// same are the first records with the id of last, copies their number.
	same   []record
	copies int64
	// missing messages of the submission of last, and where.
	missing int64
	ranges  []string
}

func (c *comparison) next(r record) error {
	sibling := c.started && r.sibling(c.last)
	if sibling && r.index() == c.last.index() {
		c.t.of(r.shard()).Duplicates++
		c.copies++
		if len(c.same) < MaxListed {
			c.same = append(c.same, r)
		}
		return nil
	}
	if err := c.endID(); err != nil {
		return err
	}
	if !sibling {
		c.endSubmission()
	}
	if index := r.index(); index != foreignIndex {
		from := 0
		if sibling {
			from = c.last.index() + 1
		} else {
			c.t.submissions++
		}
		c.gap(from, index)
	}
	c.last, c.started = r, true
	c.same, c.copies = append(c.same[:0], r), 1
	return nil
}

// end comes after the last record.
func (c *comparison) end() error {
	err := c.endID()
	c.endSubmission()
	return err
}

// endID lists the id of last if it was there more than once.
func (c *comparison) endID() error {
	if c.copies < 2 || len(c.t.listed[Duplicate]) == MaxListed {
		return nil
	}
	f := Finding{Class: Duplicate, Detail: fmt.Sprintf("in %d lines", c.copies)}
	for _, r := range c.same {
		id, path, err := c.l.where(r)
		if err != nil {
			return err
		}
		f.ID, f.Files = id, append(f.Files, path)
	}
	slices.Sort(f.Files)
	c.t.list(f)
	return nil
}

// gap notes that the indexes from up to, but not including, to are missing.
func (c *comparison) gap(from, to int) {
	if from == to {
		return
	}
	c.missing += int64(to - from)
	switch {
	case len(c.ranges) == maxRanges:
		c.ranges = append(c.ranges, "…")
	case len(c.ranges) > maxRanges:
	case to-from == 1:
		c.ranges = append(c.ranges, fmt.Sprint(from))
	default:
		c.ranges = append(c.ranges, fmt.Sprintf("%d-%d", from, to-1))
	}
}

// endSubmission lists the submission of last if it has gaps. Its id tells how many
// messages there are, so those behind the highest index are missed, too. An id that
// tells no count, or a lower one than its messages do, is of a program before that.
func (c *comparison) endSubmission() {
	if !c.started || c.last.index() == foreignIndex {
		return
	}
	id := c.last.submission().String()
	of := fmt.Sprintf(", the highest is %d", c.last.index())
	if count, ok := message.CountOf(id); ok && count > c.last.index() {
		c.gap(c.last.index()+1, count)
		of = fmt.Sprintf(" of %d", count)
	}
	if c.missing == 0 {
		return
	}
	c.t.missing += c.missing
	f := Finding{Class: Gap, ID: id}
	f.Detail = strings.Join(c.ranges, ", ") + " missing" + of
	c.t.found(none, f)
	c.missing, c.ranges = 0, c.ranges[:0]
}
