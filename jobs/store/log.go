package store

import (
	"cmp"
	"context"
	"fmt"

	"async-data-processor/jobs/frame"
)

// Bounds of the log of an attempt, whatever its runner sends. The head stays, and of what
// follows the newest.
const (
	headBytes, tailBytes = 16 << 20, 1 << 20
	headParts, tailParts = 8192, 1024
	// A part that is smaller grows by the next one, so that a slow log does not have a row a line.
	smallPart = 4 << 10
	// maxPart is the largest that a part can be.
	maxPart = smallPart + frame.MaxLogPart
	// MaxLogRead bounds a read of a log, in bytes.
	MaxLogRead = 1 << 20
	// maxLength bounds the length of a log, with what was thrown away.
	maxLength = 1 << 50
)

// logWhole is the condition that the log of an attempt is complete, but for what was
// thrown away.
const logWhole = "ended > 0 AND log_end IS NOT NULL AND length >= log_end"

// growing is how far the log of an attempt is.
type growing struct {
	length, cut int64
	logEnd      *int64
	headParts   int
	headBytes   int64
	tailAt      int64 // where the tail begins; -1: all is head
	tailParts   int
	tailBytes   int64
}

// AppendLog adds data at an offset of an attempt's log, and that cut bytes behind them were
// thrown away. It returns up to where the log is known now: what is missing begins there. So
// data that comes again, or too early, changes nothing. It takes the log of a stale attempt,
// too, and fails with ErrNotFound if the run is not there. Data has at most frame.MaxLogPart.
func (s *Store) AppendLog(ctx context.Context, f Fence, offset int64, data []byte, cut int64) (next int64, err error) {
	if offset < 0 || cut < 0 || offset > maxLength || cut > maxLength || len(data) > frame.MaxLogPart {
		return 0, fmt.Errorf("%w part of a log: %d bytes at %d, %d thrown away", ErrInvalid, len(data), offset, cut)
	}
	err = s.db.update(ctx, "append to a log", func(q session) error {
		var g growing
		found, err := q.one(`SELECT length, cut, log_end, head_parts, head_bytes, tail_at, tail_parts, tail_bytes
			FROM attempts r WHERE run = $1 AND number = $2{lock}`, []any{f.Run, f.Attempt},
			&g.length, &g.cut, &g.logEnd, &g.headParts, &g.headBytes, &g.tailAt, &g.tailParts, &g.tailBytes)
		if err != nil {
			return err
		}
		if !found {
			return ErrNotFound
		}
		next = g.length
		known := g.length - offset
		if known < 0 || known >= int64(len(data))+cut || g.logEnd != nil && g.length >= *g.logEnd {
			return nil
		}
		added := data[min(known, int64(len(data))):]
		thrown := cut - max(0, known-int64(len(data)))
		if err := q.grow(f, &g, added); err != nil {
			return err
		}
		g.length += int64(len(added)) + thrown
		g.cut += thrown
		next = g.length
		_, err = q.exec(`UPDATE attempts SET length = $3, cut = $4, head_parts = $5, head_bytes = $6, tail_at = $7,
			tail_parts = $8, tail_bytes = $9 WHERE run = $1 AND number = $2`,
			f.Run, f.Attempt, g.length, g.cut, g.headParts, g.headBytes, g.tailAt, g.tailParts, g.tailBytes)
		return err
	})
	return next, err
}

// grow stores data at the end of a log, and throws away what the bounds do not allow.
func (q session) grow(f Fence, g *growing, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if g.tailAt < 0 && (g.headBytes+int64(len(data)) > headBytes || g.headParts >= headParts) {
		g.tailAt = g.length
	}
	inserted, err := q.addPart(f, max(g.tailAt, 0), g.length, data)
	if err != nil {
		return err
	}
	if g.tailAt < 0 {
		g.headParts, g.headBytes = g.headParts+inserted, g.headBytes+int64(len(data))
		return nil
	}
	g.tailParts, g.tailBytes = g.tailParts+inserted, g.tailBytes+int64(len(data))
	for {
		var first, size int64
		found, err := q.one("SELECT at, size FROM logs WHERE run = $1 AND number = $2 AND at >= $3 ORDER BY at LIMIT 1",
			[]any{f.Run, f.Attempt, g.tailAt}, &first, &size)
		if err != nil || !found || g.tailBytes-size < tailBytes && g.tailParts <= tailParts {
			return err
		}
		if _, err := q.exec("DELETE FROM logs WHERE run = $1 AND number = $2 AND at = $3", f.Run, f.Attempt, first); err != nil {
			return err
		}
		g.tailAt, g.tailParts, g.tailBytes, g.cut = first+size, g.tailParts-1, g.tailBytes-size, g.cut+size
	}
}

