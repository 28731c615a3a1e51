package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"async-data-processor/broker"
	"async-data-processor/httpstream"
	"async-data-processor/jobs/store"
)

const (
	// followInterval is how often a log is looked at that is followed.
	followInterval = 500 * time.Millisecond
	// lateTime is how long what an ended attempt has left of its log is waited for.
	lateTime = 5 * time.Second
)

// logStream sends a log to one client.
type logStream struct {
	*httpstream.Stream
	service Service
	q       logRequest // whose Offset is where the next part begins
	run     RunDetail  // as it was last

	begun bool      // a part of the attempt was sent
	held  []byte    // the beginning of a character, of events
	ended time.Time // when the attempt was seen to have ended, or more of its log came
}

// send sends parts until the log ends, or the client is gone, or ctx has ended.
func (s *logStream) send(ctx context.Context, part store.LogPart) {
	end := part.Length // of a log that is not followed
	quiet := time.Now()
	for {
		news := s.tell(part)
		if news {
			quiet, s.ended = time.Now(), time.Time{}
		} else if time.Since(quiet) > httpstream.KeepAlive {
			s.alive()
			quiet = time.Now()
		}
		if !s.q.follow && (s.q.Offset >= end || !news) {
			_ = s.Flush() // an error says that the client is gone
			return
		}
		if s.q.follow && !news && s.over(part) {
			s.last("end", "")
			return
		}
		if s.Flush() != nil {
			return
		}
		if !news && !s.wait(ctx) {
			return
		}
		var err error
		if part, err = s.next(ctx); err != nil {
			s.failed(ctx)
			return
		}
	}
}

// next reads the next part, and the run where the part cannot tell whether more comes.
func (s *logStream) next(ctx context.Context) (part store.LogPart, err error) {
	if s.q.Attempt == 0 {
		if s.run, err = s.service.Run(ctx, s.q.Run); err != nil {
			return part, err
		}
		s.q.Attempt = s.run.Attempt
	}
	if s.q.Attempt == 0 {
		return store.LogPart{Whole: s.run.State.Ended()}, nil
	}
	part, err = s.service.Log(ctx, s.q.LogQuery)
	if err == nil && part.Ended && len(part.Data) == 0 {
		s.run, err = s.service.Run(ctx, s.q.Run)
	}
	return part, err
}

// over tells whether nothing comes after a part without data. It goes on with the next
// attempt, unless the client has named one.
func (s *logStream) over(part store.LogPart) bool {
	if s.q.Attempt == 0 {
		return s.run.State.Ended()
	}
	if !part.Ended {
		s.ended = time.Time{}
		return false
	}
	if s.ended.IsZero() {
		s.ended = time.Now()
	}
	if !part.Whole && time.Since(s.ended) < lateTime {
		return false
	}
	if s.q.fixed || s.run.State.Ended() && s.run.Attempt == s.q.Attempt {
		return true
	}
	if s.run.Attempt > s.q.Attempt {
		s.q.Attempt, s.q.Offset, s.begun, s.ended = s.q.Attempt+1, 0, false, time.Time{}
	}
	return false
}

// wait waits until it is time for another look. It returns false if there is none.
func (s *logStream) wait(ctx context.Context) bool {
	pause := time.NewTimer(followInterval)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-s.Ended():
		s.failed(ctx)
		return false
	}
}

// failed is the last word where the log has not ended.
func (s *logStream) failed(ctx context.Context) {
	switch {
	case errors.Is(context.Cause(ctx), httpstream.ErrYielded):
		s.last("bye", httpstream.ErrYielded.Error())
	case ctx.Err() != nil:
		s.last("bye", "the process stops")
	default:
		s.last("bye", "the log cannot be read now")
	}
}

// logEvent is a part of a log, as an event.
type logEvent struct {
	Attempt int   `json:"attempt"`
	Offset  int64 `json:"offset"`
	// Cut is how many bytes before Text were thrown away. What of it is not UTF-8 is replaced.
	Cut  int64  `json:"cut"`
	Text string `json:"text"`
}

// tell adds a part, and returns whether it has data.
func (s *logStream) tell(part store.LogPart) bool {
	cut := max(0, part.Offset-s.q.Offset)
	if len(part.Data) == 0 {
		if len(s.held) > 0 && part.Whole {
			s.event(0, string(s.held))
			s.held = nil
		}
		return false
	}
	if !s.begun && s.q.Attempt > 1 && s.q.follow && !s.events() {
		fmt.Fprintf(&s.Out, "[attempt %d]\n", s.q.Attempt)
	}
	s.begun = true
	s.q.Offset = part.Offset + int64(len(part.Data))
	if !s.events() {
		if cut > 0 {
			fmt.Fprintf(&s.Out, "\n[%d bytes of the log were thrown away here]\n", cut)
		}
		s.Out.Write(part.Data)
		return true
	}
	if cut > 0 {
		s.held = nil
	}
	text := string(append(s.held, part.Data...))
	whole := broker.WholeRunes(text)
	s.held = []byte(text[whole:])
	s.event(cut, text[:whole])
	return true
}

func (s *logStream) events() bool { return s.q.events }

// event adds an event. Its id says where to go on: before what is held back.
func (s *logStream) event(cut int64, text string) {
	next := s.q.Offset - int64(len(s.held))
	e := logEvent{Attempt: s.q.Attempt, Offset: next - int64(len(text)), Cut: cut, Text: strings.ToValidUTF8(text, "\ufffd")}
	body, _ := json.Marshal(e) // it has nothing that can fail
	fmt.Fprintf(&s.Out, "id: %d-%d\nevent: log\ndata: %s\n\n", s.q.Attempt, next, body)
}

func readLogEventID(id string) (attempt int, offset int64, ok bool) {
	first, second, _ := strings.Cut(id, "-")
	a, err := strconv.ParseUint(first, 10, 31)
	if err != nil {
		return 0, 0, false
	}
	o, err := strconv.ParseUint(second, 10, 62)
	return int(a), int64(o), err == nil && a > 0
}

// alive adds what says that the stream is alive. Text has nothing for that.
func (s *logStream) alive() {
	if s.events() {
		s.Out.WriteString(":\n\n") // a comment
	}
}

// last sends the last word: "end" with the run as it is, or "bye" with why the stream ends
// before the log.
func (s *logStream) last(name, why string) {
	switch {
	case s.events() && name == "end":
		body, _ := json.Marshal(s.run.RunView) // it has nothing that can fail
		fmt.Fprintf(&s.Out, "event: end\ndata: %s\n\n", body)
	case s.events():
		body, _ := json.Marshal(struct {
			Why   string `json:"why"`
			Retry int    `json:"retry_ms"`
		}{why, 1000})
		fmt.Fprintf(&s.Out, "retry: 1000\nevent: bye\ndata: %s\n\n", body)
	case name == "bye":
		fmt.Fprintf(&s.Out, "\n[%s, ask again]\n", why)
	}
	_ = s.Flush() // the client may be gone
}
