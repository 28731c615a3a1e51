package main

import (
	"bytes"
	"encoding/json"
	"errors"
	stdlog "log"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/pipeline"
)

// output is a stderr that fails while it has an error.
type output struct {
	mu   sync.Mutex
	err  error
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	return o.text.Write(p)
}

func (o *output) fails(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
}

// TestAllIsInTheLog: what the process says is a line of its log, whoever says it: lines
// that are missing, libraries, and why it ends.
func TestAllIsInTheLog(t *testing.T) {
	for format, want := range map[string]string{
		"json": `{"level":"info","component":"server","shard":3,"worker":"3-1","error":"bad","zone":1,"message":"line"}
{"level":"warn","dropped":1,"error":"disk full","message":"lines of the log are missing, stderr did not take them"}
{"level":"info","component":"","by":"","from":"@","messages":0,"message":"empty"}
{"level":"warn","message":"a library"}
{"level":"error","error":"too late","message":"stopped"}
`,
		"console": `INF line component=server shard=3 worker=3-1 error=bad zone=1
WRN lines of the log are missing, stderr did not take them error="disk full" dropped=1
INF empty messages=0
WRN a library
ERR stopped error="too late"
`,
	} {
		out := &output{}
		told := newMessages(out)
		defer stdlog.SetOutput(os.Stderr)
		cfg := pipeline.DefaultConfig()
		cfg.LogFormat = format
		log := told.logTo(cfg)
		if told.people(cfg) {
			t.Error("no one is at a terminal")
		}

		out.fails(errors.New("disk full"))
		log.Info().Msg("lost")
		for told.Lost() == 0 {
			time.Sleep(time.Millisecond)
		}
		out.fails(nil)
		log.Info().Str("component", "server").Int("shard", 3).Str("worker", "3-1").Str("error", "bad").Int("zone", 1).Msg("line")
		for done := false; !done; time.Sleep(time.Millisecond) {
			out.mu.Lock()
			done = strings.Contains(out.text.String(), "missing")
			out.mu.Unlock()
		}
		log.Info().Str("component", "").Str("by", "").Str("from", "@").Int("messages", 0).Msg("empty")
		stdlog.Print("a library")
		told.fail(errors.New("too late"))
		if !told.Close(time.Minute) {
			t.Error("Close gives up")
		}
		if got := timeless(t, format, out.text.String()); got != want {
			t.Errorf("%s has\n%s\nwant\n%s", format, got, want)
		}
	}
}

// timeless returns lines of the log without their time.
func timeless(t *testing.T, format, text string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(text) {
		if format == "console" {
			_, line, _ = strings.Cut(line, " ")
			b.WriteString(line)
			continue
		}
		var fields struct{ Time string }
		if err := json.Unmarshal([]byte(line), &fields); err != nil || fields.Time == "" {
			t.Errorf("%q: %v", line, err)
		}
		b.WriteString(strings.Replace(line, `"time":"`+fields.Time+`",`, "", 1))
	}
	return b.String()
}
