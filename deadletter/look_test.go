package deadletter

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"async-data-processor/message"
)

// TestList pages through dead letters, whatever is removed meanwhile, and filters them.
func TestList(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		for i := range 10 {
			r.die("too late", foreign(i%2, fmt.Sprint("f", i), fmt.Sprintf(`{"secret":%d}`, i)))
			time.Sleep(time.Second)
		}
		two := ours(3, 2)
		r.die("bad line", two)
		var seen []string
		after := ""
		for pages := 0; ; pages++ {
			code, text, _ := exchange(t, l, "GET", Path+"?limit=3&after="+url.QueryEscape(after), "")
			page := read[List](t, text)
			if code != 200 || !page.Complete || page.Node != "a" || len(page.Letters) > 3 || page.AsOf.IsZero() {
				t.Fatalf("a page: %d %s", code, text)
			}
			for _, x := range page.Letters {
				seen = append(seen, x.ID)
			}
			if pages == 0 { // the last one that was listed goes
				purge := start(t, l, Order{Do: ActionPurge, Filter: Filter{IDs: []string{"f2"}}})
				if v := await(t, l, purge.ID); v.State != Done || v.Done != 1 {
					t.Fatalf("%+v", v)
				}
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if want := 11; len(seen) != want || seen[10] != two.ID || !slices.IsSorted(seen[:10]) {
			t.Errorf("listed %q, want %d in their order", seen, want)
		}
		id := message.Message{Line: two.Body}.ID()
		for query, want := range map[string]int{
			"": 10, "reason=too+late": 9, "reason=too": 0, "shard=1": 5, "shard=2": 0, "shard=-1": 0, "foreign=false": 1, "foreign=true": 9,
			"contains=%22secret%22:5": 1, "id=f3&id=f4&id=none": 2, "id=" + two.ID: 1, "id=" + id: 1, "shard=1&foreign=false": 0,
			"before=" + time.Now().Add(-8500*time.Millisecond).UTC().Format(time.RFC3339Nano): 2,
		} {
			code, text, _ := exchange(t, l, "GET", Path+"?"+query, "")
			if got := read[List](t, text); code != 200 || len(got.Letters) != want {
				t.Errorf("%s: %d, %d letters, want %d", query, code, len(got.Letters), want)
			}
		}
		for _, query := range []string{
			"shard=x", "shard=-2", "foreign=perhaps", "before=yesterday", "limit=0", "limit=1001", "limit=x", "after=x", "after=1.2",
			"contains=" + strings.Repeat("x", maxContains+1), "id=", "id=" + strings.Repeat("x", 1000), strings.Repeat("id=x&", maxIDs) + "id=x", "reason=" + strings.Repeat("x", 2000),
			"reasn=bad", "shard=1&shard=2", "reason=100%", "ids=f1",
		} {
			if code, text, _ := exchange(t, l, "GET", Path+"?"+query, ""); code != 400 || !strings.Contains(text, "invalid-query") {
				t.Errorf("%.50s: %d %.100s", query, code, text)
			}
		}
	})
}

// TestGroups counts by reason, most first.
func TestGroups(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		began := time.Now()
		for i := range 7 {
			r.die("common", foreign(i%3, fmt.Sprint(i), "{}"))
			time.Sleep(time.Second)
		}
		r.die("rare", ours(3, 5))
		r.die("", foreign(0, "x", "{}"))
		_, text, _ := exchange(t, l, "GET", Path+"/groups", "")
		g := read[Groups](t, text)
		if g.Total != 9 || g.Cut || !g.Complete || len(g.Groups) != 3 {
			t.Fatalf("groups: %s", text)
		}
		common, rare := g.Groups[0], g.Groups[2]
		if common.Reason != "common" || common.Letters != 7 || common.Messages != 7 || !slices.Equal(common.Shards, []int{0, 1, 2}) ||
			len(common.Examples) != maxExamples || !common.Oldest.Equal(began.Truncate(time.Millisecond)) || common.Newest.Sub(*common.Oldest) != 6*time.Second {
			t.Errorf("common: %+v", common)
		}
		if rare.Reason != "rare" || rare.Letters != 1 || rare.Messages != 5 {
			t.Errorf("rare: %+v", rare)
		}
		if _, text, _ := exchange(t, l, "GET", Path+"/groups?reason="+url.QueryEscape(noReason), ""); read[Groups](t, text).Total != 1 {
			t.Errorf("without a reason: %s", text)
		}
	})
}

// TestHostileLetters: what another program has put into the queue harms no one who looks.
func TestHostileLetters(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		huge := strings.Repeat("é", maxReason) + "\xff\x00\x1b[2J"
		odd := message.Envelope{ID: "<b>\u202e\x1b", Shard: 1, Count: -7, Body: []byte(strings.Repeat("\xff\n", 1000)), Foreign: true}
		many := message.Envelope{ID: "many", Shard: 1, Count: 1 << 40, Body: []byte("{}\n")}
		r.die(huge, odd, many)
		code, text, _ := exchange(t, l, "GET", Path+"/groups", "")
		g := read[Groups](t, text)
		if code != 200 || len(g.Groups) != 1 || len(g.Groups[0].Reason) > maxReason || g.Groups[0].Messages > 1+message.MaxEnvelopeMessages || strings.ContainsAny(text, "<>\x1b") || !utf8.ValidString(text) {
			t.Fatalf("groups: %d %.300s", code, text)
		}
		found := all(t, l, Filter{Reason: g.Groups[0].Reason})
		if len(found) != 2 || found[0].Count < 1 || found[1].Count < 1 {
			t.Fatalf("found by the reason that is shown: %d", len(found))
		}
		for _, x := range found {
			if code, text, _ := exchange(t, l, "GET", Path+"/"+x.Key, ""); code != 200 || strings.ContainsAny(text, "<>\x1b") || !utf8.ValidString(text) {
				t.Errorf("shown: %d %.300s", code, text)
			}
		}
		purge := start(t, l, Order{Do: ActionPurge, Filter: Filter{Reason: g.Groups[0].Reason}})
		if v := await(t, l, purge.ID); v.Done != 2 {
			t.Errorf("%+v", v)
		}
	})
}

