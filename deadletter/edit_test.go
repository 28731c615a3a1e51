package deadletter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/shard"
)

// edit posts another body of a letter.
func edit(t *testing.T, l *Letters, key, body string) (int, string) {
	text, _ := json.Marshal(map[string]string{"body": body})
	code, answer, _ := exchange(t, l, "POST", Path+"/"+key+"/replay", string(text))
	return code, answer
}

// TestEdit publishes another body under the same ids, in the shard of its timestamp.
func TestEdit(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		at := time.Date(2021, 5, 6, 7, 8, 9, 0, time.UTC)
		to := shard.Of(at, shards)
		from := (to + 1) % shards
		two := ours(from, 2)
		two.Attributes = map[string]string{"trace": "x"}
		r.die("bad", two, foreign(from, "order-1", `{"timestamp":"yesterday"}`))

		key := keyOf(t, l, two.ID)
		body := strings.ReplaceAll(string(two.Body), "2019-10-12T08:10:54Z", at.Format(time.RFC3339))
		spaced := "\n " + strings.ReplaceAll(body, `,"value"`, ` , "value"`) + "\n\n"
		code, text := edit(t, l, key, spaced)
		if got := read[Replayed](t, text); code != 200 || got.ID != two.ID || got.Shard != to || len(got.Shards) != 1 {
			t.Fatalf("edited: %d %s", code, text)
		}
		stored := r.memory.Stored(to)
		if len(stored) != 1 || string(stored[0].Body) != body || stored[0].Count != 2 || stored[0].Foreign || stored[0].Attributes["trace"] != "x" || stored[0].ID == two.ID {
			t.Errorf("stored %+v, want the new body under another id of the envelope", stored)
		}
		if submission, _, _ := strings.Cut(message.Message{Line: two.Body}.ID(), "."); len(r.moved) != 1 || r.moved[0] != submission {
			t.Errorf("told that %q moved", r.moved)
		}

		key = keyOf(t, l, "order-1")
		if code, text = edit(t, l, key, ` {"timestamp": "2021-05-06T07:08:09Z", "n": 1.0}`); code != 200 || read[Replayed](t, text).ID != "order-1" {
			t.Fatalf("edited: %d %s", code, text)
		}
		stored = r.memory.Stored(to)
		if want := `{"message_id":"order-1","timestamp":"2021-05-06T07:08:09Z","n":1.0}` + "\n"; len(stored) != 2 || string(stored[1].Body) != want {
			t.Errorf("stored %q, want %s", stored[1].Body, want)
		}
		if got := r.left(); len(got) != 0 {
			t.Errorf("%q are left", got)
		}
		if code, text := edit(t, l, key, `{"timestamp":"2021-05-06T07:08:09Z"}`); code != 404 {
			t.Errorf("edited again: %d %s", code, text)
		}
		told := r.events()
		if len(told) != 2 {
			t.Fatalf("told %+v, want both edits", told)
		}
		if c, ok := told[0].(event.DeadLettersChange); !ok || c.Do != "edit" || c.By != "ann" || c.From == "" || c.Letters != 1 || c.IDs[0] != two.ID {
			t.Errorf("told %+v", told)
		}
	})
}

