package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"async-data-processor/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logged returns the lines of what f sends, without those about lines left out.
func logged(t *testing.T, level zerolog.Level, f func(event.Sink, *Log)) []map[string]any {
	t.Helper()
	return slices.DeleteFunc(loggedAll(t, level, f), func(l map[string]any) bool { return l["message"] == leftOut })
}

// loggedAll returns all lines of what f sends.
func loggedAll(t *testing.T, level zerolog.Level, f func(event.Sink, *Log)) (lines []map[string]any) {
	t.Helper()
	var buf bytes.Buffer
	var hub event.Hub
	l := Start(&hub, zerolog.New(&buf).Level(level), false)
	f(hub.Send, l)
	l.Close()
	for line := range bytes.Lines(buf.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, fields)
	}
	return lines
}

func TestHistoryTellsChanges(t *testing.T) {
	a, b := event.Worker{ID: "0-1", State: event.Idle}, event.Worker{ID: "0-2", State: event.Busy}
	changed := b
	changed.Messages = 5
	lines := logged(t, zerolog.InfoLevel, func(_ event.Sink, l *Log) {
		l.History([]event.Worker{a, b}, false)
		l.History([]event.Worker{a, b}, false)
		l.History([]event.Worker{a, changed}, false)
		l.History([]event.Worker{a, changed}, true)
	})
	var workers []any
	for _, l := range lines {
		if l["message"] != "worker history" {
			t.Errorf("message %q", l["message"])
		}
		workers = append(workers, l["worker"])
	}
	if want := []any{"0-1", "0-2", "0-2", "0-1", "0-2"}; !slices.Equal(workers, want) {
		t.Errorf("told %q, want %q", workers, want)
	}
}

// TestKindsOfRefusalsAreApart: one kind of a refusal does not hide another one.
func TestKindsOfRefusalsAreApart(t *testing.T) {
	lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
		for _, kind := range []string{"not-published", "draining", "not-published", "draining", "too-large", "overloaded", "too-large"} {
			s.Send(event.Refused{Request: event.Request{Status: 503, ID: kind}, Kind: kind})
		}
	})
	var told []string
	for _, l := range lines {
		told = append(told, fmt.Sprint(l["request"]))
	}
	if want := []string{"not-published", "draining", "too-large", "overloaded"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want each kind once", told)
	}
}

// TestProbes: health endpoints are asked every few seconds. Only a change is
// told at info, none as a warning, and they hide no refusal.
func TestProbes(t *testing.T) {
	live := event.Probed{Request: event.Request{Path: "/livez", Status: 200}}
	ok := event.Probed{Request: event.Request{Path: "/readyz", Status: 200}, Readiness: true}
	not := event.Probed{Request: event.Request{Path: "/readyz", Status: 503, Err: errors.New("broker: gone")}, Readiness: true}
	lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
		for _, p := range []event.Probed{live, not, not, ok, live, ok, not, live, not, live, ok, ok} {
			s.Send(p)
		}
		s.Send(event.Refused{Request: event.Request{Path: "/message", Status: 503, Err: errors.New("no confirm")}})
	})
	var got []string
	for _, l := range lines {
		got = append(got, fmt.Sprint(l["level"], l["path"], l["status"]))
	}
	if want := []string{"info/readyz503", "info/readyz200", "info/readyz503", "info/readyz200", "warn/message503"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestOpenedTellsWhatItKnows: what a new owner has read, and what it could not.
func TestOpenedTellsWhatItKnows(t *testing.T) {
	lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
		s.Send(event.ShardOpened{Shard: 1, RemovedTemps: 2, IDs: 30, Files: 4, Took: 5 * time.Millisecond})
		s.Send(event.ShardOpened{Shard: 1, IDs: 3, Files: 1, Damaged: 1, Foreign: 2, Example: "x.ndjson"})
		s.Send(event.ShardOpened{Shard: 1, IDs: 9, Files: 2, Recovered: 1, CutBytes: 70})
	})
	var texts []string
	for _, l := range lines {
		texts = append(texts, fmt.Sprint(l["level"], l["message"], l["ids"], l["files"], l["elapsed_ms"], l["damaged"], l["foreign"], l["file"], l["recovered"], l["cut_bytes"]))
	}
	want := []string{
		fmt.Sprint("info", "shard owned", 30, 4, 5, nil, nil, nil, nil, nil),
		fmt.Sprint("warn", "cannot read the ids of some files, their messages may be written again", nil, nil, nil, 1, 2, "x.ndjson", nil, nil),
		fmt.Sprint("info", "shard owned", 3, 1, 0, nil, nil, nil, nil, nil),
		fmt.Sprint("info", "shard owned", 9, 2, 0, nil, nil, nil, 1, 70),
	}
	if !slices.Equal(texts, want) {
		t.Errorf("told %q\nwant %q", texts, want)
	}
}

