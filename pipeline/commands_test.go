package pipeline

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"async-data-processor/control"
)

// command posts a command, and returns the answer.
func (w *works) command(body string) (int, control.CommandView) {
	w.t.Helper()
	answer, err := http.Post(w.base+control.CommandPath, "application/json", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	var v control.CommandView
	_ = json.Unmarshal(text, &v)
	if answer.StatusCode >= 400 {
		w.t.Logf("%s: %d %s", body, answer.StatusCode, text)
	}
	return answer.StatusCode, v
}

// TestCommands takes commands by HTTP: a paused process stays ready, writes nothing, and
// accepts entries; resumed, it writes them.
func TestCommands(t *testing.T) {
	w := newWorks(t, func(c *Config) { c.Shards = 2 })
	code, v := w.command(`{"verb":"pause","target":"shard:*","reason":"maintenance"}`)
	if code != http.StatusOK || v.State != "done" || len(v.Shards) != 2 || !strings.HasPrefix(v.Shards["1"].After, "paused") {
		t.Fatalf("pause: %d %+v", code, v)
	}
	for _, text := range []string{"command received", "command taken", "command applied", "the shard is paused"} {
		if !w.logged(text) {
			t.Errorf("the log lacks %q", text)
		}
	}
	if code := w.post(body("a", "b", "c")); code != http.StatusCreated {
		t.Errorf("a submission while shards are paused: %d", code)
	}
	time.Sleep(1500 * time.Millisecond)
	if files, _ := filepath.Glob(filepath.Join(w.cfg.OutputDir, "*", "*.ndjson")); len(files) > 0 {
		t.Errorf("a paused process has written %q", files)
	}
	if code, text := w.status("/readyz?verbose"); code != http.StatusOK {
		t.Errorf("a paused process is not ready: %d %s", code, text)
	}
	if code, v = w.command(`{"verb":"resize","target":"shard:1","args":{"min":2,"max":9}}`); code != http.StatusOK || v.Shards["1"].After != "paused, 2 to 9 workers" {
		t.Errorf("resize: %d %+v", code, v)
	}
	for body, want := range map[string]int{
		`{"verb":"resize","target":"shard:1","args":{"min":2,"max":33}}`: http.StatusBadRequest,
		`{"verb":"pause","target":"shard:7"}`:                            http.StatusAccepted,
		`{"verb":"resume","target":"shard:*"}`:                           http.StatusOK,
	} {
		if code, _ := w.command(body); code != want {
			t.Errorf("%s: %d, want %d", body, code, want)
		}
	}
	w.eventually("written entries", func() bool { return len(w.values()) == 3 })
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// TestReadOnlyProcess takes no command.
func TestReadOnlyProcess(t *testing.T) {
	w := newWorks(t, func(c *Config) { c.ReadOnly = true })
	if code, _ := w.command(`{"verb":"pause","target":"shard:*"}`); code != http.StatusForbidden {
		t.Errorf("a read-only process: %d", code)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}
