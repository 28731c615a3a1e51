// Package rules tests the alerts with the engine of Prometheus: when each fires, and
// when it does not.
package rules

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

// cases are series, a sample a minute, and what the alert's expression finds after half
// an hour; nothing if it must not fire.
var cases = map[string][]struct{ series, want string }{
	"AdpNoNode": {
		{`other 1x30`, `{} 1`},
		{`adp_build_info{instance="a",version="v1"} 1x30`, ``},
	},
	"AdpEntriesWait": {
		{"adp_oldest_unwritten_age_seconds{instance=\"a\",shard=\"0\"} 0+60x30\nadp_oldest_unwritten_age_seconds{instance=\"a\",shard=\"1\"} 1x30", `{shard="0"} 1800`},
		{`adp_oldest_unwritten_age_seconds{instance="a",shard="0"} 60x30`, ``},
	},
	"AdpShardWithoutOwner": {
		{"adp_shard_owned{instance=\"a\",shard=\"0\"} 0x30\nadp_shard_owned{instance=\"b\",shard=\"0\"} 0x30", `{shard="0"} 0`},
		{"adp_shard_owned{instance=\"a\",shard=\"0\"} 0x30\nadp_shard_owned{instance=\"b\",shard=\"0\"} 1x30", ``},
	},
	"AdpBrokerDown": {
		{"adp_broker_up{instance=\"a\"} 0x30\nadp_broker_up{instance=\"b\"} 1x30", `adp_broker_up{instance="a"} 0`},
		{`adp_broker_up{instance="a"} 1x30`, ``},
	},
	"AdpOutputDown": {
		{`adp_output_up{instance="a"} 0x30`, `adp_output_up{instance="a"} 0`},
		{`adp_output_up{instance="a"} 1x30`, ``},
	},
	"AdpDiskFillsUp": {
		{`adp_output_free_bytes{instance="a"} 100-1x30`, `{instance="a"} -170`},
		{`adp_output_free_bytes{instance="a"} 1000-1x30`, ``},
	},
	"AdpDeadLetters": {
		{`adp_dead_letters_total{instance="a",shard="3"} 0x20 0+1x10`, `{shard="3"} 9`},
		{`adp_dead_letters_total{instance="a",shard="3"} 7x30`, ``},
	},
	"AdpRefusing": {
		{`adp_http_requests_total{route="/message",outcome="ok"} 0+90x30
adp_http_requests_total{route="/message",outcome="not-published"} 0+10x30`, `{} 0.1`},
		{`adp_http_requests_total{route="/message",outcome="ok"} 0+90x30
adp_http_requests_total{route="/message",outcome="invalid-submission"} 0+90x30
adp_http_requests_total{route="/message",outcome="overloaded"} 0+1x30
adp_http_requests_total{route="/readyz",outcome="unavailable"} 0+90x30`, ``},
		{`adp_http_requests_total{route="/message",outcome="ok"} 5x30
adp_http_requests_total{route="/message",outcome="overloaded"} 5x30`, ``},
	},
	"AdpSlow": {
		{`adp_accept_to_file_seconds_bucket{le="10"} 0+1x30
adp_accept_to_file_seconds_bucket{le="30"} 0+100x30
adp_accept_to_file_seconds_bucket{le="+Inf"} 0+100x30`, `{} 29.797979797979796`},
		{`adp_accept_to_file_seconds_bucket{le="1"} 0+100x30
adp_accept_to_file_seconds_bucket{le="10"} 0+100x30
adp_accept_to_file_seconds_bucket{le="+Inf"} 0+100x30`, ``},
	},
	"AdpWorkersGivenUp": {
		{`adp_workers_stopped_total{reason="timed-out"} 0x20 0+1x10`, `{reason="timed-out"} 9`},
		{"adp_workers_stopped_total{reason=\"idle\"} 0+1x30\nadp_workers_stopped_total{reason=\"panicked\"} 1x30", ``},
	},
	"AdpLogLinesLost": {
		{`adp_log_lines_dropped_total{instance="a"} 0x20 0+2x10`, `{instance="a"} 18`},
		{`adp_log_lines_dropped_total{instance="a"} 5x30`, ``},
	},
}

func TestAlertsFire(t *testing.T) {
	groups, errs := rulefmt.ParseFile("../alerts.yaml", false, model.LegacyValidation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	seen := 0
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			seen++
			if len(cases[r.Alert]) < 2 {
				t.Errorf("%s is not tested", r.Alert)
			}
			for i, c := range cases[r.Alert] {
				t.Run(fmt.Sprint(r.Alert, i), func(t *testing.T) {
					script := "load 1m\n  " + strings.ReplaceAll(c.series, "\n", "\n  ") + "\n\neval instant at 30m " + strings.ReplaceAll(r.Expr, "\n", " ") + "\n"
					if c.want != "" {
						script += "  " + c.want + "\n"
					}
					promqltest.RunTest(t, script, promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery))
				})
			}
		}
	}
	if seen != len(cases) {
		t.Errorf("%d alerts, and cases of %d", seen, len(cases))
	}
}

// TestDashboardParses: Prometheus can read each query of the dashboard.
func TestDashboardParses(t *testing.T) {
	text, err := os.ReadFile("../grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil || len(board.Panels) == 0 {
		t.Fatalf("%d panels, %v", len(board.Panels), err)
	}
	p := parser.NewParser(parser.Options{})
	for _, panel := range board.Panels {
		for _, q := range panel.Targets {
			if _, err := p.ParseExpr(strings.ReplaceAll(q.Expr, "$__rate_interval", "1m")); err != nil {
				t.Errorf("%s: %v", panel.Title, err)
			}
		}
	}
}
