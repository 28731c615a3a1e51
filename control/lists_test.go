package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/broker"
	"async-data-processor/dashboard/openapitest"
)

// pages reads a list to its end, and returns the rows and how many pages there were.
func pages[T any](t *testing.T, n *testNode, path, name string) (rows []T, count int) {
	t.Helper()
	for after := ""; ; count++ {
		answer := get[map[string]json.RawMessage](t, n, path+"&after="+after)
		var page []T
		if err := json.Unmarshal(answer[name], &page); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, page...)
		if len(answer["next"]) == 0 {
			return rows, count + 1
		}
		if string(answer["complete"]) != "true" || json.Unmarshal(answer["next"], &after) != nil || len(page) == 0 || count > 1000 {
			t.Fatalf("page %d: %.500s", count, answer)
		}
	}
}

// TestListsPage: a page has as many rows as it may, and says where the next one begins.
func TestListsPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		nodes := []*testNode{s.node(), s.node(), s.node("server")}
		after(10 * time.Second)
		for _, n := range nodes {
			if rows, pages := pages[ShardView](t, n, "/api/v1/shards?limit=3", "shards"); len(rows) != 10 || pages != 4 || rows[9].Shard != 9 {
				t.Errorf("%d shards on %d pages", len(rows), pages)
			}
			if rows, pages := pages[NodeView](t, n, "/api/v1/nodes?limit=2", "nodes"); len(rows) != 3 || pages != 2 {
				t.Errorf("%d nodes on %d pages", len(rows), pages)
			}
			rows, pages := pages[WorkerView](t, n, "/api/v1/workers?limit=3", "workers")
			if len(rows) != 20 || pages != 7 || !slices.IsSortedFunc(rows, func(a, b WorkerView) int { return a.Shard - b.Shard }) {
				t.Errorf("%d workers on %d pages", len(rows), pages)
			}
			if rows := get[WorkersAnswer](t, n, "/api/v1/workers?shard=4").Workers; len(rows) != 2 || rows[0].Shard != 4 || rows[0].Key != rows[0].Node+"/4-1" {
				t.Errorf("workers of shard 4: %+v", rows)
			}
		}
		for _, n := range nodes {
			n.end()
		}
	})
}

// history is many workers of some shards, most of which have ended.
func history(shards, each int) (all []WorkerPart) {
	ended := start
	for shard := range shards {
		for i := range each {
			w := WorkerPart{
				Worker: fmt.Sprint(shard, "-", i), Shard: shard, State: "idle", Started: start, WhyStarted: "batches wait" + strings.Repeat(" ", 200),
				LastFile: fmt.Sprintf("shard-%d/%d-%d_01M8MMMR2SA3MTKWDJK7CHJR36.ndjson", shard, shard, i),
			}
			if i < each-4 {
				w.State, w.Stopped, w.WhyStopped = "stopped", &ended, "idle for 1m0s"
			}
			all = append(all, w)
		}
	}
	return all
}

// TestWorkersAll: no worker is left out, however many there are: 1,024 shards with 4 that
// live and 4 that have ended, which a body of the bus cannot hold. Another node has those of
// half of the shards, too.
func TestWorkersAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b := s.node(), s.node()
		all := history(1024, 8)
		a.cfg.Workers = func() []WorkerPart { return all }
		b.cfg.Workers = func() []WorkerPart { return all[len(all)/2:] }
		after(10 * time.Second)
		for query, want := range map[string]int{"?": 4096 + 2048, "?history=1": 8192 + 4096, "?history=1&shard=7": 8, "?history=1&shard=700": 16} {
			rows, pages := pages[WorkerView](t, a, "/api/v1/workers"+query, "workers")
			seen := make(map[string]bool)
			for _, w := range rows {
				seen[w.Key] = true
			}
			if len(rows) != want || len(seen) != want || pages > want/400+2 {
				t.Errorf("%s: %d workers, %d different, on %d pages, want %d", query, len(rows), len(seen), pages, want)
			}
		}
		a.end()
		b.end()
	})
}

// TestWorkersSum: what several pools of a shard have summed up is one row.
func TestWorkersSum(t *testing.T) {
	n := New(Config{Shards: 1, Workers: func() []WorkerPart {
		return []WorkerPart{{Worker: "0-0", Messages: 1}, {Worker: "0-7", Messages: 5}, {Worker: "0-0", Messages: 2, LastFile: "f"}}
	}})
	rows, _ := n.Workers.look()
	if len(rows) != 2 || rows[0].Worker != "0-0" || rows[0].Messages != 3 || rows[0].LastFile != "f" || rows[1].Messages != 5 {
		t.Errorf("got %+v", rows)
	}
}

