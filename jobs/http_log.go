package jobs

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"async-data-processor/httpstream"
	"async-data-processor/jobs/store"
	"async-data-processor/problem"
)

// maxRange is how many bytes of a log an answer to a request for a range has at most. A
// client asks for the rest then (RFC 9110, section 14).
const maxRange = 1 << 20

// logRequest is a request for a log.
type logRequest struct {
	LogQuery
	follow bool // until the run has ended
	events bool // as server-sent events, else as text
	// fixed tells that the client has named the attempt.
	fixed bool
	// ranged tells that the client wants the bytes from Offset on, and at most Limit.
	ranged bool
}

// log answers a GET of the log of a run.
func (h *Handler) log(w http.ResponseWriter, r *http.Request, id int64) {
	q, err := readLogRequest(r, id)
	if err != nil {
		problems.Answer(w, err)
		return
	}
	var run RunDetail
	var part store.LogPart
	err = h.inTurn(r, func() (err error) {
		run, part, err = h.begin(r, &q)
		return err
	})
	switch {
	case err != nil:
		problems.Answer(w, err)
	case q.ranged:
		answerRange(w, part)
	default:
		h.send(w, r, &q, run, part)
	}
}

// begin reads the run, and the first part of its log.
func (h *Handler) begin(r *http.Request, q *logRequest) (run RunDetail, part store.LogPart, err error) {
	if run, err = h.cfg.Service().Run(r.Context(), q.Run); err != nil {
		return run, part, err
	}
	switch {
	case !q.fixed && q.Attempt == 0:
		q.Attempt = run.Attempt
	case q.Attempt > run.Attempt:
		return run, part, refusal{store.ErrNotFound, fmt.Sprintf("run %d has no attempt %d, its last one is %d", run.ID, q.Attempt, run.Attempt)}
	}
	if q.Attempt == 0 { // it has not begun
		return run, store.LogPart{Whole: run.State.Ended()}, nil
	}
	if q.Offset < 0 { // it counts from the end, which is to be found
		at := q.LogQuery
		at.Offset, at.Limit = 0, 1
		if part, err = h.cfg.Service().Log(r.Context(), at); err != nil {
			return run, part, err
		}
		q.Offset = max(0, part.Length+q.Offset)
	}
	part, err = h.read(r, q)
	return run, part, err
}

// read reads the first part. Of a range, it goes on until there is enough, or the end, or
// what was thrown away.
func (h *Handler) read(r *http.Request, q *logRequest) (part store.LogPart, err error) {
	want := q.Limit
	q.Limit = min(want, MaxLogPart)
	if part, err = h.cfg.Service().Log(r.Context(), q.LogQuery); err != nil || !q.ranged {
		return part, err
	}
	for next := q.LogQuery; len(part.Data) > 0 && len(part.Data) < want; {
		next.Offset, next.Limit = part.Offset+int64(len(part.Data)), min(want-len(part.Data), MaxLogPart)
		more, err := h.cfg.Service().Log(r.Context(), next)
		if err != nil || len(more.Data) == 0 || more.Offset != next.Offset {
			return part, err
		}
		part.Data = append(part.Data, more.Data...)
	}
	return part, nil
}

func readLogRequest(r *http.Request, id int64) (q logRequest, err error) {
	query, err := problem.Query(r, "attempt", "follow")
	if err != nil {
		return q, fmt.Errorf("%w: %w", errQuery, err)
	}
	q.Run, q.Limit = id, MaxLogPart
	if text, given := query["attempt"]; given {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil || n == 0 {
			return q, fmt.Errorf("%w: attempt is %.40q, want a number from 1 on", errQuery, text)
		}
		q.Attempt, q.fixed = int(n), true
	}
	q.events = strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	if text, given := query["follow"]; given {
		if q.follow, err = strconv.ParseBool(text); err != nil {
			return q, fmt.Errorf("%w: follow is %.40q, want 0 or 1", errQuery, text)
		}
	}
	q.follow = q.follow || q.events
	switch last := r.Header.Get("Last-Event-ID"); {
	case q.events && last != "":
		attempt, offset, ok := readLogEventID(last)
		if ok && (!q.fixed || attempt == q.Attempt) {
			q.Attempt, q.Offset = attempt, min(offset, maxOffset)
		}
	case !q.follow:
		q.Offset, q.Limit, q.ranged = readRange(r.Header["Range"])
		q.Offset = min(q.Offset, maxOffset) // no log is that long
	}
	return q, nil
}

