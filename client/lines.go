package client

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	adp "async-data-processor/message"
)

// LinesConfig says how lines become entries. Of Config, Answered is not used. The
// functions may be called at the same time as those of Config.
type LinesConfig struct {
	Config
	// Stamp adds the time of reading as member timestamp to entries that have none.
	Stamp bool
	// Grace is how long Run waits for answers after its context has ended.
	Grace time.Duration
	// Bad gets the lines that were rejected, as they were read; nil drops them.
	Bad io.Writer

	// Rejected is told why a line was rejected. Each function may be nil.
	Rejected func(line int64, why string)
	// Told gets the answers of batches, and the lines of each.
	Told func(a Answer, lines []Range)
}

// Lines sends an entry for each line that it reads. Make it with NewLines.
type Lines struct {
	cfg LinesConfig
	bad bad

	// Only used by Run.
	in     *bufio.Reader
	line   int64 // number of the last one
	limits Limits
	array  []byte
	runs   []run
	count  int

	mu     sync.Mutex // guards what follows
	report Report
}

// Report is what became of the lines. Once Run has returned, Lines is the sum of Empty,
// Rejected, Unsent, Unknown and Accepted. With Config.Want, Accepted is that of Written,
// Dead and Unwritten.
type Report struct {
	Lines    int64 // that were read
	Empty    int64 // lines without an entry
	Accepted int64
	Written  int64 // of the accepted ones, if that was wanted
	Dead     int64 // of the accepted ones, if that was wanted
	Rejected int64
	Unsent   int64 // lines of which the server has published nothing
	Unknown  int64 // lines that may be accepted or not
	// Unwritten lines are accepted, and not known to be written, if that was wanted.
	Unwritten int64

	// The lines that these numbers count, in order once Run has returned.
	UnsentLines, UnknownLines, UnwrittenLines []Range
	// DeadLines are the lines of batches with dead ones, in order once Run has returned.
	DeadLines []Range
}

// Range is lines, by number from 1 on, both ends included.
type Range struct{ First, Last int64 }

func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// OK tells whether every entry was accepted, and if wanted written.
func (r *Report) OK(want bool) bool {
	entries := r.Lines - r.Empty
	return r.Accepted == entries && (!want || r.Written == entries)
}

// batchBytes is the size from which on a batch is not filled further. It is a read of
// a file; larger ones bring no speed, and more that has to be sent again.
const batchBytes = 128 << 10

// NewLines prepares Lines. Run does the work.
func NewLines(cfg LinesConfig) *Lines {
	return &Lines{cfg: cfg, bad: bad{to: cfg.Bad}}
}

// Report is what became of the lines until now. It counts none without an answer yet.
func (l *Lines) Report() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.report
	r.DeadLines, r.UnknownLines, r.UnwrittenLines = slices.Clone(r.DeadLines), slices.Clone(r.UnknownLines), slices.Clone(r.UnwrittenLines)
	return r
}

// Run reads r to its end, or until ctx ends, and waits for the answers. It reads no more
// than the window of the session has room for. A Read of r may go on after Run has
// returned, if ctx ended it.
//
// The error says why Run has ended before every line had its answer: the cause of ctx,
// an error of r or of Bad, or one that wraps ErrRefused.
func (l *Lines) Run(ctx context.Context, r io.Reader) (Report, error) {
	cfg := l.cfg.Config
	cfg.Answered = l.answered
	s, err := New(cfg)
	if err != nil {
		return Report{}, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		<-s.stopped
		stop(s.failure())
	}()
	// What was read is sent and waited for after ctx, for a while.
	hard, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer context.AfterFunc(ctx, func() {
		late := time.AfterFunc(l.cfg.Grace, func() { end(context.Cause(ctx)) })
		context.AfterFunc(hard, func() { late.Stop() })
	})()

	l.in = bufio.NewReaderSize(&stoppable{ctx: ctx, from: r}, maxLimits.Entry+stampRoom)
	reading := l.send(ctx, hard, s)
	waiting := s.Wait(hard)
	cause := context.Cause(ctx)
	left := s.Close()

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range left {
		l.left(b)
	}
	l.left(Left{Batch: Batch{Tag: l.runs}, Unsent: true}) // read, and not sent
	for _, lines := range []*[]Range{&l.report.UnsentLines, &l.report.UnknownLines, &l.report.UnwrittenLines, &l.report.DeadLines} {
		*lines = merged(*lines)
	}
	if errors.Is(reading, io.EOF) {
		if waiting == nil {
			return l.report, l.bad.err()
		}
		reading = waiting
	}
	return l.report, cmp.Or(cause, reading)
}

// send sends what it reads.
func (l *Lines) send(ctx, hard context.Context, s *Session) error {
	for {
		limits, err := s.Ready(ctx)
		if err != nil {
			return err
		}
		l.limits = limits
		end := l.fill()
		if l.count > 0 {
			l.array = append(l.array, ']')
			if err := s.Send(hard, Batch{Array: l.array, Count: l.count, Tag: slices.Clone(l.runs)}); err != nil {
				return err
			}
			l.array, l.runs, l.count = l.array[:0], l.runs[:0], 0
		}
		if end == nil {
			end = l.bad.err()
		}
		if end != nil {
			return end
		}
	}
}

