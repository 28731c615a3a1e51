package live

import (
	"bytes"
	"fmt"
	"html"
	"maps"
	"slices"
	"time"
)

// pagePolicy keeps a page to what this process serves.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// page is a receipt for people. It asks anew every second until it is done, and needs no
// script.
func page(r *Receipt) []byte {
	var b bytes.Buffer
	b.WriteString("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n")
	if !r.Done {
		b.WriteString("<meta http-equiv=\"refresh\" content=\"1\">\n")
	}
	title := html.EscapeString(fmt.Sprintf("%s: %d of %d written", r.State, r.Written, r.Accepted))
	fmt.Fprintf(&b, "<title>%s</title>\n</head>\n<body>\n<h1>%s</h1>\n", title, title)
	fmt.Fprintf(&b, "<p>Submission <code>%s</code></p>\n", html.EscapeString(r.ID))
	fmt.Fprintf(&b, "<p><progress max=\"%d\" value=\"%d\">%d of %d</progress></p>\n<table>\n", r.Accepted, r.Written+r.Dead, r.Written+r.Dead, r.Accepted)
	row := func(name, value string) {
		fmt.Fprintf(&b, "<tr><th scope=\"row\">%s</th><td>%s</td></tr>\n", html.EscapeString(name), html.EscapeString(value))
	}
	at := func(name string, t time.Time) {
		if !t.IsZero() {
			row(name, t.Format("2006-01-02 15:04:05 MST"))
		}
	}
	row("Written", fmt.Sprint(r.Written))
	row("Dead", fmt.Sprint(r.Dead))
	row("Pending", fmt.Sprint(r.Pending))
	at("Accepted", r.AcceptedAt)
	at("Done", r.DoneAt)
	at("As of", r.AsOf)
	at("Remembered until", r.RememberedUntil)
	if len(r.Unknown) > 0 {
		row("No answer for shards", numbers(r.Unknown))
	}
	for _, p := range r.Paused {
		row("Shards "+numbers(p.Shards), p.why())
	}
	for _, n := range slices.Sorted(maps.Keys(r.Shards)) {
		row(fmt.Sprintf("Shard %d", n), fmt.Sprintf("%d written, %d dead", r.Shards[n].Written, r.Shards[n].Dead))
	}
	if r.Indexes != nil {
		for _, d := range r.Indexes.Dead {
			row("Dead "+d.Indexes, d.Reason)
		}
	}
	b.WriteString("</table>\n</body>\n</html>\n")
	return b.Bytes()
}
