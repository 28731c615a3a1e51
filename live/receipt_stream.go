package live

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"async-data-processor/httpstream"
)

const (
	// progressInterval is the time between two changes that are told.
	progressInterval = 250 * time.Millisecond
	// doneEventID is the id of the event after which there is no other.
	doneEventID = "done"
)

// receiptStream writes the changes of a receipt to one client.
type receiptStream struct {
	*httpstream.Stream
	events bool // server-sent events, not lines
}

// stream tells of changes until the submission is done, the client is gone or does not
// read, or the process stops.
func (h *ReceiptHandler) stream(w http.ResponseWriter, r *http.Request, form string, watch watching, client string) {
	receipt, err := watch.Receipt()
	if err != nil {
		receiptProblems.Answer(w, err)
		return
	}
	header := w.Header()
	header.Set("X-Accel-Buffering", "no") // of a proxy
	header.Set("Content-Type", form)
	if form == "text/plain" {
		header.Set("Content-Type", form+"; charset=utf-8")
	}
	if r.Method == http.MethodHead {
		return
	}
	if !h.streams.take(client) {
		receiptProblems.Answer(w, errStreams)
		return
	}
	defer h.streams.give(client)
	out, err := httpstream.New(r.Context(), w)
	if err != nil {
		receiptProblems.Answer(w, err)
		return
	}
	s := &receiptStream{out, form == "text/event-stream"}
	s.Hurrying(func() { s.follow(watch, receipt) })
}

// follow writes the receipt, and then its changes, as many as progressInterval allows.
func (s *receiptStream) follow(watch watching, receipt Receipt) {
	quiet := time.NewTimer(httpstream.KeepAlive)
	defer quiet.Stop()
	var next <-chan time.Time // when the change that waits is told
	told := time.Time{}
	for {
		s.tell(&receipt)
		if s.Flush() != nil || receipt.Done {
			return
		}
		told = time.Now()
		quiet.Reset(httpstream.KeepAlive)
		for changed := false; !changed; {
			select {
			case <-watch.Changed():
				now, err := watch.Receipt()
				if err != nil || same(&now, &receipt) {
					continue // it was known before
				}
				if now.Done || time.Since(told) >= progressInterval {
					receipt, changed, next = now, true, nil
				} else if next == nil {
					next = time.After(progressInterval - time.Since(told))
				}
			case <-next:
				next = nil
				if now, err := watch.Receipt(); err == nil {
					receipt, changed = now, true
				}
			case <-quiet.C:
				s.alive(&receipt)
				if s.Flush() != nil {
					return
				}
				quiet.Reset(httpstream.KeepAlive)
			case <-s.Ended():
				s.leave()
				_ = s.Flush()
				return
			}
		}
	}
}

// same tells whether a receipt tells nothing new.
func same(a, b *Receipt) bool {
	return a.Written == b.Written && a.Dead == b.Dead && a.Done == b.Done && a.State == b.State && slices.Equal(a.Unknown, b.Unknown) &&
		slices.EqualFunc(a.Paused, b.Paused, func(a, b PausedShards) bool {
			return slices.Equal(a.Shards, b.Shards) && a.Reason == b.Reason && a.Until.Equal(b.Until)
		})
}

// tell adds what is known now.
func (s *receiptStream) tell(r *Receipt) {
	if !s.events {
		s.Out.WriteString(line(r))
		return
	}
	name := "progress"
	if r.Done {
		name = doneEventID
		fmt.Fprintf(&s.Out, "id: %s\n", doneEventID)
	}
	told := *r
	told.Indexes = nil
	text, err := json.Marshal(&told)
	if err != nil {
		text = []byte("{}") // it never fails
	}
	fmt.Fprintf(&s.Out, "event: %s\ndata: %s\n\n", name, text)
}

// alive adds what says that the stream is alive.
func (s *receiptStream) alive(r *Receipt) {
	if s.events {
		s.Out.WriteString(":\n\n") // a comment
	} else {
		s.Out.WriteString(line(r))
	}
}

// leave adds the last word of a process that stops.
func (s *receiptStream) leave() {
	if s.events {
		s.Out.WriteString("retry: 1000\nevent: bye\ndata: {\"why\":\"drain\",\"retry_ms\":1000}\n\n")
	} else {
		s.Out.WriteString("the process stops, ask again\n")
	}
}

// line is a receipt in a line of text. After the last one a line for each reason tells
// which messages are dead.
func line(r *Receipt) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d written, %d dead, %d pending", r.State, r.Written, r.Accepted, r.Dead, r.Pending)
	if len(r.Unknown) > 0 {
		fmt.Fprintf(&b, "; no answer for shards %s", numbers(r.Unknown))
	}
	for _, p := range r.Paused {
		fmt.Fprintf(&b, "; shards %s %s", numbers(p.Shards), p.why())
	}
	b.WriteByte('\n')
	if r.Done && r.Indexes != nil {
		for _, d := range r.Indexes.Dead {
			fmt.Fprintf(&b, "dead %s: %s\n", d.Indexes, oneLine(d.Reason))
		}
	}
	return b.String()
}

// oneLine has a terminal show a text as it is, in one line.
func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7F && c < 0xA0 || c == '\u2028' || c == '\u2029' {
			return ' '
		}
		return c
	}, text)
}
