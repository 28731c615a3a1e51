package pipeline

import (
	"encoding/json"
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
	answer, text := w.ask("POST", w.base+control.CommandPath, "", body, "Content-Type", "application/json")
	var v control.CommandView
	_ = json.Unmarshal([]byte(text), &v)
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
	taken, _ := w.ask("POST", w.base+"/message", "", body("a", "b", "c"), "Content-Type", "application/json")
	if taken.StatusCode != http.StatusCreated {
		t.Errorf("a submission while shards are paused: %d", taken.StatusCode)
	}
	if _, text := w.status(taken.Header.Get("Location")); !strings.Contains(text, `"paused":[{"shards":[`) || !strings.Contains(text, `],"reason":"maintenance"}]`) {
		t.Errorf("the receipt is %s", text)
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
		`{"verb":"pause","target":"shard:7"}`:                            http.StatusBadRequest,
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

// TestIntakeCommand pauses the intake by HTTP: submissions are refused, the process stays
// ready and says so, until the intake is resumed.
func TestIntakeCommand(t *testing.T) {
	w := newWorks(t, func(c *Config) { c.Shards = 1 })
	gauge := func() string {
		_, text := w.status("/metrics")
		for line := range strings.Lines(text) {
			if value, ok := strings.CutPrefix(line, "adp_intake_paused "); ok {
				return strings.TrimSpace(value)
			}
		}
		return "absent"
	}
	if got := gauge(); got != "0" {
		t.Errorf("adp_intake_paused is %s at first", got)
	}
	code, v := w.command(`{"verb":"pause","target":"intake","reason":"maintenance"}`)
	if code != http.StatusOK || v.State != "done" || len(v.Servers) != 1 || v.Waiting != 0 {
		t.Fatalf("pause: %d %+v", code, v)
	}
	if code := w.post(body("a")); code != http.StatusServiceUnavailable {
		t.Errorf("a submission while the intake is paused: %d", code)
	}
	if code, text := w.status("/readyz?verbose"); code != http.StatusOK {
		t.Errorf("the process is not ready: %d %s", code, text)
	}
	if got := gauge(); got != "1" {
		t.Errorf("adp_intake_paused is %s", got)
	}
	if _, text := w.status("/api/v1/overview"); !strings.Contains(text, `"intake":{"paused":1}`) {
		t.Errorf("the overview is %s", text)
	}
	for _, text := range []string{"command received", "the intake is paused"} {
		if !w.logged(text) {
			t.Errorf("the log lacks %q", text)
		}
	}
	if code, v = w.command(`{"verb":"resume","target":"intake"}`); code != http.StatusOK {
		t.Errorf("resume: %d %+v", code, v)
	}
	if code := w.post(body("b")); code != http.StatusCreated {
		t.Errorf("a submission after that: %d", code)
	}
	w.eventually("the entry", func() bool { return len(w.values()) == 1 })
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
