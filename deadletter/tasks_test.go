package deadletter

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker"
)

// TestTaskFlood bounds how many tasks run, and how many are remembered.
func TestTaskFlood(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		r.many(20, "bad")
		var running []Task
		for range maxRunning {
			running = append(running, start(t, l, Order{Do: ActionReplay, Rate: 1, Filter: Filter{Contains: "1"}}))
		}
		code, text, header := exchange(t, l, "POST", Path+"/tasks", `{"do":"replay"}`)
		if code != http.StatusTooManyRequests || header.Get("Retry-After") == "" {
			t.Errorf("one more: %d %s", code, text)
		}
		for _, v := range running {
			if v = await(t, l, v.ID); v.State != Done {
				t.Errorf("%+v", v)
			}
		}
		for range maxTasks + 5 {
			v := start(t, l, Order{Do: ActionPurge, Filter: Filter{IDs: []string{"none"}}})
			await(t, l, v.ID)
		}
		if n := len(l.mine("")); n != maxTasks {
			t.Errorf("%d tasks are remembered", n)
		}
		for _, body := range []string{
			`{"do":"forget"}`, `{}`, `{"do":"purge","rate":10001}`, `{"do":"purge","rate":-1}`, `{"do":"purge","filter":{"shard":-2}}`, `{"do":"purge","filter":{"ids":[""]}}`,
			`{"do":"purge","filter":{"where":"x"}}`, `{"do":"purge","filter":3}`, `{"do":"purge","as_of":"yesterday"}`, `{"do":"purge","as_of":"0000-01-01T00:00:00+23:59"}`, `{"do":"purge","reason":"` + strings.Repeat("x", 501) + `"}`, `[]`, ``,
		} {
			if code, text, _ := exchange(t, l, "POST", Path+"/tasks", body); code != 400 {
				t.Errorf("%s: %d %s", body, code, text)
			}
		}
		if code, text, _ := exchange(t, l, "POST", Path+"/tasks", `{"do":"`+strings.Repeat("x", maxBody)+`"}`); code != 413 {
			t.Errorf("a large body: %d %.200s", code, text)
		}
		for _, method := range []string{"PUT", "PATCH", "DELETE", "POST"} {
			if code, _, _ := exchange(t, l, method, Path, ""); code != 404 {
				t.Errorf("%s: %d", method, code)
			}
		}
	})
}

// TestReadOnly changes nothing, and shows all.
func TestReadOnly(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l, other := r.node("a", func(c *Config) { c.ReadOnly = true }), r.node("b", nil)
		r.many(3, "bad")
		v := start(t, other, Order{Do: ActionReplay, Rate: 1})
		for method, path := range map[string]string{"POST": "/tasks", "DELETE": "/tasks/" + v.ID} {
			if code, text, _ := exchange(t, l, method, Path+path, `{"do":"purge"}`); code != 403 {
				t.Errorf("%s: %d %s", method, code, text)
			}
		}
		if code, text, _ := exchange(t, l, "POST", Path+"/tasks", `{"do":"purge","preview":true}`); code != 200 {
			t.Errorf("preview: %d %s", code, text)
		}
		if v := await(t, l, v.ID); v.State != Done || v.Node != "b" {
			t.Errorf("%+v", v)
		}
	})
}

// TestTasksOfAllNodes lists those of every node, and says when one does not answer.
// Nothing that is on the bus is trusted.
func TestTasksOfAllNodes(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		a, b := r.node("a", nil), r.node("b", nil)
		r.many(4, "bad")
		first := start(t, a, Order{Do: ActionReplay, Filter: Filter{Contains: "1"}})
		time.Sleep(time.Second)
		second := start(t, b, Order{Do: ActionPurge, Filter: Filter{Contains: "2"}})
		await(t, a, second.ID)
		_, text, _ := exchange(t, a, "GET", Path+"/tasks", "")
		list := read[Tasks](t, text)
		if !list.Complete || list.Node != "a" || len(list.Tasks) != 2 || list.Tasks[0].ID != second.ID || list.Tasks[1].ID != first.ID || list.Tasks[0].Node != "b" {
			t.Errorf("listed %s", text)
		}
		r.mu.Lock()
		r.nodes++ // one that is silent
		r.mu.Unlock()
		stop := r.memory.Answer(tasksTopic, func([]byte) []byte {
			return []byte(`{"v":1,"node":"liar","seq":1,"tasks":[{"id":"forged","node":"a"},{"id":"` + strings.Repeat("x", 5000) + `","node":"liar"}]}`)
		})
		stop2 := r.memory.Answer(tasksTopic, func([]byte) []byte { return []byte(`{"v":1,"node":3`) })
		list = a.allTasks(t.Context())
		if len(list.Tasks) != 3 {
			t.Errorf("listed %+v", list)
		}
		for _, v := range list.Tasks {
			if v.ID == "forged" || len(v.ID) > maxText {
				t.Errorf("believed %.100s", v.ID)
			}
		}
		stop()
		stop2()
		began := time.Now()
		if list = a.allTasks(t.Context()); list.Complete || len(list.Tasks) != 2 || time.Since(began) > 2*broker.AskTimeout {
			t.Errorf("listed %+v after %v", list, time.Since(began))
		}
		if got := a.answerCancel([]byte(`{"v":1,"node":"b","id":"`)); got != nil {
			t.Errorf("answered %s", got)
		}
	})
}
