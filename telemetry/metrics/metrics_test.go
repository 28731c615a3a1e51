package metrics

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"async-data-processor/event"
)

// scrape returns what a client gets that accepts a format.
func scrape(t *testing.T, h http.Handler, accept string) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Header().Get("Content-Type") + "\n" + w.Body.String()
}

// whole is the metrics of a process with all parts, and something of everything.
func whole() (*Metrics, *event.Hub, http.Handler) {
	var hub event.Hub
	m := New(Config{Version: "v1.2.3", Shards: 2, Server: true, Consumer: true, Jobs: true}, &hub)
	return m, &hub, m.Handler(State{
		Shards: func() []Shard {
			return []Shard{
				{Shard: 0, State: "paused", Owned: true, Paused: true, Queued: 7, Unsettled: 3, Oldest: time.Now().Add(-time.Minute), Known: true, IDs: 10, IDsAge: time.Hour, Workers: map[string]int{"idle": 3}},
				{Shard: 1, State: "standby", Queued: -1},
			}
		},
		Broker:  func() error { return nil },
		Output:  func() (int64, error) { return 1 << 30, errors.New("full") },
		Dropped: func() uint64 { return 5 },
		Jobs: func() Jobs {
			return Jobs{Runs: map[string]map[string]int{"hello": {"queued": 2, "dead": 1}}, Runners: map[string]int{"working": 1, "idle": 3}}
		},
		Database:   func() error { return nil },
		Unrecorded: func() (int, time.Time) { return 4, time.Now().Add(-time.Minute) },
	})
}

func somethingOfAll(m *Metrics, hub *event.Hub) {
	w := event.Worker{Shard: 1, WhyStarted: "minimum", WhyStopped: "panicked: with some text"}
	for _, e := range []event.Event{
		event.Submitted{Request: event.Request{Route: "/message", Status: 201, Elapsed: time.Millisecond}, Accepted: 3},
		event.Refused{Request: event.Request{Route: "/message", Status: 429}, Kind: "overloaded"},
		event.Refused{Request: event.Request{Path: "/%61", Method: "BREW", Status: 404}, Kind: "not-found"},
		event.Probed{Request: event.Request{Route: "/readyz", Err: errors.New("no")}},
		event.Served{Request: event.Request{Route: "/metrics"}},
		event.Connection{State: event.Connected, Role: "publish"},
		event.Connection{State: event.Lost, Role: "consume"},
		event.Connection{State: event.Lost, Role: "a later one"},
		event.BatchWritten{Worker: w, Cause: "a later one"},
		event.BatchWritten{Worker: w, Batches: 2, Messages: 8, Duplicates: 1, Cause: "full", Took: 3 * time.Millisecond},
		event.BatchReturned{Worker: w},
		event.DeadLettered{Shard: 1},
		event.DeadLettered{Shard: -1},
		event.Redelivered{Shard: 4}, // beyond the number of shards
		event.WorkerStarted{Worker: w},
		event.WorkerStopped{Worker: w},
		event.RunEnded{Outcome: "exited", Took: time.Second},
		event.RunEnded{Outcome: "exited", Exit: 4, Took: time.Minute},
		event.RunEnded{Outcome: "exited", Exit: 75, State: "queued"},
		event.RunEnded{Outcome: "timed-out", Exit: 143, Took: time.Second},
		event.RunEnded{Outcome: "fault", Exit: 125},
		event.RunEnded{Outcome: "a later one"},
		event.RunLost{State: "dead"},
	} {
		hub.Send(e)
	}
	m.Accepted(0, 2)
	m.Accepted(1, 1)
	m.Published(time.Millisecond)
	m.Synced(time.Millisecond)
	m.Written(time.Second, 8)
	m.Written(-time.Second, 1) // the clocks of two hosts differ
}

// TestLint holds the metrics to the rules of Prometheus for names, and their names,
// types, labels and texts to a file.
func TestLint(t *testing.T) {
	m, hub, _ := whole()
	somethingOfAll(m, hub)
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families = slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), "adp_") })
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	var got strings.Builder
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		fmt.Fprintf(&got, "%s{%s} %s: %s\n", f.GetName(), strings.Join(labels, ","), strings.ToLower(f.GetType().String()), f.GetHelp())
	}
	want, err := os.ReadFile("testdata/names.txt")
	if err != nil || got.String() != string(want) {
		t.Errorf("the metrics are (%v)\n%s", err, &got)
	}
}

