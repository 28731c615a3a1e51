package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
)

// append appends to the log of an attempt, and fails unless it is then known up to want.
func (s suite) append(f Fence, offset int64, data string, cut, want int64) {
	s.t.Helper()
	next, err := s.AppendLog(s.t.Context(), f, offset, []byte(data), cut)
	s.must(err)
	if next != want {
		s.t.Errorf("%.20q at %d, %d cut: known up to %d, want %d", data, offset, cut, next, want)
	}
}

// read returns what Log says, as text.
func (s suite) read(id int64, attempt int, offset int64, limit int) string {
	s.t.Helper()
	p, err := s.Log(s.t.Context(), id, attempt, offset, limit)
	s.must(err)
	return fmt.Sprintf("%d %q cut %d of %d %v %v", p.Offset, p.Data, p.Cut, p.Length, p.Ended, p.Whole)
}

func TestLog(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		queued := s.queue("a", 2)
		if got := s.read(queued.ID, 0, 0, 10); got != `0 "" cut 0 of 0 false false` {
			t.Errorf("before the first attempt: %s", got)
		}
		run := s.claim("a")
		_, _, err := s.Start(ctx, fenceOf(run))
		s.must(err)
		f := fenceOf(run)
		s.append(f, 0, "hello", 0, 5)
		s.append(f, 0, "hello", 0, 5)           // again
		s.append(f, 9, "early", 0, 5)           // a gap: from 5 on it is missing
		s.append(f, 3, "lo, world", 0, 12)      // some of it is known
		s.append(f, 12, "\x00\xff", 100, 114)   // any bytes, then a cut
		s.append(f, 12, "\x00\xff", 120, 134)   // the cut has grown
		s.append(f, 12, "\x00\xffxx", 116, 134) // all is known
		s.append(f, 134, "tail", 0, 138)        //
		s.append(f, 138, "", 7, 145)            // nothing but a cut
		s.append(f, 100, "", 0, 145)            // nothing
		for _, c := range []struct {
			offset int64
			limit  int
			want   string
		}{
			{0, 100, `0 "hello, world\x00\xff" cut 0 of 145 false false`},
			{3, 4, `3 "lo, " cut 0 of 145 false false`},
			{14, 100, `134 "tail" cut 120 of 145 false false`},
			{50, 2, `134 "ta" cut 84 of 145 false false`},
			{138, 9, `145 "" cut 7 of 145 false false`},
			{145, 9, `145 "" cut 0 of 145 false false`},
			{999, 9, `999 "" cut 0 of 145 false false`},
		} {
			if got := s.read(run.ID, 0, c.offset, c.limit); got != c.want {
				t.Errorf("from %d: %s, want %s", c.offset, got, c.want)
			}
		}
		if _, ok, err := s.End(ctx, f, End{Outcome: frame.Exited, Exit: 1, Log: 150}); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if got := s.read(run.ID, 1, 145, 9); got != `145 "" cut 0 of 145 true false` {
			t.Errorf("ended, with a rest on its way: %s", got)
		}
		s.append(f, 145, "final", 0, 150)
		s.append(f, 150, "more than it told", 0, 150)
		if got := s.read(run.ID, 0, 145, 9); got != `145 "final" cut 0 of 150 true true` {
			t.Errorf("whole: %s", got)
		}
		attempts, err := s.Attempts(ctx, run.ID)
		s.must(err)
		if a := attempts[0]; a.Log != 150 || a.Cut != 127 || !a.LogWhole {
			t.Errorf("the attempt: %+v", a)
		}
		s.clock.advance(time.Minute)
		second := s.claim("a")
		if got := s.read(run.ID, 0, 0, 9); got != `0 "" cut 0 of 0 false false` {
			t.Errorf("the log of the second attempt: %s", got)
		}
		if got := s.read(run.ID, 1, 145, 9); got != `145 "final" cut 0 of 150 true true` {
			t.Errorf("the log of the first attempt, later: %s", got)
		}
		s.end(fenceOf(second), frame.Exited, 0)
		for _, f := range []Fence{{run.ID, 3}, {99, 1}} {
			_, err := s.AppendLog(ctx, f, 0, []byte("x"), 0)
			s.isErr(err, ErrNotFound)
			_, err = s.Log(ctx, f.Run, f.Attempt, 0, 1)
			s.isErr(err, ErrNotFound)
		}
	})
}