// readRange reads a header Range with one range of bytes (RFC 9110, section 14). An offset
// that is negative counts from the end. What is no such header is ignored, as the RFC says.
func readRange(lines []string) (offset int64, limit int, ranged bool) {
	if len(lines) != 1 {
		return 0, MaxLogPart, false
	}
	text, ok := strings.CutPrefix(lines[0], "bytes=")
	first, last, found := strings.Cut(text, "-")
	if !ok || !found {
		return 0, MaxLogPart, false
	}
	if first == "" {
		n, err := strconv.ParseUint(last, 10, 62)
		if err != nil || n == 0 {
			return 0, MaxLogPart, false
		}
		return -int64(n), int(min(n, maxRange)), true
	}
	from, err := strconv.ParseUint(first, 10, 62)
	if err != nil {
		return 0, MaxLogPart, false
	}
	if last == "" {
		return int64(from), maxRange, true
	}
	to, err := strconv.ParseUint(last, 10, 62)
	if err != nil || to < from {
		return 0, MaxLogPart, false
	}
	return int64(from), int(min(to-from+1, maxRange)), true
}

// answerRange answers with one part. The length of the log is told when no more comes.
func answerRange(w http.ResponseWriter, part store.LogPart) {
	header := w.Header()
	header.Set("Accept-Ranges", "bytes")
	if len(part.Data) == 0 {
		header.Set("Content-Range", fmt.Sprintf("bytes */%d", part.Length))
		problem.Answer(w, http.StatusRequestedRangeNotSatisfiable, "no-such-range", fmt.Sprintf("the log has %d bytes by now", part.Length), 0)
		return
	}
	length := "*"
	if part.Whole {
		length = strconv.FormatInt(part.Length, 10)
	}
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%s", part.Offset, part.Offset+int64(len(part.Data))-1, length))
	header.Set("Content-Length", strconv.Itoa(len(part.Data)))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(part.Data) // the client may be gone
}

// errLogs: as many logs are sent as may be.
var errLogs = errors.New("as many logs are sent at a time as may be")

// place gives a client a place for a log.
func (h *Handler) place() bool {
	select {
	case h.follows <- struct{}{}:
		return true
	default:
		return false
	}
}

// send sends the log from its part on.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, q *logRequest, run RunDetail, part store.LogPart) {
	client := h.cfg.Client(r)
	if !h.place() && (!h.places.Yield(client) || !h.place()) {
		problem.Answer(w, http.StatusServiceUnavailable, "too-many-viewers", errLogs.Error(), 2)
		return
	}
	ctx, place := h.places.Enter(r.Context(), client, sync.OnceFunc(func() { <-h.follows }))
	defer h.places.Leave(place)
	out, err := httpstream.New(ctx, w)
	if err != nil {
		problem.Answer(w, http.StatusInternalServerError, "internal-error", err.Error(), 0)
		return
	}
	header := w.Header()
	header.Set("X-Accel-Buffering", "no") // of a proxy
	header.Set("Content-Type", "text/plain; charset=utf-8")
	if q.events {
		header.Set("Content-Type", "text/event-stream")
	} else if !q.follow {
		header.Set("Accept-Ranges", "bytes")
	}
	w.WriteHeader(http.StatusOK)
	if q.follow { // the client sees that it is there, before the first line
		_ = http.NewResponseController(w).Flush() // an error comes again
	}
	s := &logStream{Stream: out, service: h.cfg.Service(), q: *q, run: run}
	out.Hurrying(func() { s.send(ctx, part) })
}
