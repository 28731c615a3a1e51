package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"async-data-processor/dashboard/openapitest"
)

// TestCommandList pages through the last commands, the newest first, without what each shard
// has said.
func TestCommandList(t *testing.T) {
	c := NewCommands(CommandConfig{Node: "a", Shards: 3})
	get := func(query string) (int, CommandsAnswer) {
		t.Helper()
		w := httptest.NewRecorder()
		openapitest.Handler(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.Serve(w, r, "") })).ServeHTTP(w,
			httptest.NewRequest(http.MethodGet, CommandPath+query, nil))
		var a CommandsAnswer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		if strings.Contains(w.Body.String(), `"shards":`) || strings.Contains(w.Body.String(), `null`) {
			t.Errorf("%s", w.Body)
		}
		return w.Code, a
	}
	if code, a := get(""); code != http.StatusOK || len(a.Commands) != 0 || a.Node != "a" || !a.Complete || a.AsOf.IsZero() {
		t.Errorf("%d %+v", code, a)
	}
	for i := range maxCommands + 10 {
		c.mu.Lock()
		c.remember(Command{ID: fmt.Sprint(i), Verb: "flush", Target: "shard:*"}, []int{0, 1, 2})
		c.mu.Unlock()
	}
	seen, pages, after := 0, 0, ""
	for next := maxCommands + 9; ; pages++ {
		code, a := get("?limit=300&after=" + after)
		if code != http.StatusOK {
			t.Fatal(code)
		}
		for _, row := range a.Commands {
			if row.ID != fmt.Sprint(next) {
				t.Fatalf("%s after %d", row.ID, next+1)
			}
			seen, next = seen+1, next-1
		}
		if after = a.Next; after == "" {
			break
		}
	}
	if seen != maxCommands || pages != 3 {
		t.Errorf("%d commands on %d pages and one", seen, pages)
	}
	if _, a := get(""); len(a.Commands) != defaultCommands || a.Next == "" {
		t.Errorf("%d commands, next %q", len(a.Commands), a.Next)
	}
	if _, a := get("?after=0"); len(a.Commands) != 0 || a.Next != "" {
		t.Errorf("before one that is forgotten: %+v", a)
	}
	for _, bad := range []string{"0", "-1", "1001", "x", ""} {
		if code, _ := get("?limit=" + bad); code != http.StatusBadRequest {
			t.Errorf("limit %q: %d", bad, code)
		}
	}
	const id = "1009"
	if a := c.List("", 2); len(a.Rows()) != 2 || a.Rows()[0].Key != `"`+id+`"` || !strings.Contains(string(a.Rows()[0].Text()), `"verb":"flush"`) {
		t.Errorf("%+v", a.Rows())
	}
	c.settle(Outcome{ID: id, Shard: 1, Node: "b", After: "running"})
	if _, a := get("?limit=1"); a.Commands[0].State != "waiting" || a.Commands[0].ShardsDone != 1 || a.Commands[0].ShardsTotal != 3 {
		t.Errorf("%+v", a.Commands[0])
	}
	c.settle(Outcome{ID: id, Shard: 0, Node: "b", Error: "no space"})
	if _, a := get("?limit=1"); a.Commands[0].State != "failed" || a.Commands[0].Error != "no space" {
		t.Errorf("%+v", a.Commands[0])
	}
}

// TestIntakeInTheList: a command to the intake counts the servers.
func TestIntakeInTheList(t *testing.T) {
	r := &record{Command: Command{Target: intakeTarget}, done: make(chan struct{}), silent: 1, servers: map[string]ShardOutcome{"b": {}, "a": {Error: "read-only"}}}
	if row := r.row(); row.State != "failed" || row.ShardsDone != 2 || row.ShardsTotal != 3 || row.Error != "read-only" {
		t.Errorf("%+v", row)
	}
}
