package telemetry

import (
	"github.com/rs/zerolog"

	"async-data-processor/event"
)

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
