package pipeline

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"async-data-processor/control"
	"async-data-processor/event"
	"async-data-processor/live"
)

// locate asks where a message is.
func (w *works) locate(base, id, token string) (l live.Location) {
	w.t.Helper()
	code, _, text := w.request("GET", base+live.MessagePath+url.PathEscape(id), token, nil)
	if err := json.Unmarshal([]byte(text), &l); err != nil || code != http.StatusOK {
		w.t.Fatalf("%s: %d %s, %v", id, code, text, err)
	}
	return l
}

// TestWhereIsIt finds a posted message, and one of another program, in their files; at both
// listeners, for those who may view.
func TestWhereIsIt(t *testing.T) {
	w := newWorks(t, func(c *Config) {
		c.AuthTokens, c.ViewTokens, c.AdminTokens = []string{"submits"}, []string{"views"}, []string{"admin"}
	})
	submission := strings.TrimPrefix(w.submitted("submits"), "/submissions/")
	const foreign = "a/b?c%2F#d=é"
	w.memory.PublishForeign(1, "a/b?c%2F#d=", []byte(body("a")[1:len(body("a"))-1]))
	w.eventually("the foreign file", func() bool {
		return w.locate(w.base, "a/b?c%2F#d=", "views").State == live.WhereWritten
	})
	for _, base := range []string{w.base, w.adminBase()} {
		for _, path := range []string{live.MessagePath + submission + ".0", settingsPath, control.CommandPath} {
			w.opens(base+path, map[string]int{"": 401, "x": 401, "submits": 403, "views": 200, "admin": 200})
		}
		for _, id := range []string{submission + ".0", "a/b?c%2F#d="} {
			l := w.locate(base, id, "views")
			if l.State != live.WhereWritten || l.File == nil || l.Line == nil || l.Shard == nil || !l.Complete || l.Owner == nil || *l.Owner != l.Node {
				t.Fatalf("%s: %+v", id, l)
			}
			text, err := os.ReadFile(filepath.Join(w.cfg.OutputDir, *l.File))
			if err != nil || *l.Line != 1 || !strings.HasPrefix(string(text), `{"message_id":"`+id+`"`) {
				t.Errorf("%s is not in line %d of %s: %s, %v", id, *l.Line, *l.File, text, err)
			}
		}
		if l := w.locate(base, submission, "views"); l.State != live.WhereNotKnown || l.Submission == nil || *l.Submission != submission || !strings.Contains(*l.Why, "receipt") {
			t.Errorf("a submission: %+v", l)
		}
		if code, _, text := w.request("GET", base+live.MessagePath+url.PathEscape(foreign), "views", nil); code != http.StatusBadRequest || !strings.Contains(text, "invalid-id") {
			t.Errorf("a bad id: %d %s", code, text)
		}
	}
	for _, f := range w.visible() {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if l := w.locate(w.base, submission+".0", "views"); l.State != live.WhereWritten || l.File != nil || l.Why == nil || !strings.Contains(*l.Why, "moved away") {
		t.Errorf("its file was moved away: %+v", l)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// visible returns the visible files of all shards.
func (w *works) visible() []string {
	names, _ := filepath.Glob(filepath.Join(w.cfg.OutputDir, "shard-*", "*.ndjson"))
	return names
}

// TestWhyItWaits: the sentence names the shards that do not advance, and why.
func TestWhyItWaits(t *testing.T) {
	n := func(n int) *int { return &n }
	all := []control.ShardView{
		{Shard: 0, State: event.ShardRunning, Queued: n(2), Part: &control.ShardPart{}},
		{Shard: 1, State: event.ShardPaused, Queued: n(3), Part: &control.ShardPart{Pause: &control.Pause{Why: "moving", By: "ann"}}},
		{Shard: 2, State: control.ShardUnowned, Queued: n(1)},
		{Shard: 3, State: control.ShardUnknown, Queued: n(1)},
		{Shard: 4, State: event.ShardRetrying, Queued: n(1), Part: &control.ShardPart{Why: "no space"}},
		{Shard: 5, State: event.ShardRunning, Part: &control.ShardPart{Held: 1}},
	}
	for _, c := range []struct {
		of      []int
		want    int
		trouble string
	}{
		{[]int{0}, 2, ""},
		{[]int{0, 1}, 5, "shard 1 is paused since 0001-01-01T00:00:00Z by ann: moving"},
		{[]int{2, 3}, 2, "no message-consumer owns shard 2; the owner of shard 3 does not answer"},
		{[]int{4, 5}, -1, "shard 4 is retrying: no space; the output does not take what the workers of shard 5 have"},
		{nil, -1, "shard 1 is paused since 0001-01-01T00:00:00Z by ann: moving; no message-consumer owns shard 2; the owner of shard 3 does not answer; so it is with 2 more shards"},
	} {
		if got, trouble := queuesOf(all, c.of); got != c.want || trouble != c.trouble {
			t.Errorf("%v: %d, %q, want %d, %q", c.of, got, trouble, c.want, c.trouble)
		}
	}
}

// TestCommandsInAStream: who looks at the commands is told of a new one.
func TestCommandsInAStream(t *testing.T) {
	w := newWorks(t, nil)
	resp, err := http.Get(w.base + eventsPath + "?parts=commands")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	w.command(`{"id":"mine","verb":"flush","target":"shard:1"}`)
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if strings.Contains(lines.Text(), `"part":"commands"`) && strings.Contains(lines.Text(), `{"id":"mine","verb":"flush",`) && strings.Contains(lines.Text(), `"shards_done":1,"shards_total":1`) {
			break
		}
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}