// TestLostLog: a runner that was lost may bring the rest of its log, and how long it is.
func TestLostLog(t *testing.T) {
	each(t, func(s suite) {
		run := s.begun("a", 2)
		s.append(fenceOf(run), 0, "begin", 0, 5)
		s.clock.advance(time.Minute)
		_, err := s.Expire(s.t.Context(), 1)
		s.must(err)
		if got := s.read(run.ID, 1, 0, 9); got != `0 "begin" cut 0 of 5 true false` {
			t.Errorf("lost: %s", got)
		}
		s.append(fenceOf(run), 5, "end", 0, 8)
		if _, ok, err := s.End(s.t.Context(), fenceOf(run), End{Outcome: frame.Fenced, Log: 8}); ok || err != nil {
			t.Fatal(ok, err)
		}
		if got := s.read(run.ID, 1, 5, 9); got != `5 "end" cut 0 of 8 true true` {
			t.Errorf("told later: %s", got)
		}
	})
}

// TestLogBounds: whatever a runner sends, a bounded head and a bounded tail are kept, and the
// bytes that are kept are those that it sent there.
func TestLogBounds(t *testing.T) {
	for _, c := range []struct {
		name      string
		parts     int
		size, cut int
	}{
		{"large parts", 320, frame.MaxLogPart, 0}, // 20 MiB
		{"single bytes with cuts", headParts + tailParts + 200, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(s suite) {
				s.logBounds(c.parts, c.size, c.cut)
			})
		})
	}
	each(t, func(s suite) {
		f := fenceOf(s.begun("a", 1))
		for _, bad := range []struct {
			offset int64
			size   int
			cut    int64
		}{{-1, 1, 0}, {0, frame.MaxLogPart + 1, 0}, {0, 1, -1}, {0, 1, 1 << 62}, {1 << 62, 1, 0}} {
			_, err := s.AppendLog(s.t.Context(), f, bad.offset, make([]byte, bad.size), bad.cut)
			s.isErr(err, ErrInvalid)
		}
		for _, bad := range [][2]int64{{-1, 1}, {0, 0}, {0, MaxLogRead + 1}, {1 << 62, 1}} {
			_, err := s.Log(s.t.Context(), f.Run, 0, bad[0], int(bad[1]))
			s.isErr(err, ErrInvalid)
		}
		if got := s.read(f.Run, 0, 0, 9); got != `0 "" cut 0 of 0 false false` {
			t.Errorf("something was written: %s", got)
		}
	})
}

// copyHead brings a head whose parts have one byte, and a cut of one behind it, to so many
// parts. Copies come faster than parts that are appended.
func (q session) copyHead(f Fence, g *growing, parts int) error {
	for g.headParts < parts {
		added, err := int64(1), error(nil)
		if g.headParts == 0 {
			_, err = q.exec("INSERT INTO logs (run, number, at, size, data) VALUES ($1, $2, 0, 1, $3)", f.Run, f.Attempt, []byte{0})
		} else {
			added, err = q.exec("INSERT INTO logs (run, number, at, size, data) SELECT run, number, at + $2, size, data FROM logs WHERE run = $1 AND at < $3",
				f.Run, g.length, 2*(parts-g.headParts))
		}
		if err != nil {
			return err
		}
		g.headParts, g.headBytes, g.length = g.headParts+int(added), g.headBytes+added, g.length+2*added
	}
	return nil
}

