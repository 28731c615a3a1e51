package pipeline

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"async-data-processor/control"
)

// TestSkips: what any part of the process cannot read on the bus is counted, and shown.
func TestSkips(t *testing.T) {
	w := newWorks(t, withJobs(t, someJobs))
	other := w.memory.Open(nil)
	defer other.Close()
	skipped := func() control.Skipped {
		code, _, text := w.request("GET", w.base+"/api/v1/nodes", "", nil)
		var list struct {
			Nodes []struct{ Skipped *control.Skipped }
		}
		if err := json.Unmarshal([]byte(text), &list); err != nil || code != 200 || len(list.Nodes) != 1 || list.Nodes[0].Skipped == nil {
			return control.Skipped{}
		}
		return *list.Nodes[0].Skipped
	}
	ask := func(topic string, body []byte) error {
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer stop()
		return other.Ask(ctx, topic, body, func([]byte) bool { return false })
	}
	for topic, send := range map[string]func(string, []byte) error{
		"nodes": other.Tell, "receipts": other.Tell, "tail.interest": other.Tell, "where": ask, "jobs.ask": ask,
	} {
		before := skipped()
		w.eventually(topic, func() bool { // the bus may not be there yet
			for _, body := range []string{`{"v":2}`, `{`} {
				if err := send(topic, []byte(body)); err != nil {
					t.Fatal(topic, err)
				}
			}
			now := skipped()
			return now.Version > before.Version && now.Broken > before.Broken
		})
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}
