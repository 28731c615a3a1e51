package telemetry

import (
	"fmt"

	"github.com/rs/zerolog"

	"async-data-processor/event"
)

// connection tells of a process's connections to the broker as one: they mostly come
// and go together. So it is connected when all are that were down.
func (l *Log) connection(e event.Connection) {
	if e.Role == "bus" {
		l.bus(e)
		return
	}
	level, text := zerolog.WarnLevel, ""
	key := fmt.Sprint(e.State, " ", e.Role, " ", e.Shard)
	switch e.State {
	case event.Connected:
		delete(l.down, e.Role)
		level, text = l.routine, "broker connected"
		if l.wasDown {
			level = zerolog.InfoLevel
		}
		if l.connected || len(l.down) > 0 {
			level = zerolog.DebugLevel
		} else {
			l.connected, e.Role = true, ""
		}
	case event.Unblocked:
		level, text = zerolog.InfoLevel, "broker takes publishing again"
	case event.Unreachable, event.Lost:
		l.down[e.Role], l.wasDown, l.connected = true, true, false
		key, text = string(e.State), "cannot connect to broker"
		if e.State == event.Lost {
			text = "broker connection lost"
		}
	case event.Blocked:
		text = "broker blocks publishing"
	case event.Cancelled:
		text = "broker cancelled the consumer"
	case event.Unsubscribed:
		text = "cannot consume the shard's queue"
	}
	at := place{component: "broker", shard: e.Shard}
	var line *zerolog.Event
	if level == zerolog.WarnLevel {
		line = l.repeating(level, key, at)
	} else {
		line = l.line(level, at)
	}
	if e.Retry > 0 {
		line = line.Dur("retry_ms", e.Retry)
	}
	if e.Role != "" {
		line = line.Str("role", e.Role)
	}
	line.AnErr("error", e.Err).Msg(text)
}

// bus tells of the connection that the work with entries does not need. It is apart from
// the others, which are told as one.
func (l *Log) bus(e event.Connection) {
	at := place{component: "bus", shard: -1}
	level, text := zerolog.DebugLevel, "bus connected"
	switch e.State {
	case event.Connected:
		if l.noBus {
			level, text = zerolog.InfoLevel, "bus connected again"
		}
		l.noBus = false
	case event.Unreachable, event.Lost:
		l.noBus = true
		level, text = zerolog.WarnLevel, "no bus, entries are written all the same; this process and the others do not hear of each other"
	case event.Denied:
		level, text = zerolog.WarnLevel, "the user may not use all of the bus, entries are written all the same; grant what is missing"
	case event.Blocked:
		text = "broker blocks the bus"
	case event.Unblocked:
		text = "broker takes the bus again"
	}
	line := l.line(level, at)
	if level == zerolog.WarnLevel {
		line = l.repeating(level, text, at)
	}
	if e.Retry > 0 {
		line = line.Dur("retry_ms", e.Retry)
	}
	line.AnErr("error", e.Err).Msg(text)
}
