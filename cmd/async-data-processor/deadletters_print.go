package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"async-data-processor/pipeline"
)

// letter is a dead letter as it is printed; as JSON a contract with scripts.
type letter struct {
	ID      string     `json:"id"`
	Time    *time.Time `json:"time"`   // null if unknown
	Origin  string     `json:"origin"` // the queue or subject
	Shard   *int       `json:"shard"`  // null if unknown
	Count   int        `json:"count"`
	Bytes   int        `json:"bytes"`
	Reason  string     `json:"reason"`
	Foreign bool       `json:"foreign"`
	Broker  string     `json:"broker"`

	Body   *string `json:"body,omitempty"` // only of show
	Base64 *string `json:"body_base64,omitempty"`
	raw    []byte
}

func (d *deadLetters) letterOf(l pipeline.DeadLetter) letter {
	out := letter{
		ID: l.Envelope.ID, Origin: l.Origin, Count: l.Envelope.Count, Bytes: len(l.Envelope.Body),
		Reason: l.Reason, Foreign: l.Envelope.Foreign, Broker: d.broker(),
	}
	// Copies, because a pointer into l would keep its body.
	if when := l.Time; !when.IsZero() {
		out.Time = &when
	}
	if shard := l.Envelope.Shard; shard >= 0 {
		out.Shard = &shard
	}
	return out
}

func (l letter) withBody(body []byte) letter {
	text := string(body)
	if l.raw = body; utf8.Valid(body) {
		l.Body = &text
	} else {
		text = base64.StdEncoding.EncodeToString(body)
		l.Base64 = &text
	}
	return l
}

func (l letter) when(layout string) string {
	if l.Time == nil {
		return "-"
	}
	return l.Time.Format(layout)
}

// place is the shard, or else whatever tells where it came from.
func (l letter) place() string {
	switch {
	case l.Shard != nil:
		return "shard " + strconv.Itoa(*l.Shard)
	case l.Origin != "":
		return plain(l.Origin)
	default:
		return "-"
	}
}

func printLines[T any](w io.Writer, lines []T) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	return nil
}

// maxReason is how much of a reason a terminal gets, in characters, so that a
// line of the table is hardly ever broken.
const maxReason = 70

func printLetters(w io.Writer, letters []letter, terminal bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tTIME\tORIGIN\tCOUNT\tBYTES\tREASON")
	for _, l := range letters {
		reason := plain(l.Reason)
		if runes := []rune(reason); terminal && len(runes) > maxReason {
			reason = string(runes[:maxReason-1]) + "…"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%s\n", plain(l.ID), l.when(time.RFC3339), l.place(), l.Count, l.Bytes, reason)
	}
	return table.Flush()
}

func printWhole(w io.Writer, letters []letter, terminal bool) error {
	for i, l := range letters {
		var out strings.Builder // its writes do not fail
		if i > 0 {
			fmt.Fprintln(&out)
		}
		by := "this program"
		if l.Foreign {
			by = "another program"
		}
		fmt.Fprintf(&out, "id      %s\ntime    %s\norigin  %s\n", plain(l.ID), l.when(time.RFC3339Nano), l.place())
		fmt.Fprintf(&out, "broker  %s\nfrom    %s\ncount   %d\nbytes   %d\nreason  %s\n\n", plain(l.Broker), by, l.Count, l.Bytes, plain(l.Reason))
		body := string(l.raw)
		if terminal && !harmless(body) {
			body = strconv.Quote(body)
		}
		out.WriteString(body)
		if !strings.HasSuffix(body, "\n") {
			out.WriteByte('\n')
		}
		if _, err := io.WriteString(w, out.String()); err != nil {
			return err
		}
	}
	return nil
}

// harmless tells whether a terminal shows a text as it is.
func harmless(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return !unicode.IsPrint(r) && r != '\n' && r != '\t'
	})
}
