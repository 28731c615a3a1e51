package main

import (
	"net/http"
	"testing"

	"async-data-processor/faults/rig"
)

// TestProfiles asks each command for them, switched on and not.
func TestProfiles(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		command, setting string
		status           int
	}{
		{"server", "PPROF=true", http.StatusOK},
		{"server", "PPROF=false", http.StatusNotFound},
		{"message-consumer", "PPROF=true", http.StatusOK},
		{"message-consumer", "PPROF=", http.StatusNotFound},
	} {
		p := rig.Start(t, tc.command, tc.setting, "DATA_OUTPUT_DIR="+t.TempDir(), "BROKER_URL=amqp://127.0.0.1:1/")
		if status, _ := p.Get("/debug/pprof/heap"); status != tc.status {
			t.Errorf("%s with %s: got %d, want %d", tc.command, tc.setting, status, tc.status)
		}
		if code := p.Stop(); code != exitClean {
			t.Errorf("%s with %s: exit %d", tc.command, tc.setting, code)
		}
	}
}
