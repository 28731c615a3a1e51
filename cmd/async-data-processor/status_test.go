package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestStatusUnknown: what is not known is a question mark, never 0; and no name of
// another process reaches the terminal as it is.
func TestStatusUnknown(t *testing.T) {
	const answer = `{"as_of":"2026-01-02T03:04:05Z","node":"a\u001b[2J","complete":false,"nodes":[
		{"node":"a\u001b[2J","state":"here","totals":{"written":7},"checks":[{"name":"output","ok":false,"why":"disk\nfull"}]},
		{"node":"b","state":"unknown","totals":null}],
		"shards":[{"shard":0,"state":"unknown","owner":"b","queued":null,"part":null},
		{"shard":1,"state":"unowned","queued":3,"part":null},
		{"shard":2,"state":"running","owner":"a\u001b[2J","queued":0,"part":{"in_hand":5,"oldest_unwritten_age_s":1.52,"written":7,"workers":3,"workers_min":3,"workers_max":4}},
		{"shard":3,"state":"paused","owner":"a","queued":0,"part":{"pause":{"since":"2026-01-02T03:04:05Z","until":"2026-01-02T05:04:05Z","why":"a\u001b[2J","by":"ann"}}},
		{"shard":4,"state":"paused","owner":"a","queued":0,"part":{"pause":{"since":"2026-01-02T03:04:05Z"}}}]}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := answer
		if r.URL.Path == "/api/v1/overview" {
			body = `{"as_of":"2026-01-02T03:04:05Z","node":"a","complete":false,"nodes":{"here":1,"unknown":1},"shards":{"running":1,"unknown":1,"unowned":1},"queued":null}`
		}
		_, _ = w.Write([]byte(body))
	}))
	defer s.Close()
	out, _ := runs(t, exitClean, "status", "--url", s.URL)
	local := func(hour int) string {
		return time.Date(2026, 1, 2, hour, 4, 5, 0, time.UTC).Local().Format(time.DateTime)
	}
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	got := strings.Join(lines, "\n")
	for _, want := range []string{
		"2 nodes: 1 here, 1 unknown. 5 shards: 1 running, 1 unknown, 1 unowned.",
		"Envelopes: ? queued,", "A node does not answer",
		"\nb unknown ? ? -", `output: "disk\nfull"`,
		"\n0 ? ? ? ? ? ? - unknown b\n", "\n1 3 - - - - - - unowned -\n", "\n2 0 5 0 1.5s 3 of 3-4 7 0 running " + `"a\x1b[2J"` + "\n",
		"\nshard 3: paused since " + local(3) + " until " + local(5) + ` by ann: "a\x1b[2J"` + "\nshard 4: paused since " + local(3) + "\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.ContainsRune(got, 0x1b) {
		t.Errorf("an escape reaches the terminal: %q", got)
	}
}