// TestWorkersHostileAnswers: what is no answer to the question changes nothing, and never
// has a client ask for the same page again.
func TestWorkersHostileAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a := s.node()
		after(time.Second)
		begin := `{"v":1,"node":"b",`
		for i, text := range []string{
			"", "[]", `{"v":2}`, `{"v":1,"node":"x","workers":[{"worker":"3-1","shard":3}]}`, strings.Repeat("[", 200_000),
			begin + `"more":true}`, begin + `"workers":[{"worker":"3-1","shard":2}]}`, begin + `"workers":[{"worker":"x","shard":0}]}`,
			begin + `"workers":[{"worker":"3-2","shard":3},{"worker":"3-1","shard":3}]}`, begin + `"workers":[{"worker":"0-1","shard":0}]}`,
			begin + `"workers":[{"worker":"-1","shard":0}]}`, begin + `"workers":[` + strings.Repeat("{},", 2*MaxPage) + `{}]}`,
		} {
			beat := fmt.Sprintf(`{"v":1,"node":"b","seq":%d,"kind":"beat"}`, i+1)
			if err := s.memory.Tell(nodesTopic, []byte(beat)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			stop := s.memory.Answer(workersTopic, func([]byte) []byte { return []byte(text) })
			got, err := a.Workers.Page(WorkerQuery{After: a.ID() + "/1-1", Limit: 100})
			if err != nil || len(got.Workers) != 17 || got.Complete || got.Next != "" {
				t.Errorf("%.80s: %d workers, complete %v, next %q, %v", text, len(got.Workers), got.Complete, got.Next, err)
			}
			stop()
		}
		for _, text := range []string{"", "[]", `{"v":2}`, `{"v":1,"after":"x"}`, `{"v":1,"after":"/1-1"}`, `{"v":1,"after":"n/1-x"}`, strings.Repeat("[", 200_000)} {
			if answer := a.Workers.answer([]byte(text)); answer != nil {
				t.Errorf("%.80s has the answer %.100s", text, answer)
			}
		}
		if answer := a.Workers.answer([]byte(`{"v":1,"limit":-5}`)); len(answer) > broker.MaxBusBody {
			t.Errorf("an answer of %d bytes", len(answer))
		}
		a.end()
	})
}

// TestWorkersFlood: many requests ask the nodes a few times a second, and are refused
// rather than queued.
func TestWorkersFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t)
		a, b := s.node(), s.node()
		after(5 * time.Second)
		codes := make(chan int, 1000)
		for i := range 1000 {
			go func() {
				w := httptest.NewRecorder()
				a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, fmt.Sprint("/api/v1/workers?shard=", i%testShards), nil))
				codes <- w.Code
			}()
		}
		after(2 * time.Second)
		count := make(map[int]int)
		for range 1000 {
			count[<-codes]++
		}
		if count[http.StatusOK] < 20 || count[http.StatusOK] > 48 || count[http.StatusTooManyRequests] != 1000-count[http.StatusOK] {
			t.Errorf("answers by status: %v", count)
		}
		a.end()
		b.end()
	})
}

// TestListsQuery: a query that is wrong is a problem that names it.
func TestListsQuery(t *testing.T) {
	n := New(Config{Shards: testShards, Part: func() Part { return Part{} }, Backlogs: func(context.Context, int) ([]broker.Backlog, error) { return nil, nil }})
	for query, name := range map[string]string{
		"overview?x=1": `"x"`, "nodes?shard=1": `"shard"`, "shards?limit=0": "limit", "shards?limit=1025": "limit", "shards?limit=": "limit", "shards?limit=1&limit=2": "limit",
		"shards?after=x": "after", "shards?after=-1": "after", "shards?after=9999": "after", "shards?history=1": `"history"`, "workers?history=x": "history",
		"workers?shard=-1": "shard", "workers?shard=2048": "shard", "workers?after=x": "after", "workers?after=/1-1": "after", "workers?after=n/1": "after",
		"workers?a=%zz": "encoded", "nodes?after=" + strings.Repeat("x", 64<<10): "bytes",
	} {
		w := httptest.NewRecorder()
		openapitest.Handler(t, n).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/"+query, nil))
		var p struct{ Type, Detail string }
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusBadRequest || !strings.HasSuffix(p.Type, ":invalid-query") || !strings.Contains(p.Detail, name) {
			t.Errorf("%.50s: %d %s, want a problem that names %s", query, w.Code, w.Body, name)
		}
	}
}