// logBounds appends parts, each with the last byte of its offset, and looks at what is kept.
func (s suite) logBounds(parts, size, cut int) {
	f := fenceOf(s.begun("a", 1))
	// Transactions for many, as it is not the commits that are tested.
	var g growing
	g.tailAt = -1
	for parts > 0 {
		grown, left := g, parts
		s.must(s.db.update(s.t.Context(), "test", func(q session) error {
			g, parts = grown, left // it may be tried again
			if size+cut == 2 {
				if err := q.copyHead(f, &g, headParts-100); err != nil {
					return err
				}
				parts -= g.headParts - grown.headParts
			}
			for range min(parts, 100) {
				if err := q.grow(f, &g, bytes.Repeat([]byte{byte(g.length >> 4)}, size)); err != nil {
					return err
				}
				g.length += int64(size + cut)
				parts--
			}
			_, err := q.exec("UPDATE attempts SET length = $2, tail_at = $3 WHERE run = $1", f.Run, g.length, g.tailAt)
			return err
		}))
	}
	end := g.length
	var rows, kept int64
	s.must(s.db.view(s.t.Context(), "test", func(q session) error {
		_, err := q.one("SELECT count(*), coalesce(sum(size), 0) FROM logs", nil, &rows, &kept)
		return err
	}))
	if rows > headParts+tailParts || kept > headBytes+tailBytes+frame.MaxLogPart {
		s.t.Errorf("%d parts with %d bytes are kept", rows, kept)
	}
	var read int64
	for next := int64(0); ; {
		p, err := s.Log(s.t.Context(), f.Run, 0, next, MaxLogRead)
		s.must(err)
		if len(p.Data) == 0 {
			break
		}
		if size > 1 && p.Data[0] != byte(p.Offset>>4) {
			s.t.Fatalf("other bytes at %d", p.Offset)
		}
		if p.Cut > int64(cut) && p.Offset < headBytes && size > 1 {
			s.t.Errorf("%d bytes of the head are cut before %d", p.Cut, p.Offset)
		}
		read += int64(len(p.Data))
		next = p.Offset + int64(len(p.Data))
		if size == 1 && read > 20 {
			break // each read has one byte
		}
	}
	if size > 1 && (read != kept || kept < headBytes+tailBytes-frame.MaxLogPart) {
		s.t.Errorf("%d bytes were read, %d are kept", read, kept)
	}
	p, err := s.Log(s.t.Context(), f.Run, 0, end-int64(size+cut), 1)
	s.must(err)
	if len(p.Data) != 1 || p.Cut != 0 {
		s.t.Errorf("the newest part is not kept: %+v", p)
	}
}

// TestSmallParts: a log that comes byte by byte has few rows.
func TestSmallParts(t *testing.T) {
	each(t, func(s suite) {
		f := fenceOf(s.begun("a", 1))
		var want []byte
		for len(want) < 3*smallPart {
			data := bytes.Repeat([]byte{byte(len(want))}, 1+rand.IntN(300))
			s.append(f, int64(len(want)), string(data), 0, int64(len(want)+len(data)))
			want = append(want, data...)
		}
		p, err := s.Log(s.t.Context(), f.Run, 0, 0, MaxLogRead)
		s.must(err)
		if !bytes.Equal(p.Data, want) {
			t.Errorf("%d bytes of %d, or others", len(p.Data), len(want))
		}
		var rows int
		s.must(s.db.view(s.t.Context(), "test", func(q session) error {
			_, err := q.one("SELECT count(*) FROM logs", nil, &rows)
			return err
		}))
		if rows > 4 {
			t.Errorf("%d rows for %d bytes", rows, len(want))
		}
	})
}

// TestRetainLargeLogs: one transaction removes few parts of logs, so that claims do not wait for long.
func TestRetainLargeLogs(t *testing.T) {
	each(t, func(s suite) {
		ctx := s.t.Context()
		run := s.begun("a", 1)
		for i := range 2*removedParts + 1 {
			_, err := s.AppendLog(ctx, fenceOf(run), int64(i)*smallPart, make([]byte, smallPart), 0)
			s.must(err)
		}
		s.end(fenceOf(run), frame.Exited, 0)
		for i, want := range []int{0, 0, 1} {
			removed, more, err := s.db.removeRuns(ctx, "a", 0, 50)
			s.must(err)
			if removed != want || !more {
				s.t.Fatalf("step %d: removed %d, more: %v", i, removed, more)
			}
		}
		if removed, more, err := s.db.removeRuns(ctx, "a", 0, 50); removed != 0 || more || err != nil {
			s.t.Errorf("then: removed %d, more: %v, %v", removed, more, err)
		}
	})
}