// TestShow shows a letter with its body as it may be seen.
func TestShow(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		two := ours(1, 2)
		r.die("<script>alert(1)</script>", two, foreign(0, "f", "not JSON \x00\xff"))
		open, hidden := r.node("a", nil), r.node("b", func(c *Config) { c.Hidden = true })
		masks := r.node("c", func(c *Config) {
			c.Mask = func(line []byte) []byte {
				return []byte(strings.ReplaceAll(string(line), `"value":"1"`, `"value":"***"`))
			}
		})
		key := keyOf(t, open, two.ID)
		show := func(l *Letters, key string) Whole {
			t.Helper()
			code, text, header := exchange(t, l, "GET", Path+"/"+key, "")
			if code != 200 || header.Get("Cache-Control") != "no-store" || strings.Contains(text, "<script>") {
				t.Errorf("%d %s", code, text)
			}
			return read[Whole](t, text)
		}
		w := show(open, key)
		if w.Body == nil || *w.Body != string(two.Body) || !w.Editable || len(w.Messages) != 2 || w.Messages[1].Line != 2 || w.Key != key || w.Reason != "<script>alert(1)</script>" {
			t.Errorf("shown: %+v", w)
		}
		if w := show(hidden, key); w.Body != nil || w.Editable || w.Why == "" || w.Bytes != len(two.Body) {
			t.Errorf("hidden: %+v", w)
		}
		if w := show(masks, key); w.Body == nil || strings.Contains(*w.Body, `"value":"1"`) || !strings.Contains(*w.Body, `"value":"0"`) || w.Editable {
			t.Errorf("masked: %+v", w)
		}
		if w := show(open, keyOf(t, open, "f")); w.Body != nil || string(w.Base64) != "not JSON \x00\xff" || !w.Editable {
			t.Errorf("bytes: %+v", w)
		}
		for path, want := range map[string]int{
			"/" + strings.Repeat("0", 32): 404, "/" + strings.ToUpper(key): 404, "/x": 404, "/../../etc": 404, "/tasks/x": 404, "/" + key + "/replay": 404,
		} {
			if code, text, _ := exchange(t, open, "GET", Path+path, ""); code != want {
				t.Errorf("%s: %d %s", path, code, text)
			}
		}
		// What is hidden or masked is not found either.
		if code, text, _ := exchange(t, hidden, "GET", Path+"?contains=value", ""); code != 400 {
			t.Errorf("looked into hidden bodies: %d %s", code, text)
		}
		if got := all(t, masks, Filter{Contains: `"value":"1"`}); len(got) != 0 {
			t.Errorf("what is masked was found: %+v", got)
		}
		bad := `{"body":"{}"}`
		for _, l := range []*Letters{hidden, masks} {
			if code, text, _ := exchange(t, l, "POST", Path+"/"+key+"/replay", bad); code != 409 || !strings.Contains(text, "not-editable") {
				t.Errorf("edited: %d %s", code, text)
			}
		}
		if got := r.left(); len(got) != 2 {
			t.Errorf("%q are left", got)
		}
	})
}

// TestLooksAreShared looks once for all who wait, and bounds how many may.
func TestLooksAreShared(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		l := r.node("a", nil)
		r.die("bad", foreign(0, "f", "{}"))
		r.memory.Stop()
		ctx, leave := context.WithCancel(t.Context())
		errs := make(chan error, 2*maxLooking)
		var wg sync.WaitGroup
		for i := range cap(errs) {
			wg.Go(func() {
				_, err := l.list(ctx, fmt.Sprint("client", i%8), &Filter{}, "", 10)
				errs <- err
			})
		}
		synctest.Wait()
		refused := 0
		for len(errs) > 0 {
			if err := <-errs; !errors.Is(err, ErrTooMany) {
				t.Error(err)
			}
			refused++
		}
		if waiting := cap(errs) - refused; waiting != maxLooking {
			t.Errorf("%d requests wait", waiting)
		}
		leave()
		wg.Wait()
		if len(l.looks.askers) > 0 || len(l.looks.waiting) > 0 {
			t.Errorf("those that have left are counted: %v", l.looks.askers)
		}
		// One client does not have all the places.
		ctx, leave = context.WithCancel(t.Context())
		for range 2 * maxLookingOne {
			wg.Go(func() { _, _ = l.list(ctx, "greedy", &Filter{}, "", 10) })
		}
		synctest.Wait()
		l.looks.mu.Lock()
		if n := l.looks.askers["greedy"]; n != maxLookingOne {
			t.Errorf("a client has %d places", n)
		}
		l.looks.mu.Unlock()
		leave()
		wg.Wait()
		began := time.Now()
		if _, err := l.list(t.Context(), "x", &Filter{}, "", 10); !errors.Is(err, ErrUnreachable) || time.Since(began) > 3*reachTime {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		r.memory.Start()
		if got := all(t, l, Filter{}); len(got) != 1 {
			t.Errorf("listed %+v", got)
		}
	})
}
