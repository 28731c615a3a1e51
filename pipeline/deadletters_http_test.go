package pipeline

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/deadletter"
	"async-data-processor/message"
	"async-data-processor/shard"
)

// letters returns the dead letters that are listed, with a token.
func (w *works) letters(base, token, query string) (list deadletter.List) {
	w.t.Helper()
	code, _, text := w.request("GET", base+deadletter.Path+query, token, nil)
	if err := json.Unmarshal([]byte(text), &list); err != nil || code != http.StatusOK {
		w.t.Fatalf("%d %s", code, text)
	}
	return list
}

// TestMend mends a dead message of a submission by HTTP. Its line is then in the file of
// its new timestamp's shard, and the receipt of the submission is complete.
func TestMend(t *testing.T) {
	w := newWorks(t, func(c *Config) { c.Shards = 4 })
	at := time.Date(2021, 5, 6, 7, 8, 9, 0, time.UTC)
	from := (shard.Of(at, 4) + 1) % 4
	id := message.WithCount(message.NewID(), 2)
	good := fmt.Sprintf(`{"message_id":"%s.0","timestamp":"2019-10-12T08:10:54Z","value":"good"}`, id)
	bad := fmt.Sprintf(`{"message_id":"%s.1","timestamp":"2019-10-12T08:10:54Z","value":"bad`, id)
	err := brokertest.Publish(t.Context(), w.memory, message.Envelope{ID: message.NewID(), Shard: from, Count: 2, Body: []byte(good + "\n" + bad + "\n")})
	if err != nil {
		t.Fatal(err)
	}
	var list deadletter.List
	w.eventually("dead letter", func() bool { list = w.letters(w.base, "", ""); return len(list.Letters) == 1 })
	dead := list.Letters[0]
	if dead.ID != id+".1" || *dead.Shard != from || !list.Complete {
		t.Errorf("listed %+v", list)
	}
	receipt := func() string {
		_, _, text := w.request("GET", w.base+"/submissions/"+id, "", nil)
		return text
	}
	w.eventually("receipt of it", func() bool { return strings.Contains(receipt(), `"written":1,"dead":1`) })
	w.eventually("sum of dead letters", func() bool {
		_, _, text := w.request("GET", w.base+"/api/v1/overview", "", nil)
		return strings.Contains(text, `"duplicates":0,"dead":1`)
	})
	place := w.base + deadletter.Path + "/" + dead.Key
	if code, text := w.change("POST", place+"/replay", "", `{"body":`+quoted(bad+`"}`)+`}`); code != http.StatusOK {
		t.Fatalf("mended: %d %s", code, text)
	}
	w.eventually("whole receipt", func() bool { return strings.Contains(receipt(), `"written":2,"dead":0,"pending":0,"done":true`) })
	if code, _, text := w.request("GET", place, "", nil); code != http.StatusNotFound {
		t.Errorf("it is still there: %d %s", code, text)
	}
	if !w.logged(`"do":"edit"`) || !w.logged(dead.Key) {
		t.Error("the log lacks the change")
	}

	// One of another program, whose timestamp decides where it goes.
	w.memory.PublishForeign(from, "order-1", []byte(`{"timestamp":"yesterday","value":"theirs"}`))
	w.eventually("dead letter", func() bool { list = w.letters(w.base, "", "?foreign=true"); return len(list.Letters) == 1 })
	place = w.base + deadletter.Path + "/" + list.Letters[0].Key
	if code, text := w.change("POST", place+"/replay", "", `{"body":"{\"timestamp\":\"yesterday\"}"}`); code != http.StatusBadRequest || !strings.Contains(text, `"pointer":"/timestamp"`) {
		t.Errorf("still bad: %d %s", code, text)
	}
	if code, text := w.change("POST", place+"/replay", "", `{"body":"{\"timestamp\":\"2021-05-06T07:08:09Z\",\"value\":\"theirs\"}"}`); code != http.StatusOK {
		t.Errorf("mended: %d %s", code, text)
	}
	w.eventually("all values", func() bool { return len(w.values()) == 3 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

func quoted(text string) string {
	b, _ := json.Marshal(text)
	return string(b)
}

// TestLettersAccess: viewers see, and admins change, at every listener.
func TestLettersAccess(t *testing.T) {
	w := newWorks(t, func(c *Config) {
		c.AuthTokens, c.ViewTokens, c.AdminTokens = []string{"submits"}, []string{"views"}, []string{"ops:admin"}
	})
	w.memory.PublishForeign(0, "order-1", []byte(`no JSON`))
	var list deadletter.List
	w.eventually("dead letter", func() bool { list = w.letters(w.base, "views", ""); return len(list.Letters) == 1 })
	key := list.Letters[0].Key
	for _, base := range []string{w.base, w.adminBase()} {
		for _, path := range []string{"", "/groups", "/tasks", "/" + key} {
			w.opens(base+deadletter.Path+path, map[string]int{"": 401, "x": 401, "submits": 403, "views": 200, "admin": 200})
		}
		for path, method := range map[string]string{"/" + key + "/replay": "POST", "/tasks": "POST", "/tasks/x": "DELETE"} {
			for token, want := range map[string]int{"": 401, "x": 401, "submits": 403, "views": 403} {
				if code, text := w.change(method, base+deadletter.Path+path, token, `{"do":"purge"}`); code != want {
					t.Errorf("%s %s with %q: %d %s, want %d", method, path, token, code, text, want)
				}
			}
		}
		_, cookies, _ := w.request("POST", base+"/session", "admin", nil)
		if code, _, text := w.request("POST", base+deadletter.Path+"/tasks", "", cookies, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"); code != http.StatusForbidden {
			t.Errorf("another page has changed: %d %s", code, text)
		}
	}
	if got := w.letters(w.base, "views", ""); len(got.Letters) != 1 || got.Letters[0].Key != key {
		t.Errorf("listed %+v", got)
	}
	if code, text := w.change("POST", w.base+deadletter.Path+"/tasks", "admin", `{"do":"purge"}`); code != http.StatusAccepted {
		t.Errorf("%d %s", code, text)
	}
	w.eventually("purge", func() bool { return len(w.letters(w.base, "views", "").Letters) == 0 })
	if !w.logged(`"do":"purge"`) || !w.logged(`"by":"ops"`) {
		t.Error("the log lacks who it was")
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestLettersRedacted: what is masked elsewhere is masked here.
func TestLettersRedacted(t *testing.T) {
	w := newWorks(t, func(c *Config) { c.LiveRedact = []string{"/card"} })
	w.memory.PublishForeign(0, "order-1", []byte(`{"card":"4711","value":3}`))
	var list deadletter.List
	w.eventually("dead letter", func() bool { list = w.letters(w.base, "", ""); return len(list.Letters) == 1 })
	_, _, text := w.request("GET", w.base+deadletter.Path+"/"+list.Letters[0].Key, "", nil)
	if strings.Contains(text, "4711") || !strings.Contains(text, `"editable":false`) || !strings.Contains(text, "LIVE_REDACT") {
		t.Errorf("shown: %s", text)
	}
	if got := w.letters(w.base, "", "?contains=4711"); len(got.Letters) != 0 {
		t.Errorf("found by what is masked: %+v", got)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}