// TestLostQueue: what is gone is an error, what cannot be asked for a warning.
func TestLostQueue(t *testing.T) {
	lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
		s.Send(event.QueueLost{Name: "q"})
		s.Send(event.QueueLost{Name: "q"}) // which repeats
		s.Send(event.PoliciesUnknown{Err: errors.New("status 401")})
	})
	var got []string
	for _, l := range lines {
		got = append(got, fmt.Sprint(l["level"], " ", l["component"], " ", l["queue"], " ", l["error"]))
	}
	if want := []string{"error broker q <nil>", "warn broker <nil> status 401"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestManyShardsShareALine: the start and the drain of many shards is a line each.
func TestManyShardsShareALine(t *testing.T) {
	for shards, want := range map[int][]string{
		fewShards:     {"message-consumer started", "shard owned", "worker started", "worker started", "worker stopped"},
		fewShards + 1: {"message-consumer started", "shards owned"},
	} {
		lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
			s.Send(event.Started{Component: "message-consumer", Broker: "embedded://", Shards: shards})
			s.Send(event.ShardOpened{Shard: 1})
			s.Send(event.WorkerStarted{Worker: event.Worker{WhyStarted: "minimum"}})
			s.Send(event.ShardsOpened{Shards: shards, Owned: shards - 1, Standby: 1, Took: time.Second})
			s.Send(event.WorkerStarted{Worker: event.Worker{WhyStarted: "batches wait"}})
			s.Send(event.WorkerStopped{Worker: event.Worker{WhyStopped: "drained"}})
		})
		var got []string
		for _, l := range lines {
			got = append(got, fmt.Sprint(l["message"]))
			if l["message"] == "shards owned" && fmt.Sprint(l["shards"], l["owned"], l["standby"], l["elapsed_ms"]) != fmt.Sprint(shards, shards-1, 1, 1000) {
				t.Errorf("got %v", l)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d shards: told %q, want %q", shards, got, want)
		}
	}
}

func TestLevelsAreHeld(t *testing.T) {
	lines := logged(t, zerolog.ErrorLevel, func(s event.Sink, _ *Log) {
		s.Send(event.Connection{State: event.Lost, Shard: -1, Err: errors.New("gone"), Retry: time.Second})
		s.Send(event.Connection{State: event.Connected, Shard: 3})
		s.Send(event.BatchReturned{Err: errors.New("x")})
	})
	if len(lines) != 0 {
		t.Errorf("lines below the level: %v", lines)
	}
}

// TestConnectionsAreTold: a connection that never was is not called lost.
func TestConnectionsAreTold(t *testing.T) {
	lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
		s.Send(event.Connection{State: event.Unreachable, Role: "publish", Shard: -1, Err: errors.New("refused"), Retry: time.Second})
		s.Send(event.Connection{State: event.Connected, Role: "publish", Shard: -1})
		s.Send(event.Connection{State: event.Lost, Role: "publish", Shard: -1, Err: errors.New("gone")})
		s.Send(event.Connection{State: event.Cancelled, Role: "consume", Shard: 3})
	})
	var texts []string
	for _, l := range lines {
		texts = append(texts, fmt.Sprintf("%v %v %v %v %v %v", l["level"], l["message"], l["role"], l["shard"], l["error"], l["retry_ms"]))
	}
	want := []string{
		"warn cannot connect to broker publish <nil> refused 1000", "info broker connected <nil> <nil> <nil> <nil>",
		"warn broker connection lost publish <nil> gone <nil>", "warn broker cancelled the consumer consume 3 <nil> <nil>",
	}
	if !slices.Equal(texts, want) {
		t.Errorf("told %q\nwant %q", texts, want)
	}
}

