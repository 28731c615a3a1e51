package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// State is what is read for each scrape. A function that is nil is of a part that
// the process does not have. They are called concurrently.
type State struct {
	// Shards returns the shards that this process should own; each number is there once.
	Shards func() []Shard
	// Broker returns why the broker takes nothing, nil if it does.
	Broker func() error
	// Output returns how many bytes of its disk were free at the last look, -1 if that is
	// not known, and why it takes nothing, nil if it does.
	Output func() (free int64, err error)
	// Intake returns whether a command has paused the intake of this process's server.
	Intake func() (paused bool)
	// Dropped returns how many lines the log has lost.
	Dropped func() uint64
	// Jobs returns the state of jobs; nil in a process that has none.
	Jobs func() Jobs
	// Database returns whether the database of jobs answers; nil in a process without one.
	Database func() error
	// Unrecorded returns how many published files are not in the database of jobs, and when
	// the oldest of them was begun; nil in a process that records none.
	Unrecorded func() (files int, oldest time.Time)
}

// Jobs is the state of jobs, as an engine sees it.
type Jobs struct {
	// Runs is how many there are of each job that is defined, in each state; nil if that
	// is not known.
	Runs map[string]map[string]int
	// Runners is how many are connected in each state.
	Runners map[string]int
}

// Shard is the state of a shard.
type Shard struct {
	Shard int
	// State is a word of event.ShardState.
	State string
	// Owned tells that this process has its folder, and Paused that a command has ended
	// the consuming.
	Owned, Paused bool
	// Queued is how many envelopes wait in its queue, -1 if that is not known or another
	// process owns the shard. Unsettled is how many were received and not settled.
	Queued, Unsettled int
	// Oldest is when the oldest message was accepted that is in no file; zero if there is
	// none. Known tells whether that is known.
	Oldest time.Time
	Known  bool
	// IDs is how many ids are remembered, and IDsAge how old the oldest of them is.
	IDs    int
	IDsAge time.Duration
	// Workers is how many there are in a state.
	Workers map[string]int
}