// TestEditKeepsIDs refuses a body that is wrong, or drops or adds a message, and says
// where. Nothing is changed then.
func TestEditKeepsIDs(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		two := ours(1, 2)
		broken := message.Envelope{ID: "broken", Shard: 1, Count: 1, Body: []byte("no id\n")}
		r.die("bad", two, broken, foreign(0, "f", "{}"), foreign(0, `no"id`, "{}"))
		lines := bytes.SplitAfter(two.Body, []byte("\n"))
		first, second := string(lines[0]), string(lines[1])
		id, id2 := message.Message{Line: lines[0]}.ID(), message.Message{Line: lines[1]}.ID()
		big := strings.Repeat("x", message.MaxEntryBytes+1000)
		for name, c := range map[string]struct {
			id, body string
			pointers []string
		}{
			"dropped":        {two.ID, first, []string{""}},
			"empty":          {two.ID, "", []string{"", ""}},
			"twice":          {two.ID, first + first + second, []string{"/1/message_id"}},
			"another":        {two.ID, first + strings.Replace(second, id2, id[:26]+".7", 1), []string{"/1/message_id", ""}},
			"added":          {two.ID, first + second + strings.Replace(second, id2, "mine", 1), []string{"/2/message_id"}},
			"no id":          {two.ID, first + `{"timestamp":"2019-10-12T08:10:54Z"}`, []string{"/1", ""}},
			"id not first":   {two.ID, first + `{"timestamp":"2019-10-12T08:10:54Z","message_id":"` + id2 + `"}`, []string{"/1", ""}},
			"two ids":        {two.ID, first + strings.Replace(second, `"value"`, `"message_id":"x","value"`, 1), []string{"/1/message_id"}},
			"bad timestamp":  {two.ID, first + strings.Replace(second, "2019-10-12T", "2019-10-12 ", 1), []string{"/1/timestamp"}},
			"both bad":       {two.ID, strings.Replace(first, "10-12T", "13-12T", 1) + strings.Replace(second, `"1"`, `1`, 1), []string{"/0/timestamp", "/1/value"}},
			"not JSON":       {two.ID, first + second[:len(second)-3], []string{"/1"}},
			"array":          {two.ID, "[" + strings.TrimSpace(first) + "]", []string{"/0", "", ""}},
			"too long":       {two.ID, first + strings.Replace(second, `"1"`, `"`+big+`"`, 1), []string{"/1"}},
			"duplicate name": {two.ID, first + strings.Replace(second, `"value"`, `"timestamp":"2019-10-12T08:10:54Z","value"`, 1), []string{"/1/timestamp"}},
			"entry array":    {"f", `[{"timestamp":"2019-10-12T08:10:54Z"},{"timestamp":"2019-10-12T08:10:54Z"}]`, []string{""}},
			"entry with id":  {"f", `{"message_id":"f","timestamp":"2019-10-12T08:10:54Z"}`, []string{"/message_id"}},
			"entry of none":  {"f", `{}`, []string{"/timestamp"}},
			"entry too long": {"f", `{"timestamp":"2019-10-12T08:10:54Z","a":"` + big + `"}`, []string{""}},
		} {
			code, text := edit(t, l, keyOf(t, l, c.id), c.body)
			got := read[struct {
				Type   string
				Errors []message.EntryError
			}](t, text)
			var pointers []string
			for _, e := range got.Errors {
				pointers = append(pointers, e.Pointer)
				if e.Detail == "" || len(e.Detail) > 400 {
					t.Errorf("%s: detail %.500q", name, e.Detail)
				}
			}
			if code != 400 || !strings.HasSuffix(got.Type, ":invalid-submission") || fmt.Sprint(pointers) != fmt.Sprint(c.pointers) {
				t.Errorf("%s: %d %.600s, want errors at %q", name, code, text, c.pointers)
			}
		}
		for name, c := range map[string]struct {
			path, body string
			status     int
		}{
			"an id that cannot be read": {keyOf(t, l, "broken") + "/replay", `{"body":"{}"}`, 409},
			"an id that cannot be":      {keyOf(t, l, `no"id`) + "/replay", `{"body":"{\"timestamp\":\"2019-10-12T08:10:54Z\"}"}`, 400},
			"too large":                 {keyOf(t, l, "f") + "/replay", `{"body":"` + strings.Repeat("x", maxBody) + `"}`, 413},
			"no JSON":                   {keyOf(t, l, "f") + "/replay", `{`, 400},
			"no UTF-8":                  {keyOf(t, l, "f") + "/replay", "{\"body\":\"\xff\"}", 400},
			"more behind":               {keyOf(t, l, "f") + "/replay", `{}{}`, 400},
			"unknown member":            {keyOf(t, l, "f") + "/replay", `{"bodi":"x"}`, 400},
			"long reason":               {keyOf(t, l, "f") + "/replay", `{"reason":"` + strings.Repeat("x", maxWhy+1) + `"}`, 400},
			"no key":                    {"../x/replay", `{}`, 404},
			"unknown key":               {strings.Repeat("a", 32) + "/replay", `{}`, 404},
		} {
			if code, text, _ := exchange(t, l, "POST", Path+"/"+c.path, c.body); code != c.status {
				t.Errorf("%s: %d %.300s, want %d", name, code, text, c.status)
			}
		}
		if got := r.left(); len(got) != 4 || r.queued() != 0 || len(r.events()) != 0 {
			t.Errorf("%q are left, %d queued, told %+v", got, r.queued(), r.events())
		}
	})
}

