package telemetry

import (
	"github.com/rs/zerolog"

	"async-data-processor/event"
)

var ofJobs = place{component: "jobs", shard: -1}

// tellJobs tells of jobs, their runs and runners.
func tellJobs(l *Log, e event.Event) {
	switch e := e.(type) {
	case event.JobsLoaded:
		level, text := zerolog.InfoLevel, "jobs loaded"
		if e.Err != nil {
			level, text = zerolog.WarnLevel, "cannot take the changed file of jobs, keeping the jobs before"
		}
		l.line(level, ofJobs).Str("file", e.Path).Int("jobs", e.Jobs).AnErr("error", e.Err).Msg(text)
	case event.StateDatabase:
		if e.Err == nil {
			l.line(zerolog.InfoLevel, ofJobs).Msg("the database of jobs answers again")
			return
		}
		l.repeating(zerolog.WarnLevel, "state database", ofJobs).Err(e.Err).Msg("the database of jobs does not answer, jobs wait for it")
	case event.RunnerConnected:
		l.repeating(zerolog.InfoLevel, "runner connected "+e.Runner, ofJobs).Str("runner", e.Runner).Str("version", e.Version).Str("peer", e.Peer).
			Int("slots", e.Slots).Strs("labels", e.Labels).Int("kept", e.Kept).Bool("old", e.Seed).Msg("runner connected")
	case event.RunnerGone:
		l.repeating(zerolog.InfoLevel, "runner gone "+e.Runner, ofJobs).Str("runner", e.Runner).Str("reason", e.Why).Int("runs", e.Held).Msg("runner gone")
	case event.RunEnded:
		line, text := l.line(zerolog.DebugLevel, ofJobs), "run ended"
		if e.State == "queued" {
			text = "attempt ended, the run waits for another one"
		}
		if e.State != "succeeded" {
			line = l.repeating(zerolog.InfoLevel, "run ended "+e.Job+" "+e.State, ofJobs)
		}
		line.Int64("run", e.Run).Int("attempt", e.Attempt).Str("job", e.Job).Str("runner", e.Runner).Str("outcome", e.Outcome).
			Int("exit", e.Exit).Str("reason", e.Why).Str("state", e.State).Dur("elapsed_ms", e.Took).Msg(text)
	case event.RunLost:
		l.repeating(zerolog.WarnLevel, "run lost "+e.Job, ofJobs).Int64("run", e.Run).Int("attempt", e.Attempt).Str("job", e.Job).Str("runner", e.Runner).
			Str("state", e.State).Msg("the runner of a run has not renewed its lease, counting the attempt as lost")
	}
}

// tellFiles tells of the published files for which jobs run.
func tellFiles(l *Log, e event.Event) {
	const failed = "cannot record the published files for their jobs, trying again"
	switch e := e.(type) {
	case event.FilesUnrecorded:
		l.repeating(zerolog.WarnLevel, failed, ofShard(-1)).Int("files", e.Files).Time("since", e.Since).Err(e.Err).Msg(failed)
	case event.FilesRecorded:
		l.line(zerolog.InfoLevel, ofShard(-1)).Dur("elapsed_ms", e.Away).Msg("recorded the published files that waited")
	case event.FilesCaughtUp:
		l.line(zerolog.InfoLevel, ofShard(e.Shard)).Int("files", e.Files).Dur("elapsed_ms", e.Took).
			Msg("recorded the published files that an earlier owner had left")
	}
}
