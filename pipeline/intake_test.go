package pipeline

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"async-data-processor/message"
	"async-data-processor/output/verify"
)

// TestConnections: what is reserved for files and the broker is not for connections.
func TestConnections(t *testing.T) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	set := func(limit syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { set(was) })
	if was.Max < 1024 {
		t.Fatalf("the hard limit of open files is %d", was.Max)
	}
	for _, tt := range []struct {
		limit  uint64
		set    int
		writes bool
		want   int
	}{
		{1024, 0, false, 960},
		{1024, 0, true, 910}, // 5 shards of 9 files
		{128, 0, true, 32},
		{512, 7, true, 7},
	} {
		set(syscall.Rlimit{Cur: tt.limit, Max: was.Max})
		cfg := DefaultConfig()
		cfg.MaxConnections = tt.set
		if got := cfg.connections(tt.writes); got != tt.want {
			t.Errorf("%+v: got %d", tt, got)
		}
	}
}

// TestRulesOfTheUser: entries of producers with a form of their own come through the
// whole pipeline as they were sent. A retry is written once although its entry has no
// timestamp. What checks the folder by the same rules finds nothing wrong.
func TestRulesOfTheUser(t *testing.T) {
	w := newWorks(t, func(cfg *Config) {
		cfg.Shards, cfg.TimestampField, cfg.TimestampDefault, cfg.AnyValue = 5, "/event/time", "arrival", true
	})
	for _, tc := range []struct{ contentType, key, body string }{
		{"application/json", "k", `{"value":{"celsius":21.50}}`},
		{"application/json", "k", `{"value":{"celsius":21.50}}`},
		{"application/jsonl", "", "{\"value\":[1]}\n{\"event\":{\"time\":\"2019-10-12T08:10:54Z\"},\"value\":null}\n"},
	} {
		r, err := http.NewRequest(http.MethodPost, w.base+"/message", strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", tc.contentType)
		if tc.key != "" {
			r.Header.Set("Idempotency-Key", tc.key)
		}
		resp, err := (&http.Client{Transport: exchanges.Base}).Do(r) // the description has the rules without settings
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Errorf("status %d of %s", resp.StatusCode, tc.body)
		}
	}
	w.memory.PublishForeign(3, "theirs", []byte(`{"value":true}`))
	w.eventually("everything settled", func() bool {
		depth := 0
		for n := range w.cfg.Shards {
			depth += w.memory.Depth(n)
		}
		return depth == 0
	})
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if dead := w.memory.Dead(); len(dead) > 0 {
		t.Errorf("dead letters: %v", dead)
	}
	rules, err := w.cfg.Rules()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*message.Rules{rules, nil} {
		report, err := verify.Run(t.Context(), w.cfg.OutputDir, verify.Options{Shards: w.cfg.Shards, Rules: r})
		if err != nil {
			t.Fatal(err)
		}
		if report.OK != (r != nil) || r != nil && report.Total.Lines != 4 {
			t.Errorf("with the rules %v: %+v", r != nil, report)
		}
	}
}
