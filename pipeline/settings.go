package pipeline

import (
	"encoding/json"
	"net/http"
	"time"

	"async-data-processor/control"
	"async-data-processor/server"
)

// settingsPath shows the settings of the process that is asked.
const settingsPath = "/api/v1/settings"

// Setting is a setting as it is in force.
type Setting struct {
	// Name is that of its flag, Variable the first variable that sets it.
	Name     string `json:"name"`
	Variable string `json:"variable"`
	// Value is as a person writes it, without secrets.
	Value string `json:"value"`
	// Default tells that Value is the default.
	Default bool `json:"default"`
}

// settingsRoutes show the settings of a process.
func settingsRoutes(p *process) []server.Route {
	return []server.Route{{Method: http.MethodGet, Path: settingsPath, For: server.Viewers, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			text, _ := json.Marshal(struct { // it has no value that could fail
				control.Head
				Settings []Setting `json:"settings"`
			}{control.Head{AsOf: time.Now().UTC().Truncate(time.Millisecond), Node: p.node.ID(), Complete: true}, append([]Setting{}, p.cfg.Shown...)})
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(append(text, '\n')) // the client may be gone
		})}}
}
