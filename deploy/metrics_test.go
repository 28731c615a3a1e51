package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// family is a metric that a process shows.
type family struct {
	kind   string
	labels []string
}

var (
	familyLine = regexp.MustCompile(`^(\w+)\{([\w,]*)\} (\w+): .+$`)
	// used is a metric in an expression, with its selector if it has one.
	used      = regexp.MustCompile(`\b(adp_\w+)(?:\{([^}]*)\})?(\[)?`)
	grouped   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	matcher   = regexp.MustCompile(`(\w+)(=~|=)"([^"]*)"`)
	suffix    = regexp.MustCompile(`_(bucket|sum|count)$`)
	ofScrapes = []string{"instance", "job", "le"} // labels that are not a process's own
)

// families are the metrics that there are: package metrics is held to the same file.
func families(t *testing.T) map[string]family {
	t.Helper()
	text, err := os.ReadFile("../telemetry/metrics/testdata/names.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]family)
	for line := range strings.Lines(string(text)) {
		f := familyLine.FindStringSubmatch(strings.TrimSpace(line))
		if f == nil {
			t.Fatalf("%q is no metric", line)
		}
		all[f[1]] = family{f[3], strings.Split(f[2], ",")}
	}
	return all
}

// checkExpr returns what is wrong with an expression.
func checkExpr(all map[string]family, outcomes, expr string) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	labels := slices.Clone(ofScrapes)
	found := used.FindAllStringSubmatch(expr, -1)
	for _, u := range found {
		name, selector, ranged := u[1], u[2], u[3] != ""
		f, ok := all[name]
		if base := suffix.ReplaceAllString(name, ""); !ok && all[base].kind == "histogram" {
			f, ok = all[base], true
			f.kind = "counter"
		}
		switch {
		case !ok || f.kind == "histogram":
			complain("there is no metric %s", name)
		case f.kind == "counter" && !ranged:
			complain("%s is a counter: want its rate", name)
		}
		labels = append(labels, f.labels...)
		for _, m := range matcher.FindAllStringSubmatch(selector, -1) {
			if !slices.Contains(f.labels, m[1]) && !slices.Contains(ofScrapes, m[1]) {
				complain("%s has no label %s", name, m[1])
			}
			for word := range strings.SplitSeq(m[3], "|") {
				if m[1] == "outcome" && !strings.Contains(outcomes, `kind{"`+word+`",`) {
					complain("no request has the outcome %s", word)
				}
			}
		}
	}
	if len(found) == 0 {
		complain("it is of no metric")
	}
	for _, g := range grouped.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(labels, label) {
				complain("no metric of it has the label %s", label)
			}
		}
	}
	return wrong
}

func problems(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../server/problem.go")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestAlerts holds the alerts to the metrics, and to be told of with what to do.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	operations, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	for name := range families(t) {
		if !strings.Contains(string(operations), "| `"+name+"` |") {
			t.Errorf("docs/operations.md does not tell of %s", name)
		}
	}
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	dec.KnownFields(true)
	if err := dec.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	cases, err := os.ReadFile("rules/rules_test.go")
	if err != nil {
		t.Fatal(err)
	}
	all, outcomes, n := families(t), problems(t), 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			n++
			for _, wrong := range checkExpr(all, outcomes, r.Expr) {
				t.Errorf("%s: %s", r.Alert, wrong)
			}
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: want a severity, a summary and a description", r.Alert)
			}
			if !strings.Contains(string(cases), `"`+r.Alert+`": {`) {
				t.Errorf("%s: rules/rules_test.go has no case of it", r.Alert)
			}
			if !strings.Contains(string(operations), "`"+r.Alert+"`") {
				t.Errorf("%s: docs/operations.md does not tell of it", r.Alert)
			}
		}
	}
	if n < 5 {
		t.Errorf("%d alerts were read", n)
	}
}

// TestDashboard holds the queries of the dashboard to the metrics. Its data source and
// its instances are variables.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	type source struct{ UID string }
	var board struct {
		Templating struct{ List []struct{ Name string } }
		Panels     []struct {
			ID         int
			Title      string
			Datasource source
			Targets    []struct {
				Expr       string
				Datasource source
			}
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, v := range board.Templating.List {
		variables = append(variables, v.Name)
	}
	if !slices.Equal(variables, []string{"datasource", "instance"}) {
		t.Errorf("the variables are %q", variables)
	}
	all, outcomes := families(t), problems(t)
	for _, p := range board.Panels {
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("%s: %d queries of %s", p.Title, len(p.Targets), p.Datasource.UID)
		}
		for _, q := range p.Targets {
			for _, wrong := range checkExpr(all, outcomes, q.Expr) {
				t.Errorf("%s: %s", p.Title, wrong)
			}
			for _, u := range used.FindAllStringSubmatch(q.Expr, -1) {
				if !strings.Contains(u[2], `instance=~"$instance"`) {
					t.Errorf("%s: %s is of all instances", p.Title, u[1])
				}
			}
			if q.Datasource.UID != "${datasource}" {
				t.Errorf("%s: its data source is %q", p.Title, q.Datasource.UID)
			}
		}
	}
	if len(board.Panels) < 10 {
		t.Errorf("%d panels were read", len(board.Panels))
	}
}

// TestCheckExpr: what is wrong with an expression is found.
func TestCheckExpr(t *testing.T) {
	all, outcomes := families(t), problems(t)
	for expr, want := range map[string]string{
		`adp_shard_owned{shard="1"} == 0`:                                         "",
		`rate(adp_dead_letters_total[5m])`:                                        "",
		`rate(adp_fsync_seconds_bucket[5m])`:                                      "",
		`adp_shard_owner == 0`:                                                    "there is no metric adp_shard_owner",
		`rate(adp_fsync_seconds[5m])`:                                             "there is no metric adp_fsync_seconds",
		`adp_dead_letters_total > 0`:                                              "adp_dead_letters_total is a counter: want its rate",
		`adp_broker_up{shard="1"}`:                                                "adp_broker_up has no label shard",
		`sum by (route) (adp_workers)`:                                            "no metric of it has the label route",
		`rate(adp_http_requests_total{outcome="not-published|rejected"}[5m]) > 0`: "no request has the outcome rejected",
		`up == 0`: "it is of no metric",
	} {
		if got := strings.Join(checkExpr(all, outcomes, expr), "; "); got != want {
			t.Errorf("%s: got %q, want %q", expr, got, want)
		}
	}
}