// TestConnectionsAreToldAsOne: a process has two connections to its broker, which come
// and go together.
func TestConnectionsAreToldAsOne(t *testing.T) {
	lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
		both := func(state event.ConnectionState, err error) {
			for _, role := range []string{"publish", "consume"} {
				s.Send(event.Connection{State: state, Role: role, Shard: -1, Err: err})
			}
		}
		both(event.Connected, nil)
		both(event.Lost, errors.New("gone"))
		both(event.Lost, errors.New("still gone"))
		s.Send(event.Connection{State: event.Connected, Role: "consume", Shard: -1})
		s.Send(event.Connection{State: event.Cancelled, Role: "consume", Shard: 3})
		s.Send(event.Connection{State: event.Connected, Role: "publish", Shard: -1})
	})
	var texts []string
	for _, l := range lines {
		texts = append(texts, fmt.Sprint(l["level"], " ", l["message"]))
	}
	want := []string{"info broker connected", "warn broker connection lost", "warn broker cancelled the consumer", "info broker connected"}
	if !slices.Equal(texts, want) {
		t.Errorf("told %q\nwant %q", texts, want)
	}
}

// TestBusIsToldApart: a bus that is missing is told, and when it is back. It neither hides
// nor is hidden by what is told of the broker.
func TestBusIsToldApart(t *testing.T) {
	lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
		send := func(state event.ConnectionState, role string, err error) {
			s.Send(event.Connection{State: state, Role: role, Shard: -1, Err: err})
		}
		send(event.Connected, "publish", nil)
		send(event.Unreachable, "bus", errors.New("denied"))
		send(event.Lost, "publish", errors.New("gone"))
		send(event.Connected, "publish", nil)
		send(event.Connected, "bus", nil)
		send(event.Denied, "bus", errors.New("a subject"))
	})
	var texts []string
	for _, l := range lines {
		text, _, _ := strings.Cut(fmt.Sprint(l["message"]), ",")
		texts = append(texts, fmt.Sprint(l["level"], " ", l["component"], " ", text, " ", l["error"]))
	}
	want := []string{
		"info broker broker connected <nil>", "warn bus no bus denied", "warn broker broker connection lost gone",
		"info broker broker connected <nil>", "info bus bus connected again <nil>", "warn bus the user may not use all of the bus a subject",
	}
	if !slices.Equal(texts, want) {
		t.Errorf("told %q\nwant %q", texts, want)
	}
}

// TestSettleErrorIsToldOnce: one lost connection fails the settle of every envelope in a
// batch, and every batch after it.
func TestSettleErrorIsToldOnce(t *testing.T) {
	lines := logged(t, zerolog.InfoLevel, func(s event.Sink, _ *Log) {
		gone := errors.New("the connection is gone")
		many := []error{gone, errors.New("closed")}
		for i := range 100 {
			many = append(many, gone, fmt.Errorf("other %d", i))
		}
		for range 10 {
			s.Send(event.SettleFailed{Err: errors.Join(many...)})
			s.Send(event.BatchReturned{Err: errors.Join(errors.New("why"), errors.Join(gone, gone))})
		}
	})
	var texts []any
	for _, l := range lines {
		texts = append(texts, l["error"])
	}
	want := []any{
		"the connection is gone (101 times)\nclosed\nother 0\nother 1\nother 2\nand 97 more",
		"why\nthe connection is gone (2 times)",
	}
	if !slices.Equal(texts, want) {
		t.Errorf("told %q\nwant %q", texts, want)
	}
}

