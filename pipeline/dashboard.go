package pipeline

import (
	"net/http"
	"time"

	"async-data-processor/consumer"
	"async-data-processor/control"
	"async-data-processor/dashboard"
	"async-data-processor/server"
	"async-data-processor/telemetry/metrics"
)

// Paths of what the dashboard tells of the system.
const (
	eventsPath = "/api/v1/events"
	seriesPath = "/api/v1/series"
)

// maxCommands is how many of the last commands a stream tells of.
const maxCommands = 100

// feedAge is how old the System may be that a stream tells of: the parts of one look share
// it.
const feedAge = 100 * time.Millisecond

// keepSeries has the process keep its numbers for 15 minutes.
func (p parts) keepSeries(process *process, counted *metrics.Metrics) {
	process.series = dashboard.NewSeries(dashboard.SeriesConfig{
		Bus: process.broker, Skips: &process.skips,
		Node:   func() string { return process.node.ID() },
		Others: func() ([]string, bool) { return process.node.Awaited() },
		Numbers: func() (n dashboard.Numbers) {
			accepted, written, dead := counted.Totals()
			if p.server {
				n.Accepted = &accepted
			}
			if p.consumer {
				n.Written, n.Dead = &written, &dead
				n.Queued, n.Oldest = backlogOf(process.set.Status(), time.Now())
			}
			return n
		},
	})
	process.meanwhile = append(process.meanwhile, process.series.Run)
}

// backlogOf returns how many envelopes wait for the shards that are owned, nil if that is not
// known of all; and the age of the oldest message that is in no file, nil if it is known of
// none.
func backlogOf(status consumer.Status, now time.Time) (queued *int64, oldest *time.Duration) {
	sum, known := int64(0), true
	for _, sh := range status {
		if !sh.Owned {
			continue
		}
		known = known && sh.Queued >= 0
		sum += int64(sh.Queued)
		if !sh.OldestKnown {
			continue
		}
		age := time.Duration(0)
		if !sh.Oldest.IsZero() {
			age = max(0, now.Sub(sh.Oldest))
		}
		if oldest == nil || age > *oldest {
			oldest = &age
		}
	}
	if known {
		queued = &sum
	}
	return queued, oldest
}

// dashboardRoutes tell what is new of the system, and its last 15 minutes.
func dashboardRoutes(p *process) []server.Route {
	return []server.Route{
		{Method: http.MethodGet, Path: seriesPath, For: server.Viewers, Handler: p.series},
		{Method: http.MethodGet, Path: eventsPath, For: server.Viewers, Handler: p.feed},
	}
}

// newFeed returns the feed of the process. Its node, which it asks, may come later.
func newFeed(p *process) *dashboard.Feed {
	ofSystem := func(name string, form dashboard.Form, rows func(*control.System) []control.Row) dashboard.Part {
		return dashboard.Part{Name: name, Form: form, Look: func() dashboard.State {
			s := p.node.SystemWithin(feedAge)
			return told(s.Head(), rows(s))
		}}
	}
	all := []dashboard.Part{
		ofSystem("overview", dashboard.Value, func(s *control.System) []control.Row { return []control.Row{s.OverviewRow()} }),
		ofSystem("shards", dashboard.Rows, (*control.System).ShardRows),
		ofSystem("nodes", dashboard.Rows, (*control.System).NodeRows),
		{Name: "workers", Form: dashboard.Rows, Look: func() dashboard.State {
			a := p.node.Workers.All()
			s := told(a.Head, a.Rows())
			s.More = a.Next != ""
			return s
		}},
		{Name: "commands", Form: dashboard.Rows, Look: func() dashboard.State {
			a := p.commands.List("", maxCommands)
			s := told(a.Head, a.Rows())
			s.More = a.Next != ""
			return s
		}},
		{Name: "series", Form: dashboard.Points, Look: p.series.Look},
	}
	if p.runs != nil {
		all = append(all, jobsParts(p.runs.service)...)
	}
	return dashboard.NewFeed(all, server.ClientKey)
}

// told is what control tells, for a stream.
func told(h control.Head, rows []control.Row) dashboard.State {
	s := dashboard.State{AsOf: h.AsOf, Node: h.Node, Complete: h.Complete, Rows: make([]dashboard.Row, len(rows))}
	for i, r := range rows {
		s.Rows[i] = dashboard.Row(r)
	}
	return s
}

// pageRoutes serve the page to everybody: its files hold no data.
func pageRoutes() (routes []server.Route) {
	h := dashboard.Page()
	for _, path := range dashboard.Paths() {
		routes = append(routes, server.Route{Method: http.MethodGet, Path: path, Handler: h}, server.Route{Method: http.MethodHead, Path: path, Handler: h})
	}
	return routes
}
