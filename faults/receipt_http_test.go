package faults

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// TestReceiptInATerminal follows a submission with curl, at every process of a system: it
// prints lines and ends by itself. After a restart of all of them it is still known.
func TestReceiptInATerminal(t *testing.T) {
	for name, broker := range map[string]func(testing.TB) rig.Broker{"embedded": rig.NewStore, "rabbitmq": rig.NewVhost, "jetstream": rig.NewNATS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := broker(t)
			settings := []string{"DATA_OUTPUT_DIR=" + t.TempDir(), "SHARDS_COUNT=3", "BATCH_LINGER=2s"}
			consumer, server := b.Launch(t, settings...)
			status, receipt, header := server.Post(rig.Entries(0, 7))
			place := header.Get("Location")
			if status != http.StatusCreated || place != "/submissions/"+receipt.ID {
				t.Fatalf("got %d at %q", status, place)
			}
			nodes := []*rig.Process{server, consumer}
			printed := make(chan error, len(nodes)+1)
			for _, p := range nodes {
				go func() { printed <- followed(t.Context(), "http://"+p.Addr+place) }()
			}
			followers := len(nodes)
			if folder, ok := strings.CutPrefix(b.Server, "embedded://"); ok {
				followers++
				go func() {
					printed <- followed(t.Context(), "http://localhost"+place, "--unix-socket", folder+"/control.sock")
				}()
			}
			for range followers {
				if err := <-printed; err != nil {
					t.Error(err)
				}
			}
			for _, p := range nodes {
				if status, body := p.Get("/submissions/01JD8Y6G5V3X9Q2R7T4B1C0003"); status != http.StatusNotFound {
					t.Errorf("one that is not known: %d %s", status, body)
				}
			}

			server.Stop()
			if consumer != server {
				consumer.Stop()
			}
			consumer, server = b.Launch(t, settings...)
			for _, p := range []*rig.Process{server, consumer} {
				rig.Eventually(t, "the receipt after the restart", func() error {
					if status, body := p.Get(place); status != http.StatusOK || !strings.Contains(body, `"written":7,"dead":0,"pending":0,"done":true`) {
						return fmt.Errorf("got %d %s", status, body)
					}
					return nil
				})
			}
			// What is accepted now is in a file when the answer says so.
			if status, r, _ := server.Post(rig.Entries(7, 1), "Prefer", "wait=20"); r.Written != 1 || r.Dead != 0 || !r.Done {
				t.Errorf("waited for: %d %+v", status, r)
			}
		})
	}
}

// followed is what is wrong with what curl prints of a submission of seven.
func followed(ctx context.Context, url string, flags ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "curl", append(flags, "-sSN", "-H", "Accept: text/plain", url)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("curl: %w: %s", err, out)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if last := lines[len(lines)-1]; len(lines) < 2 || last != "written: 7 of 7 written, 0 dead, 0 pending" {
		return fmt.Errorf("curl printed %q", out)
	}
	return nil
}