// TestPlaceIsFirst: every line begins with what it is about.
func TestPlaceIsFirst(t *testing.T) {
	var buf bytes.Buffer
	var hub event.Hub
	l := Start(&hub, zerolog.New(&buf).Level(zerolog.DebugLevel), false)
	w, bad := event.Worker{ID: "3-1", Shard: 3}, errors.New("x")
	about := map[string][]event.Event{
		`"component":"server","`: {
			event.Started{Component: "server"}, event.Submitted{}, event.Refused{}, event.Served{}, event.Probed{}, event.ConnectionFailed{},
		},
		`"component":"broker","`: {
			event.Connection{State: event.Lost, Shard: -1, Err: bad}, event.StoreCreated{}, event.StoreChecked{}, event.ControlFailed{},
		},
		`"component":"broker","shard":3,"`: {
			event.Connection{State: event.Cancelled, Shard: 3}, event.DeadLettered{Shard: 3}, event.DeadLetterFailed{Shard: 3},
		},
		`"component":"message-consumer","`: {event.OutputChanged{}, event.OutputChanged{Err: bad}, event.OutputChanged{Err: bad, Low: true}, event.LookFailed{}, event.FilesUnrecorded{Err: bad}, event.FilesRecorded{}},
		`"component":"message-consumer","shard":3,"`: {
			event.ShardChanged{Shard: 3, State: event.ShardRetrying},
			event.ShardChanged{Shard: 3, State: event.ShardOpening, Err: bad},
			event.ShardOpened{Shard: 3},
			event.ShardOpened{Shard: 3, Damaged: 1},
			event.FileOverdue{Shard: 3},
			event.FileOverdue{Shard: 3, Damaged: true},
			event.FileRescued{Shard: 3},
			event.FilesCaughtUp{Shard: 3},
			event.EnvelopeUndecodable{Shard: 3},
			event.ExtraShardFound{Shard: 3},
			event.ExtraShardDrained{Shard: 3},
			event.LeftFile{Shard: 3, Err: bad},
		},
		`"component":"workerpool","shard":3,"worker":"3-1","`: {
			event.WorkerStarted{Worker: w},
			event.WorkerStopped{Worker: w},
			event.WorkerTimedOut{Worker: w},
			event.WorkerPanicked{Worker: w},
			event.BatchWritten{Worker: w, Messages: 1, Duplicates: 1},
			event.BatchHeld{Worker: w},
			event.BatchReturned{Worker: w},
			event.MessageDied{Worker: w},
			event.SettleFailed{Worker: w},
		},
	}
	for _, events := range about {
		for _, e := range events {
			hub.Send(e)
		}
	}
	l.Close()
	l.History([]event.Worker{w}, true)
	told := map[string]int{}
	for line := range strings.Lines(buf.String()) {
		_, rest, _ := strings.Cut(line, ",") // the level is before
		begin := ""
		for b := range about {
			if strings.HasPrefix(rest, b) && len(b) > len(begin) {
				begin = b
			}
		}
		told[begin]++
		if begin == "" {
			t.Errorf("told %s", line)
		}
	}
	for begin, events := range about {
		if told[begin] < len(events) {
			t.Errorf("%d lines begin with %s, want %d", told[begin], begin, len(events))
		}
	}
}

// TestDeadLettersAreTold: no level below warn hides that an envelope was set
// apart, or that it could not be.
func TestDeadLettersAreTold(t *testing.T) {
	lines := logged(t, zerolog.WarnLevel, func(s event.Sink, _ *Log) {
		s.Send(event.DeadLettered{Shard: 3, Err: errors.New("it came back too often")})
		s.Send(event.EnvelopeUndecodable{Shard: 3, Envelope: "E1", Err: errors.New("not JSON")}) // told as dead-lettered
		s.Send(event.DeadLetterFailed{Shard: 3, Envelope: "E2", Err: errors.New("blocked")})
	})
	if len(lines) != 2 || lines[0]["error"] != "it came back too often" || lines[1]["envelope"] != "E2" || lines[1]["error"] != "blocked" {
		t.Errorf("lines %v", lines)
	}
}

// stuck is a log whose reader is gone until it is closed.
type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) {
	<-s
	return len(p), nil
}

// TestSlowLogHoldsUpNothing: who sends does not wait for the log; what it
// could not take is counted, and said.
func TestSlowLogHoldsUpNothing(t *testing.T) {
	reader := make(stuck)
	var lines bytes.Buffer
	var hub event.Hub
	l := Start(&hub, zerolog.New(zerolog.MultiLevelWriter(reader, &lines)), false)
	const sent = queueSize + 1000
	for range sent {
		hub.Send(event.ExtraShardDrained{})
	}
	close(reader)
	l.Close()
	written := strings.Count(lines.String(), "drained a queue")
	if written >= sent || written < queueSize || !strings.Contains(lines.String(), fmt.Sprintf(`"dropped":%d`, sent-written)) {
		t.Errorf("%d of %d lines are written, and the others are not told of", written, sent)
	}
}
