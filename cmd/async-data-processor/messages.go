package main

import (
	"bytes"
	"fmt"
	"io"
	stdlog "log"
	"maps"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/pipeline"
	"async-data-processor/telemetry"
)

// messages is stderr. All that the process says there goes through one queue, so that
// a reader that is slow, stuck or gone neither holds it up nor ends it.
type messages struct {
	*telemetry.Writer
	terminal bool

	log   atomic.Pointer[zerolog.Logger] // nil until there is one
	drain atomic.Int64                   // the drain time-out, in nanoseconds; 0 while it is not known
}

func newMessages(stderr io.Writer) *messages {
	return &messages{Writer: telemetry.NewWriter(stderr), terminal: isTerminal(stderr)}
}

// logTo makes the process one that logs, as cfg says: what else it has to say is a line
// of the log, too, and a reader that is gone does not end it by SIGPIPE.
func (m *messages) logTo(cfg pipeline.Config) zerolog.Logger {
	signal.Ignore(syscall.SIGPIPE)
	log := m.logger(cfg, m)
	m.OnLost(func(lost uint64, err error) []byte {
		var line bytes.Buffer
		log := m.logger(cfg, &line)
		log.Warn().Uint64("dropped", lost).AnErr("error", err).Msg("lines of the log are missing, stderr did not take them")
		return line.Bytes()
	})
	stdlog.SetFlags(0)
	stdlog.SetOutput(libraries{log})
	m.drain.Store(int64(cfg.DrainTimeout))
	m.log.Store(&log)
	return log
}

// libraries makes lines of the log of what libraries print to that of the standard
// library.
type libraries struct{ log zerolog.Logger }

func (l libraries) Write(line []byte) (int, error) {
	l.log.Warn().Msg(string(bytes.TrimSpace(line)))
	return len(line), nil
}

// logger returns a logger to w, in the format for stderr.
func (m *messages) logger(cfg pipeline.Config, w io.Writer) zerolog.Logger {
	if cfg.LogFormat == "console" || cfg.LogFormat == "auto" && m.terminal {
		w = console(w, m.terminal)
	}
	level, err := zerolog.ParseLevel(cfg.LogLevel)
	if err != nil {
		level = zerolog.InfoLevel // Validate refuses it before
	}
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00" // RFC 3339 in milliseconds; one for all loggers
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// console returns a writer of lines for people: what a line is about stands first, and
// what is empty is left out.
func console(w io.Writer, color bool) zerolog.ConsoleWriter {
	place := []string{"component", "shard", "worker"}
	return zerolog.ConsoleWriter{
		Out: w, NoColor: !color, TimeFormat: "15:04:05.000",
		PartsOrder:    append([]string{zerolog.TimestampFieldName, zerolog.LevelFieldName, zerolog.MessageFieldName}, place...),
		FieldsExclude: place,
		FormatPrepare: func(fields map[string]any) error {
			// "@" is the address of a client of a Unix socket.
			maps.DeleteFunc(fields, func(_ string, value any) bool { return value == "" || value == "@" })
			return nil
		},
		FormatPartValueByName: func(value any, name string) string {
			if value == nil {
				return ""
			}
			return fmt.Sprintf("%s=%v", name, value)
		},
	}
}

// people tells whether a person at a terminal reads the log.
func (m *messages) people(cfg pipeline.Config) bool { return m.terminal && cfg.LogFormat != "json" }

// drainTimeout is how long the drain may take.
func (m *messages) drainTimeout() time.Duration {
	if d := m.drain.Load(); d > 0 {
		return time.Duration(d)
	}
	return pipeline.DefaultConfig().DrainTimeout
}

// fail tells why the process ends.
func (m *messages) fail(err error) {
	if log := m.log.Load(); log != nil {
		log.Error().Err(err).Msg("stopped")
		return
	}
	fmt.Fprintln(m, "Error:", err)
}
