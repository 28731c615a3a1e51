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
	case event.CommandNotAudited:
		l.line(zerolog.WarnLevel, place{component: "control", shard: -1}).Str("command", e.ID).Err(e.Err).
			Msg("the state database does not take the command into its audit; the log has it")
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

// tellDeadLetters logs what clients want of dead letters, which is the audit of that, and
// what became of their tasks.
func tellDeadLetters(l *Log, e event.Event) {
	at := place{component: "dead-letters", shard: -1}
	switch e := e.(type) {
	case event.DeadLettersChange:
		line := l.line(zerolog.InfoLevel, at).Str("do", e.Do)
		if e.Task != "" {
			line = line.Str("task", e.Task)
		}
		if e.Key != "" {
			line = line.Str("key", e.Key).Strs("ids", e.IDs)
		}
		if e.Filter != "" {
			line = line.Str("filter", e.Filter).Time("as_of", e.AsOf).Int("rate", e.Rate)
		}
		if e.Letters >= 0 {
			line = line.Int("letters", e.Letters)
		}
		line.Str("by", e.By).Str("from", e.From).Str("reason", e.Reason).Msg("change of dead letters received")
	case event.DeadLettersTaskEnded:
		l.line(zerolog.InfoLevel, at).Str("task", e.Task).Str("do", e.Do).Str("state", e.State).Int("letters", e.Letters).
			Int("failed", e.Failed).AnErr("error", e.Err).Msg("task with dead letters ended")
	}
}