var (
	ofShard = []string{"shard"}
	byState = []string{"state"}

	ownedDesc      = prometheus.NewDesc("adp_shard_owned", "1 if this process owns the shard, 0 if it waits for the shard or cannot open it.", ofShard, nil)
	pausedDesc     = prometheus.NewDesc("adp_shard_paused", "1 if a command has paused the shard, 0 if not.", ofShard, nil)
	shardsDesc     = prometheus.NewDesc("adp_shards", "Shards of this process, by state.", byState, nil)
	queuedDesc     = prometheus.NewDesc("adp_queue_envelopes", "Envelopes that wait in the shard's queue, as its owner was told within the last seconds.", ofShard, nil)
	unsettledDesc  = prometheus.NewDesc("adp_unsettled_envelopes", "Envelopes of the shard that were received and not settled.", ofShard, nil)
	ageDesc        = prometheus.NewDesc("adp_oldest_unwritten_age_seconds", "How long ago the shard's oldest message was accepted that is in no file; 0 if there is none.", ofShard, nil)
	idsDesc        = prometheus.NewDesc("adp_remembered_ids", "Ids of written messages that the shard's owner remembers.", ofShard, nil)
	idsAgeDesc     = prometheus.NewDesc("adp_remembered_ids_age_seconds", "How long ago the oldest of them was written.", ofShard, nil)
	workersDesc    = prometheus.NewDesc("adp_workers", "Workers of this process, by state.", byState, nil)
	brokerDesc     = prometheus.NewDesc("adp_broker_up", "1 if the broker takes what this process publishes and lets it consume, else 0.", nil, nil)
	outputDesc     = prometheus.NewDesc("adp_output_up", "1 if the output takes everything, else 0.", nil, nil)
	freeDesc       = prometheus.NewDesc("adp_output_free_bytes", "What this user may still write to the output's disk, as last seen.", nil, nil)
	intakeDesc     = prometheus.NewDesc("adp_intake_paused", "1 if a command has paused the intake of this process's server, 0 if not.", nil, nil)
	runsDesc       = prometheus.NewDesc("adp_runs", "Runs of a job, by state; those that have ended, as far as they are kept.", []string{"job", "state"}, nil)
	runnersDesc    = prometheus.NewDesc("adp_runners", "Runners that are connected to this process: idle, working, or draining.", byState, nil)
	databaseDesc   = prometheus.NewDesc("adp_state_database_up", "1 if the database of jobs answers, else 0.", nil, nil)
	unrecordedDesc = prometheus.NewDesc("adp_files_unrecorded", "Published files that are not in the database of jobs, as far as that is known.", nil, nil)
	unrecordedAge  = prometheus.NewDesc("adp_oldest_unrecorded_file_age_seconds", "How long ago the oldest of them was begun; 0 if there is none.", nil, nil)

	droppedDesc = prometheus.NewDesc("adp_log_lines_dropped_total", "Lines that the log has lost because its output is slow.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s State) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		ownedDesc, pausedDesc, shardsDesc, queuedDesc, unsettledDesc, ageDesc, idsDesc, idsAgeDesc, workersDesc,
		brokerDesc, outputDesc, freeDesc, intakeDesc, droppedDesc, runsDesc, runnersDesc, databaseDesc, unrecordedDesc, unrecordedAge,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (s State) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	if s.Shards != nil {
		collectShards(s.Shards(), gauge)
	}
	if s.Broker != nil {
		gauge(brokerDesc, truth(s.Broker() == nil))
	}
	if s.Output != nil {
		free, err := s.Output()
		gauge(outputDesc, truth(err == nil))
		if free >= 0 {
			gauge(freeDesc, float64(free))
		}
	}
	if s.Intake != nil {
		gauge(intakeDesc, truth(s.Intake()))
	}
	if s.Dropped != nil {
		to <- prometheus.MustNewConstMetric(droppedDesc, prometheus.CounterValue, float64(s.Dropped()))
	}
	s.collectJobs(gauge)
}

func (s State) collectJobs(gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	if s.Jobs != nil {
		now := s.Jobs()
		for job, runs := range now.Runs {
			for state, n := range runs {
				gauge(runsDesc, float64(n), job, state)
			}
		}
		for state, n := range now.Runners {
			gauge(runnersDesc, float64(n), state)
		}
	}
	if s.Database != nil {
		gauge(databaseDesc, truth(s.Database() == nil))
	}
	if s.Unrecorded != nil {
		files, oldest := s.Unrecorded()
		age := time.Duration(0)
		if !oldest.IsZero() {
			age = max(time.Since(oldest), 0)
		}
		gauge(unrecordedDesc, float64(files))
		gauge(unrecordedAge, age.Seconds())
	}
}

func collectShards(shards []Shard, gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	now := time.Now()
	states, workers := map[string]int{}, map[string]int{}
	for _, sh := range shards {
		n := strconv.Itoa(sh.Shard)
		states[sh.State]++
		for state, count := range sh.Workers {
			workers[state] += count
		}
		gauge(ownedDesc, truth(sh.Owned), n)
		if sh.Owned {
			gauge(pausedDesc, truth(sh.Paused), n)
			gauge(unsettledDesc, float64(sh.Unsettled), n)
			gauge(idsDesc, float64(sh.IDs), n)
			gauge(idsAgeDesc, sh.IDsAge.Seconds(), n)
		}
		if sh.Queued >= 0 {
			gauge(queuedDesc, float64(sh.Queued), n)
		}
		if sh.Known {
			age := time.Duration(0)
			if !sh.Oldest.IsZero() {
				age = max(now.Sub(sh.Oldest), 0)
			}
			gauge(ageDesc, age.Seconds(), n)
		}
	}
	for state, count := range states {
		gauge(shardsDesc, float64(count), state)
	}
	for state, count := range workers {
		gauge(workersDesc, float64(count), state)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