// addPart adds data to the last part if that is a small one that ends there and begins at
// the floor or later. Else it inserts a part, and returns 1.
func (q session) addPart(f Fence, floor, end int64, data []byte) (inserted int, err error) {
	var start int64
	var last []byte
	found, err := q.one("SELECT at, data FROM logs WHERE run = $1 AND number = $2 AND at >= $3 AND size < $4 ORDER BY at DESC LIMIT 1",
		[]any{f.Run, f.Attempt, max(floor, end-smallPart), smallPart}, &start, &last)
	if err != nil {
		return 0, err
	}
	if found && start+int64(len(last)) == end {
		whole := append(last, data...)
		_, err = q.exec("UPDATE logs SET data = $4, size = $5 WHERE run = $1 AND number = $2 AND at = $3", f.Run, f.Attempt, start, whole, len(whole))
		return 0, err
	}
	_, err = q.exec("INSERT INTO logs (run, number, at, size, data) VALUES ($1, $2, $3, $4, $5)", f.Run, f.Attempt, end, len(data), data)
	return 1, err
}

// Log reads a part of the log of an attempt, 0 for the last one: at most limit bytes, 1 to
// MaxLogRead, from an offset, or from where the log goes on behind what was thrown away.
func (s *Store) Log(ctx context.Context, id int64, attempt int, offset int64, limit int) (part LogPart, err error) {
	if attempt < 0 || offset < 0 || offset > maxLength || limit < 1 || limit > MaxLogRead {
		return LogPart{}, fmt.Errorf("%w read of a log: %d bytes at %d of attempt %d", ErrInvalid, limit, offset, attempt)
	}
	err = s.db.view(ctx, "read a log", func(q session) error {
		part = LogPart{Offset: offset}
		var last int
		var state State
		if found, err := q.one("SELECT attempt, state FROM runs WHERE id = $1", []any{id}, &last, &state); err != nil || !found {
			return cmp.Or(err, ErrNotFound)
		}
		if attempt == 0 && last == 0 {
			part.Ended, part.Whole = state.Ended(), state.Ended()
			return nil
		}
		number := attempt
		if number == 0 {
			number = last
		}
		found, err := q.one("SELECT length, ended > 0, "+logWhole+" FROM attempts WHERE run = $1 AND number = $2", []any{id, number}, &part.Length, &part.Ended, &part.Whole)
		if err != nil || !found {
			return cmp.Or(err, ErrNotFound)
		}
		return q.readLog(Fence{id, number}, &part, limit)
	})
	return part, err
}

// readLog fills a part from its Offset on.
func (q session) readLog(f Fence, part *LogPart, limit int) error {
	asked := part.Offset
	var first int64
	found, err := q.one(`SELECT at FROM logs WHERE run = $1 AND number = $2 AND at > $3 AND at + size > $4 ORDER BY at LIMIT 1`,
		[]any{f.Run, f.Attempt, asked - maxPart, asked}, &first)
	if err != nil {
		return err
	}
	if !found {
		part.Offset = max(asked, part.Length)
		part.Cut = part.Offset - asked
		return nil
	}
	part.Offset = max(asked, first)
	part.Cut = part.Offset - asked
	next := part.Offset
	err = q.each("SELECT at, data FROM logs WHERE run = $1 AND number = $2 AND at >= $3 AND at < $4 ORDER BY at",
		[]any{f.Run, f.Attempt, first, part.Offset + int64(limit)}, func(scan func(...any) error) error {
			var start int64
			var data []byte
			if err := scan(&start, &data); err != nil {
				return err
			}
			if start > next {
				return nil // behind a cut: it is for the next read
			}
			data = data[min(next-start, int64(len(data))):] // another hand may have made it shorter
			part.Data = append(part.Data, data...)
			next += int64(len(data))
			return nil
		})
	part.Data = part.Data[:min(len(part.Data), limit)]
	part.Length = max(part.Length, part.Offset+int64(len(part.Data)))
	return err
}
