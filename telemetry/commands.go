package telemetry

import (
	"github.com/rs/zerolog"

	"async-data-processor/event"
)

// tellCommand logs commands, which is their audit, and what they have paused.
func tellCommand(l *Log, e event.Event) {
	switch e := e.(type) {
	case event.ShardIsPaused:
		level, text := zerolog.InfoLevel, "the shard is paused, its messages wait at the broker"
		if e.Damaged != nil {
			level, text = zerolog.ErrorLevel, "the shard's control file is damaged, so the shard is paused; resume it to write a new one"
		}
		line := l.line(level, ofShard(e.Shard)).Time("since", e.Since).AnErr("error", e.Damaged)
		if !e.Until.IsZero() {
			line = line.Time("until", e.Until)
		}
		line.Str("by", e.By).Str("reason", e.Reason).Msg(text)
	case event.CommandTaken:
		l.line(zerolog.InfoLevel, place{component: "control", shard: -1}).Str("command", e.ID).Str("verb", e.Verb).Str("target", e.Target).
			Str("by", e.By).Str("from", e.From).Str("reason", e.Reason).Msg("command received")
	case event.ShardCommand:
		level, text := zerolog.InfoLevel, "command taken"
		switch {
		case e.Err != nil:
			level, text = zerolog.WarnLevel, "command failed"
		case e.Done:
			text = "command applied"
		}
		line := l.line(level, ofShard(e.Shard)).Str("command", e.ID).Str("verb", e.Verb).Str("by", e.By).Str("reason", e.Reason).
			Str("before", e.Before).Str("after", e.After)
		if e.Repeated {
			line = line.Bool("repeated", true)
		}
		line.AnErr("error", e.Err).Msg(text)
	}
}
