package faults

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// scraped returns the largest value of a metric's series that the process shows, and
// whether it shows one.
func scraped(t *testing.T, p *rig.Process, name string) (most float64, found bool) {
	t.Helper()
	status, text := p.Get("/metrics")
	if status != http.StatusOK {
		t.Fatalf("GET /metrics: %d %s", status, text)
	}
	for line := range strings.Lines(text) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series, _, _ = strings.Cut(series, "{"); series != name {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		most, found = max(most, n), true
	}
	return most, found
}

// TestOldestAge holds the age of the oldest unwritten entry to a stopwatch, while it
// lingers, after a kill -9 of its owner, and once it is written.
func TestOldestAge(t *testing.T) {
	t.Parallel()
	const age = "adp_oldest_unwritten_age_seconds"
	b := rig.NewStore(t)
	settings := []string{"BROKER_URL=" + b.Server, "DATA_OUTPUT_DIR=" + t.TempDir(), "SHARDS_COUNT=2", "BATCH_LINGER=10m"}
	p := rig.Start(t, "standalone", settings...).Ready()
	check := func() error {
		if got, ok := scraped(t, p, age); !ok || got != 0 {
			return fmt.Errorf("nothing waits, and the age is %v (%v)", got, ok)
		}
		return nil
	}
	rig.Eventually(t, "the age 0", check)

	before := time.Now()
	status, _, _ := p.Post(rig.Entries(0, 1))
	accepted := time.Now()
	if status != http.StatusCreated {
		t.Fatalf("answered %d", status)
	}
	follow := func(what string) {
		t.Helper()
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			least := time.Since(accepted).Seconds() - 1
			got, ok := scraped(t, p, age)
			if most := time.Since(before).Seconds() + 1; !ok || got < least || got > most {
				t.Errorf("%s, the age is %v (%v), want %.1f to %.1f", what, got, ok, least, most)
			}
		}
	}
	follow("while it lingers")

	p.Kill()
	p.Wait()
	p = rig.Start(t, "standalone", settings...).Ready()
	rig.Eventually(t, "the delivery", func() error {
		if n, _ := scraped(t, p, "adp_unsettled_envelopes"); n != 1 {
			return fmt.Errorf("%v envelopes are unsettled", n)
		}
		return nil
	})
	follow("just taken over")

	p.Kill()
	p.Wait()
	p = rig.Start(t, "standalone", append(settings, "BATCH_LINGER=10ms")...).Ready()
	rig.Eventually(t, "the age 0", check)
	if n, _ := scraped(t, p, "adp_messages_written_total"); n != 1 {
		t.Errorf("%v entries were written, want 1", n)
	}
	if code := p.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
