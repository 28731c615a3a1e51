package dashboard

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/problem"
)

const (
	// seriesStep is the time between two samples, seriesLength how long they are kept.
	seriesStep   = 5 * time.Second
	seriesLength = 15 * time.Minute
	maxSamples   = int(seriesLength/seriesStep) + 1
	// liveAge is how old the newest number may be that a process answers.
	liveAge = time.Second
	// maxLive is how many such numbers a process keeps.
	maxLive = 32
	// hungAfter is how old the newest number of a process may be until its newest points
	// are told without waiting for it.
	hungAfter = 2 * seriesStep
	// seriesTopic is where a process answers with its samples.
	seriesTopic = "dashboard.series"
)

// Numbers are what a process counts since its start, and how much waits for it.
type Numbers struct {
	// Accepted counts messages; nil in a process without a server.
	Accepted *int64
	// Written and Dead count messages; nil in a process that consumes nothing.
	Written, Dead *int64
	// Queued is how many envelopes wait in the queues of its shards; nil if not known.
	Queued *int64
	// Oldest is how long ago the oldest message of its shards was accepted that is in no
	// file, 0 if there is none; nil if not known.
	Oldest *time.Duration
}

// Series keeps the numbers of this process for 15 minutes, and sums up those of all
// processes. Each process tells how old its numbers are: clocks are not compared.
type Series struct {
	cfg SeriesConfig

	mu      sync.Mutex // guards what follows
	samples []sample   // the newest first
	live    []sample   // between them, that were answered; the newest first

	gather sync.Mutex // held while processes are asked; guards what follows
	last   *SeriesAnswer
	asked  time.Time // when the newest sample was taken that last begins with
}

// SeriesConfig sets up a Series.
type SeriesConfig struct {
	Bus broker.Bus
	// Skips counts what on the bus cannot be used; nil counts nothing.
	Skips *broker.Skips
	// Node returns the name of this process.
	Node func() string
	// Others returns the names of the other processes that are there, and whether the bus is.
	Others func() (names []string, connected bool)
	// Numbers returns those of this process.
	Numbers func() Numbers
}

// sample is what a process had at a time.
type sample struct {
	at time.Time
	Numbers
}

// Point is what the whole system did in a step. What is not known is nil.
type Point struct {
	At       time.Time `json:"at"` // its end
	Accepted *float64  `json:"accepted_per_s"`
	Written  *float64  `json:"written_per_s"`
	// Dead is how many dead letters were made in the step.
	Dead *int64 `json:"dead"`
	// Queued is in envelopes, at the end.
	Queued *int64 `json:"queued"`
	// Oldest is the age of the oldest message that is in no file, in seconds, at the end.
	Oldest *float64 `json:"oldest_unwritten_age_s"`
}

// SeriesAnswer is the answer of GET /api/v1/series.
type SeriesAnswer struct {
	AsOf time.Time `json:"as_of"`
	Node string    `json:"node"`
	// Complete tells that every process has answered. Else sums are without it.
	Complete bool    `json:"complete"`
	Step     float64 `json:"step_s"`
	Points   []Point `json:"points"` // the oldest first
}

// NewSeries returns a Series without samples.
func NewSeries(cfg SeriesConfig) *Series { return &Series{cfg: cfg} }

// Run takes samples, and answers the others, until ctx ends.
func (s *Series) Run(ctx context.Context) {
	defer s.cfg.Bus.Answer(seriesTopic, s.answer)()
	tick := time.NewTicker(seriesStep)
	defer tick.Stop()
	for {
		s.sample()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Series) sample() {
	now := sample{time.Now(), s.cfg.Numbers()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = slices.Insert(s.samples[:min(len(s.samples), maxSamples-1)], 0, now)
}

// seen returns the samples, the newest first.
func (s *Series) seen() []sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.samples)
}

// now returns the samples with one that is not older than liveAge, the newest first. It
// keeps that for a while: who was told a step up to there is told the next one from there.
func (s *Series) now() []sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := time.Time{}
	for _, all := range [][]sample{s.live, s.samples} {
		if len(all) > 0 && all[0].at.After(newest) {
			newest = all[0].at
		}
	}
	if time.Since(newest) >= liveAge {
		s.live = slices.Insert(s.live[:min(len(s.live), maxLive-1)], 0, sample{time.Now(), s.cfg.Numbers()})
	}
	all := slices.Concat(s.live, s.samples)
	slices.SortFunc(all, func(a, b sample) int { return b.at.Compare(a.at) })
	return all
}

// Answer returns the series of the whole system. All callers share one question to the
// others in a step. It takes up to a second while one does not answer.
func (s *Series) Answer() *SeriesAnswer {
	s.gather.Lock()
	defer s.gather.Unlock()
	own := s.seen()
	if len(own) == 0 {
		return &SeriesAnswer{AsOf: time.Now().UTC().Truncate(time.Millisecond), Node: s.cfg.Node(), Step: seriesStep.Seconds(), Points: []Point{}}
	}
	if s.last == nil || !s.asked.Equal(own[0].at) {
		s.last, s.asked = s.ask(own), own[0].at
	}
	return s.last
}

// ask asks the others.
func (s *Series) ask(own []sample) *SeriesAnswer {
	began := time.Now()
	a := &SeriesAnswer{AsOf: began.UTC().Truncate(time.Millisecond), Node: s.cfg.Node(), Step: seriesStep.Seconds()}
	others, connected := s.cfg.Others()
	all := [][]aged{age(own, began)}
	if connected && len(others) > 0 {
		room := maxSeries
		ctx, cancel := context.WithTimeout(context.Background(), broker.AskTimeout)
		defer cancel()
		question := broker.Body(map[string]any{"v": broker.BusVersion, "node": a.Node})
		// An error means that those that have not answered are unknown.
		_ = s.cfg.Bus.Ask(ctx, seriesTopic, question, func(answer []byte) bool {
			node, numbers, err := readSeries(answer)
			i := slices.Index(others, node)
			s.cfg.Skips.Add(err)
			if room -= len(answer); err == nil && i >= 0 {
				others = slices.Delete(others, i, i+1)
				all = append(all, numbers)
			}
			return room > 0 && len(others) > 0
		})
	}
	a.Complete = connected && len(others) == 0
	a.Points = sum(own, all, began)
	return a
}

// Look is that of a Part with the form Points.
func (s *Series) Look() State {
	a := s.Answer()
	state := State{AsOf: a.AsOf, Node: a.Node, Complete: a.Complete, Rows: make([]Row, len(a.Points))}
	for i, p := range a.Points {
		state.Rows[i] = Row{Key: stamp(p.At), Text: func() []byte {
			text, _ := json.Marshal(p)
			return text
		}}
	}
	return state
}

// ServeHTTP implements http.Handler for GET.
func (s *Series) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if _, err := problem.Query(r); err != nil {
		problem.BadQuery(w, err)
		return
	}
	problem.JSON(w, http.StatusOK, s.Answer())
}