// fill makes a batch of the lines that are there. It waits only for the first one, so
// that no line waits for another one.
func (l *Lines) fill() error {
	most := min(batchBytes, l.limits.Frame-frameRoom-l.limits.Entry-len(",\n]"))
	for {
		text, err := l.in.ReadSlice('\n')
		if err == nil || errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF) && len(text) > 0 {
			l.line++
			l.took(func(r *Report) { r.Lines++ })
			if errors.Is(err, bufio.ErrBufferFull) {
				err = l.tooLong(text)
			} else {
				l.add(bytes.TrimSuffix(text, []byte{'\n'}))
			}
		}
		if err != nil {
			return err
		}
		if l.count > 0 && (len(l.array) > most || l.count >= l.limits.Entries) || !l.more() {
			return nil
		}
	}
}

// more tells whether another line is there already, as a whole.
func (l *Lines) more() bool {
	rest, _ := l.in.Peek(l.in.Buffered())
	return bytes.IndexByte(rest, '\n') >= 0
}

// blank is the white space of JSON (RFC 8259, section 2).
const blank = " \t\r\n"

// add adds a line to the batch, unless it can be no entry.
func (l *Lines) add(line []byte) {
	text := bytes.Trim(line, blank)
	if len(text) == 0 {
		l.took(func(r *Report) { r.Empty++ })
		return
	}
	if !jsontext.Value(text).IsValid() {
		l.reject(l.line, whyInvalid(text), line)
		return
	}
	stamped := l.cfg.Stamp && lacksTimestamp(text)
	size := len(line)
	if stamped {
		size += stampRoom
	}
	if size > l.limits.Entry {
		l.reject(l.line, l.whyTooLong(), line)
		return
	}
	if l.count == 0 {
		l.array = append(l.array[:0], '[')
	} else {
		l.array = append(l.array, ',', '\n')
	}
	if stamped {
		l.array = appendStamped(l.array, line, time.Now())
	} else {
		l.array = append(l.array, line...)
	}
	l.runs = appendLine(l.runs, l.line, stamped)
	l.count++
}

// whyInvalid says why a text is no JSON value, in the server's words.
func whyInvalid(text []byte) string {
	_, err := adp.Decode("", text, adp.NDJSON)
	if invalid, ok := errors.AsType[*adp.InvalidError](err); ok && len(invalid.Entries) > 0 {
		return invalid.Entries[0].Detail
	}
	return "it is no JSON value"
}

func (l *Lines) whyTooLong() string {
	return fmt.Sprintf("the line has more than %d KiB", l.limits.Entry>>10)
}

// tooLong passes over a line that begins with text.
func (l *Lines) tooLong(text []byte) error {
	end := l.bad.begin()
	defer end()
	err := bufio.ErrBufferFull
	for errors.Is(err, bufio.ErrBufferFull) {
		l.bad.piece(text)
		text, err = l.in.ReadSlice('\n')
	}
	l.bad.piece(bytes.TrimSuffix(text, []byte{'\n'}))
	l.rejected(l.line, l.whyTooLong())
	return err
}

func (l *Lines) reject(line int64, why string, text []byte) {
	l.bad.line(text)
	l.rejected(line, why)
}

func (l *Lines) rejected(line int64, why string) {
	l.took(func(r *Report) { r.Rejected++ })
	if l.cfg.Rejected != nil {
		l.cfg.Rejected(line, why)
	}
}

func (l *Lines) took(count func(*Report)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	count(&l.report)
}

// left counts lines without their last answer. mu is locked.
func (l *Lines) left(b Left) {
	r := &l.report
	number, lines := &r.Unknown, &r.UnknownLines
	switch {
	case b.Accepted:
		number, lines = &r.Unwritten, &r.UnwrittenLines
	case b.Unsent:
		number, lines = &r.Unsent, &r.UnsentLines
	}
	for _, run := range b.Tag.([]run) {
		*number += run.last - run.first + 1
		*lines = append(*lines, Range{run.first, run.last})
	}
}

// answered takes the answers of batches. Of a rejected one it sends the lines again
// that are not to blame.
func (l *Lines) answered(a Answer) (instead []Batch) {
	runs := a.Tag.([]run)
	n := int64(a.Count)
	switch a.Kind {
	case Accepted:
		l.took(func(r *Report) { r.Accepted += n })
	case Written:
		l.took(func(r *Report) { r.Written += n })
	case Dead:
		l.took(func(r *Report) {
			r.Written, r.Dead = r.Written+n-int64(a.Dead), r.Dead+int64(a.Dead)
			r.DeadLines = append(r.DeadLines, rangesOf(runs)...)
		})
	case Rejected:
		instead = l.part(a)
	case Expired:
		l.mu.Lock()
		l.left(Left{Batch: a.Batch, Accepted: a.ID != ""})
		l.mu.Unlock()
	}
	if l.cfg.Told != nil {
		l.cfg.Told(a, rangesOf(runs))
	}
	return instead
}

// part tells the bad lines of a rejected batch, and returns the others. If no line is
// to blame, the two halves of the batch are tried.
func (l *Lines) part(a Answer) (instead []Batch) {
	why := make(map[int]string)
	for _, e := range a.Problem.Errors {
		if _, told := why[e.Index]; e.Index >= 0 && e.Index < a.Count && !told {
			why[e.Index] = e.Detail
			if _, within, ok := strings.Cut(strings.TrimPrefix(e.Pointer, "/"), "/"); ok {
				why[e.Index] = "/" + within + ": " + e.Detail
			}
		}
	}
	half := a.Count
	switch {
	case len(why) > 0:
	case a.Count == 1:
		why[0] = a.Problem.Error()
	default:
		half = a.Count / 2
	}
	var kept part
	for e := range entriesOf(a.Batch) {
		if reason, bad := why[e.index]; bad {
			l.reject(e.line, reason, e.original())
			continue
		}
		if e.index == half {
			instead, kept = kept.closed(instead), part{}
		}
		kept.add(e)
	}
	return kept.closed(instead)
}