// TestEditIsDurableFirst: a letter is not removed before its edited copy is confirmed.
func TestEditIsDurableFirst(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		two := ours(1, 2)
		r.die("bad", two)
		key := keyOf(t, l, two.ID)
		body := strings.ReplaceAll(string(two.Body), `"value":"0"`, `"value":"new"`)
		for _, f := range []struct {
			failure brokertest.Failure
			kind    string
			queued  int
		}{{brokertest.Refused, "not-published", 0}, {brokertest.Unsaved, "outcome-unknown", 0}, {brokertest.Saved, "outcome-unknown", 1}} {
			r.memory.FailPublish(f.failure)
			// The node's client asks the broker's list of failures, too.
			if code, text := edit(t, l, key, body); code != 503 || !strings.Contains(text, f.kind) {
				t.Errorf("%d %s, want %s", code, text, f.kind)
			}
			if got := r.left(); len(got) != 1 || r.queued() != f.queued {
				t.Fatalf("%q are left, %d queued", got, r.queued())
			}
		}
		if code, text := edit(t, l, key, body); code != 200 || len(r.left()) != 0 {
			t.Errorf("%d %s", code, text)
		}
		var ids []string
		for i := range shards {
			for _, e := range r.memory.Stored(i) {
				ids = append(ids, e.ID)
			}
		}
		if len(ids) != 2 || ids[0] != ids[1] {
			t.Errorf("the same edit has the ids %q, want one", ids)
		}
	})
}

// TestReplayOne puts a letter back as it is.
func TestReplayOne(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		two := ours(1, 2)
		r.die("bad", two, foreign(2, "f", "no JSON"))
		replay := func(l *Letters, id string) (int, string) {
			code, text, _ := exchange(t, l, "POST", Path+"/"+keyOf(t, l, id)+"/replay", "{}")
			return code, text
		}
		readOnly := r.node("b", func(c *Config) { c.ReadOnly = true })
		if code, text := replay(readOnly, two.ID); code != 403 || !strings.Contains(text, "read-only") {
			t.Errorf("read-only: %d %s", code, text)
		}
		r.memory.Block("low on memory")
		if code, text := replay(l, two.ID); code != 503 || !strings.Contains(text, "not-published") || len(r.left()) != 2 {
			t.Errorf("blocked: %d %s, %q left", code, text, r.left())
		}
		r.memory.Block("")
		for _, id := range []string{"f", two.ID} {
			if code, text := replay(l, id); code != 200 {
				t.Errorf("%d %s", code, text)
			}
		}
		if got := r.memory.Stored(2); len(got) != 1 || !got[0].Foreign || got[0].ID != "f" {
			t.Errorf("stored %+v", got)
		}
		if got := r.memory.Stored(1); len(got) != 1 || got[0].ID != two.ID || len(r.left()) != 0 {
			t.Errorf("stored %+v, %q left", got, r.left())
		}
	})
}
