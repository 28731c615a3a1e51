package telemetry

import (
	"fmt"

	"github.com/rs/zerolog"

	"async-data-processor/event"
)

// tellNode tells of the other processes of the system.
func tellNode(l *Log, e event.Event) {
	at := place{component: "control", shard: -1}
	switch e := e.(type) {
	case event.NodeCame:
		l.repeating(zerolog.InfoLevel, "node came "+e.Node, at).Str("node", e.Node).Strs("roles", e.Roles).Str("host", e.Host).
			Msg("another process of the system is there")
	case event.NodeGone:
		l.repeating(zerolog.WarnLevel, "node gone "+e.Node, at).Str("node", e.Node).Dur("silent_ms", e.Silent).
			Msg("another process has been silent for too long, counting it as gone")
	case event.SharesChanged:
		l.repeating(zerolog.InfoLevel, fmt.Sprint("shares ", e.Consumers, " ", e.Mine), at).Int("consumers", e.Consumers).Int("shards", e.Shards).Int("mine", e.Mine).
			Msg("sharing the shards with the other message-consumers")
	case event.IntakeIsPaused:
		line := l.line(zerolog.InfoLevel, at).Time("since", e.Since)
		if !e.Until.IsZero() {
			line = line.Time("until", e.Until)
		}
		line.Str("by", e.By).Str("reason", e.Reason).Msg("the intake is paused, submissions are answered with 503")
	case event.IntakeResumed:
		text := "the intake was resumed"
		if e.Expired {
			text = "the pause of the intake has ended"
		}
		l.line(zerolog.InfoLevel, at).Str("by", e.By).Msg(text)
	}
}