// TestCounts holds the numbers to what was told.
func TestCounts(t *testing.T) {
	m, hub, h := whole()
	somethingOfAll(m, hub)
	text := scrape(t, h, "")
	for _, want := range []string{
		`adp_http_requests_total{outcome="ok",route="/message"} 1`,
		`adp_http_requests_total{outcome="overloaded",route="/message"} 1`,
		`adp_http_requests_total{outcome="not-found",route="other"} 1`,
		`adp_http_requests_total{outcome="unavailable",route="/readyz"} 1`,
		`adp_http_request_seconds_count{route="/message"} 2`,
		`adp_submissions_total 1`,
		`adp_messages_accepted_total{shard="0"} 2`,
		`adp_messages_written_total{shard="1"} 8`,
		`adp_messages_duplicate_total{shard="1"} 1`,
		`adp_dead_letters_total{shard="1"} 1`,
		`adp_envelopes_redelivered_total{shard="4"} 1`,
		`adp_batches_total{cause="full"} 2`,
		`adp_batches_returned_total 1`,
		`adp_workers_started_total{reason="minimum"} 1`,
		`adp_workers_stopped_total{reason="panicked"} 1`,
		`adp_broker_connects_total{role="publish"} 1`,
		`adp_broker_connections_lost_total{role="consume"} 1`,
		`adp_broker_connections_lost_total{role="other"} 1`,
		`adp_accept_to_file_seconds_bucket{le="1"} 9`,
		`adp_accept_to_file_seconds_bucket{le="0.5"} 1`,
		`adp_accept_to_file_seconds_count 9`,
		`adp_accept_to_file_seconds_sum 8`,
		`adp_publish_seconds_count 1`,
		`adp_fsync_seconds_count 1`,
		`adp_run_attempts_total{outcome="succeeded"} 1`,
		`adp_run_attempts_total{outcome="failed"} 2`,
		`adp_run_attempts_total{outcome="timed-out"} 1`,
		`adp_run_attempts_total{outcome="cancelled"} 0`,
		`adp_run_attempts_total{outcome="fault"} 1`,
		`adp_run_attempts_total{outcome="lost"} 1`,
		`adp_run_attempts_total{outcome="other"} 1`,
		`adp_run_duration_seconds_count 3`, // what did not begin took no time
		`adp_run_duration_seconds_sum 62`,
		`adp_runs{job="hello",state="queued"} 2`,
		`adp_runs{job="hello",state="dead"} 1`,
		`adp_runners{state="working"} 1`,
		`adp_runners{state="idle"} 3`,
		`adp_state_database_up 1`,
		`adp_files_unrecorded 4`,
		`adp_queue_envelopes{shard="0"} 7`,
		`adp_oldest_unwritten_age_seconds{shard="0"} 60.`,
		`adp_shard_owned{shard="1"} 0`,
		`adp_shard_paused{shard="0"} 1`,
		`adp_shards{state="standby"} 1`,
		`adp_workers{state="idle"} 3`,
		`adp_broker_up 1`,
		`adp_output_up 0`,
		`adp_output_free_bytes 1.073741824e+09`,
		`adp_log_lines_dropped_total 5`,
		`adp_build_info{version="v1.2.3"} 1`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	for _, unwanted := range []string{`{shard="1"} -1`, `age_seconds{shard="1"}`, `paused{shard="1"}`, `envelopes{shard="1"}`, `shard="-1"`, "with some text", "a later one", "BREW", "%61"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("there is %s", unwanted)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestFormats: a client gets the format that it accepts.
func TestFormats(t *testing.T) {
	_, _, h := whole()
	if text := scrape(t, h, "application/openmetrics-text"); !strings.HasPrefix(text, "application/openmetrics-text") || !strings.HasSuffix(text, "# EOF\n") {
		t.Errorf("OpenMetrics: %.80q", text)
	}
	if text := scrape(t, h, ""); !strings.HasPrefix(text, "text/plain; version=0.0.4") || strings.Contains(text, "# EOF") {
		t.Errorf("text: %.80q", text)
	}
}

// TestBounded: requests that differ in all that a client chooses, and more pairs of
// route and outcome than there are, make a bounded number of series.
func TestBounded(t *testing.T) {
	_, hub, h := whole()
	before := strings.Count(scrape(t, h, ""), "\nadp_")
	for i := range 5000 {
		text := fmt.Sprint("x", i)
		hub.Send(event.Refused{Request: event.Request{ID: text, Peer: text, Method: text, Path: text}, Kind: "not-found"})
	}
	if grown := strings.Count(scrape(t, h, ""), "\nadp_") - before; grown > 18 {
		t.Errorf("a client has made %d series", grown)
	}
	for i := range 5000 {
		hub.Send(event.Refused{Request: event.Request{Route: "/message"}, Kind: fmt.Sprint("x", i)})
	}
	if n := strings.Count(scrape(t, h, ""), "adp_http_requests_total{"); n > maxRequests+1 {
		t.Errorf("%d series of requests, want at most %d", n, maxRequests+1)
	}
}

// TestCountingIsFree: counting a request or a batch takes no memory.
func TestCountingIsFree(t *testing.T) {
	m, _, _ := whole()
	for name, e := range map[string]event.Event{
		"request": event.Submitted{Request: event.Request{Route: "/message", Elapsed: time.Millisecond}, Accepted: 1},
		"batch":   event.BatchWritten{Batches: 1, Messages: 5, Cause: "full", Took: time.Millisecond},
	} {
		m.count(e)
		if n := testing.AllocsPerRun(100, func() { m.count(e) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { m.Accepted(1, 1); m.Written(time.Second, 5) }); n > 0 {
		t.Errorf("messages: %v allocations", n)
	}
}

// TestSumOfWaits: the sum is that of all messages, however many came together and however
// long they have waited.
func TestSumOfWaits(t *testing.T) {
	m, _, h := whole()
	m.Written(time.Minute, 1000)
	m.Written(time.Hour, 1_000_000_000)
	if text := scrape(t, h, ""); !strings.Contains(text, "\nadp_accept_to_file_seconds_sum 3.60000006e+12\n") {
		t.Error(text)
	}
}

// TestNothingIsLost scrapes while many goroutines send: in the end every event counts.
func TestNothingIsLost(t *testing.T) {
	const senders, each = 8, 5000
	m, hub, h := whole()
	done := make(chan struct{})
	var sending, scraping sync.WaitGroup
	scraping.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				scrape(t, h, "")
			}
		}
	})
	for range senders {
		sending.Go(func() {
			for range each {
				hub.Send(event.BatchWritten{Batches: 1, Messages: 5, Cause: "full"})
				m.Written(time.Millisecond, 5)
			}
		})
	}
	sending.Wait()
	close(done)
	scraping.Wait()
	text := scrape(t, h, "")
	for _, want := range []string{
		fmt.Sprintf(`adp_messages_written_total{shard="0"} %d`, 5*senders*each),
		fmt.Sprintf(`adp_accept_to_file_seconds_count %d`, 5*senders*each),
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

// TestScrapesAreBounded: clients that do not read their answers hold up others for the
// time-out at most, and are few.
func TestScrapesAreBounded(t *testing.T) {
	var hub event.Hub
	m := New(Config{Shards: 1}, &hub)
	inside, free := make(chan struct{}), make(chan struct{})
	h := m.Handler(State{Broker: func() error { inside <- struct{}{}; <-free; return nil }})
	var all sync.WaitGroup
	for range maxScrapes {
		all.Go(func() { scrape(t, h, "") })
		<-inside
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("one more gets %d", w.Code)
	}
	close(free)
	all.Wait()
}

// TestSlowReader: the answer has its own deadline, so that a client that reads nothing
// loses its connection.
func TestSlowReader(t *testing.T) {
	_, _, h := whole()
	w := &deadlined{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if left := time.Until(w.deadline); left <= 0 || left > scrapeTimeout {
		t.Errorf("the deadline is in %v", left)
	}
	if body, _ := io.ReadAll(w.Result().Body); len(body) == 0 {
		t.Error("no answer")
	}
}

type deadlined struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (d *deadlined) SetWriteDeadline(at time.Time) error {
	d.deadline = at
	return nil
}
