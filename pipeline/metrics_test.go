package pipeline

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker/door"
	"async-data-processor/consumer"
	"async-data-processor/message"
)

// metric returns the sum of the series of a name with the labels, as a scrape shows
// them, and whether there is one.
func metric(t *testing.T, scraped, name string, labels ...string) (sum float64, found bool) {
	t.Helper()
series:
	for line := range strings.Lines(scraped) {
		end := strings.LastIndexByte(line, ' ')
		series, value := line[:end], strings.TrimSpace(line[end:])
		if got, _, _ := strings.Cut(series, "{"); got != name {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(series, l) {
				continue series
			}
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		sum, found = sum+n, true
	}
	return sum, found
}

// TestMetrics holds what a process shows to what was done with it.
func TestMetrics(t *testing.T) {
	w := newWorks(t, func(c *Config) { c.Version, c.LostLines = "v9", func() uint64 { return 4 } })
	const messages = 7
	began := time.Now()
	if status := w.post(body("a", "b", "c", "d", "e", "f", "g")); status != http.StatusCreated {
		t.Fatal(status)
	}
	w.post("[]")
	w.post("no JSON")
	var text string
	w.eventually("written messages", func() bool {
		_, text = w.status("/metrics")
		n, _ := metric(t, text, "adp_accept_to_file_seconds_count")
		idle, _ := metric(t, text, "adp_oldest_unwritten_age_seconds")
		queued, known := metric(t, text, "adp_queue_envelopes")
		return n == messages && idle == 0 && known && queued == 0
	})
	took := time.Since(began)
	for _, want := range []struct {
		series string
		value  float64
	}{
		{"adp_submissions_total", 1},
		{"adp_messages_accepted_total", messages},
		{"adp_messages_written_total", messages},
		{"adp_messages_duplicate_total", 0},
		{"adp_dead_letters_total", 0},
		{"adp_unsettled_envelopes", 0},
		{"adp_shard_owned", 2},
		{"adp_shards", 2},
		{"adp_workers", 6},
		{"adp_workers_started_total", 6},
		{"adp_remembered_ids", messages},
		{"adp_broker_up", 1},
		{"adp_log_lines_dropped_total", 4},
		{"adp_build_info", 1},
		{"adp_output_up", 1},
		{"adp_publish_seconds_count", 1},
	} {
		if got, _ := metric(t, text, want.series); got != want.value {
			t.Errorf("%s is %v, want %v", want.series, got, want.value)
		}
	}
	if n, _ := metric(t, text, "adp_http_requests_total", `route="/message"`, `outcome="invalid-submission"`); n != 2 {
		t.Errorf("%v invalid submissions, want 2", n)
	}
	for _, series := range []string{"adp_fsync_seconds_count", "adp_batch_write_seconds_count", "adp_output_free_bytes", "go_goroutines", "process_open_fds"} {
		if n, _ := metric(t, text, series); n <= 0 {
			t.Errorf("%s is %v", series, n)
		}
	}
	if sum, _ := metric(t, text, "adp_accept_to_file_seconds_sum"); sum < 0 || sum > messages*took.Seconds() {
		t.Errorf("%d messages have waited for %v s, within %v", messages, sum, took)
	}
	if admin, text := w.ask("GET", w.adminBase()+"/metrics", "", ""); !strings.Contains(text, "adp_build_info") {
		t.Errorf("the admin listener answers %d", admin.StatusCode)
	}
}

// TestAcceptToFile holds the histogram to a stopwatch.
func TestAcceptToFile(t *testing.T) {
	const slow = 300 * time.Millisecond
	w := newWorksWith(t, wraps{folder: func(f consumer.Folder) consumer.Folder { return slowFolder{f, slow} }}, nil)
	began := time.Now()
	w.post(body("a"))
	var text string
	w.eventually("written message", func() bool {
		_, text = w.status("/metrics")
		n, _ := metric(t, text, "adp_accept_to_file_seconds_count")
		return n == 1
	})
	took := time.Since(began)
	sum, _ := metric(t, text, "adp_accept_to_file_seconds_sum")
	if sum < slow.Seconds() || sum > took.Seconds()+.001 {
		t.Errorf("it took %v s, want %v to %v", sum, slow, took)
	}
}

type slowFolder struct {
	consumer.Folder
	slow time.Duration
}

func (f slowFolder) Write(ctx context.Context, worker string, b *message.Batch) (string, []message.Message, error) {
	time.Sleep(f.slow)
	return f.Folder.Write(ctx, worker, b)
}

// TestMetricsAccess: metrics show the inside, so they are for those who may view.
func TestMetricsAccess(t *testing.T) {
	w := newWorksWith(t, wraps{}, func(c *Config) {
		c.AuthTokens, c.ViewTokens = []string{"submits"}, []string{"views"}
	})
	for _, tc := range []struct {
		host, token, site string
		want              int
	}{
		{"", "views", "", http.StatusOK},
		{"", "", "", http.StatusUnauthorized},
		{"", "submits", "", http.StatusForbidden},
		{"", "views", "cross-site", http.StatusForbidden},
		{"evil.example", "views", "", http.StatusMisdirectedRequest},
	} {
		r, err := http.NewRequest(http.MethodGet, w.base+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = tc.host
		if tc.token != "" {
			r.Header.Set("Authorization", "Bearer "+tc.token)
		}
		if tc.site != "" {
			r.Header.Set("Sec-Fetch-Site", tc.site)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tc.want || (tc.want == http.StatusOK) != strings.Contains(string(text), "adp_") {
			t.Errorf("%+v: %d, %.100s", tc, resp.StatusCode, text)
		}
		for _, secret := range []string{"submits", "views"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%+v: the answer holds a token", tc)
			}
		}
	}
}

// TestMetricsOfHostileClient: paths, methods, hosts and tokens that a client makes up
// make no series.
func TestMetricsOfHostileClient(t *testing.T) {
	w := newWorks(t, nil)
	count := func() int {
		_, text := w.status("/metrics")
		return strings.Count(text, "\nadp_")
	}
	hostile := func(i int) {
		text := fmt.Sprintf("x%d-%d", i, rand.Uint64())
		paths := []string{"/" + text, "/message/" + text, "/livez/" + text, "/debug/pprof/" + text, "/message?" + text, "/%" + fmt.Sprintf("%02x", i%256) + text}
		r, err := http.NewRequest([]string{"GET", "POST", "X" + strconv.Itoa(i)}[i%3], w.base+paths[i%len(paths)], strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+text)
		r.Header.Set("Content-Type", "application/"+text)
		r.Header.Set("X-Request-Id", text)
		if i%5 == 0 {
			r.Host = text + ".example"
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	for i := range 90 { // each of its kinds once
		hostile(i)
	}
	count() // it is a request, too
	before := count()
	for i := range 900 {
		hostile(i)
	}
	if after := count(); after != before {
		_, text := w.status("/metrics")
		t.Errorf("%d series, and %d before\n%s", after, before, text[strings.Index(text, "# HELP adp_http"):])
	}
}

// TestMetricsUnderLoad scrapes all the time while messages come, and misses none.
func TestMetricsUnderLoad(t *testing.T) {
	w := newWorks(t, nil)
	const clients, each = 4, 50
	stop := make(chan struct{})
	var scraping, posting sync.WaitGroup
	scraping.Go(func() {
		for last := 0.; ; {
			select {
			case <-stop:
				return
			default:
			}
			_, text := w.status("/metrics")
			n, _ := metric(t, text, "adp_messages_written_total")
			if n < last {
				t.Errorf("%v messages written, and %v before", n, last)
			}
			last = n
		}
	})
	for range clients {
		posting.Go(func() {
			for range each {
				if status := w.post(body("a", "b", "c")); status != http.StatusCreated {
					t.Errorf("answered %d", status)
				}
			}
		})
	}
	posting.Wait()
	w.eventually("all messages", func() bool {
		_, text := w.status("/metrics")
		n, _ := metric(t, text, "adp_messages_written_total")
		return n == 3*clients*each
	})
	close(stop)
	scraping.Wait()
}

// TestMetricsAtTheDoor: a program of the same user gets them at the control socket.
func TestMetricsAtTheDoor(t *testing.T) {
	d, _, start := owner(t, 0)
	defer start()()
	socket := filepath.Join(strings.TrimPrefix(d.Config.BrokerURL, "embedded://"), door.Name)
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		resp, err := client.Get("http://localhost/metrics")
		if err != nil {
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		}
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "\nadp_broker_up ") {
			t.Errorf("%d, %v: %s", resp.StatusCode, err, text)
		}
		return
	}
}
