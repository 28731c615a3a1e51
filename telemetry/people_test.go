package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/event"
)

// watched returns the texts of the lines that people get of what f sends.
func watched(t *testing.T, level zerolog.Level, f func(event.Sink)) (texts []string) {
	t.Helper()
	var buf bytes.Buffer
	var hub event.Hub
	l := Start(&hub, zerolog.New(&buf).Level(level), true)
	f(hub.Send)
	synctest.Wait()
	l.Close()
	l.History([]event.Worker{{ID: "3-1"}}, true)
	l.Tell(event.Drained{})
	for line := range bytes.Lines(buf.Bytes()) {
		var fields struct{ Message string }
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, fields.Message)
	}
	return texts
}

// TestPeople: people see trouble, what was accepted and written, at times, and at the
// end what was done; not the routine. Nothing is told twice, and nothing is missed.
func TestPeople(t *testing.T) {
	routine := []event.Event{
		event.Started{Component: "server", Addr: "127.0.0.1:8080"},
		event.Connection{State: event.Connected, Shard: -1},
		event.ShardOpened{},
		event.WorkerStarted{},
		event.WorkerStopped{},
		event.Probed{Request: event.Request{Status: 200}, Readiness: true},
	}
	happens := func(s event.Sink) {
		for _, e := range routine {
			s.Send(e)
		}
		time.Sleep(10*progressInterval + progressInterval/2)
		s.Send(event.Submitted{Accepted: 1})
		time.Sleep(progressInterval)
		for range 1234 {
			s.Send(event.Submitted{Accepted: 2})
		}
		s.Send(event.BatchWritten{Messages: 1, Batches: 1})
		time.Sleep(progressInterval)
		s.Send(event.BatchWritten{Messages: 2468, Batches: 494, Duplicates: 3})
		s.Send(event.Refused{Request: event.Request{Status: 400, Err: errors.New("bad")}})
		s.Send(event.DeadLettered{Shard: 3, Err: errors.New("poison")})
		time.Sleep(progressInterval)
		s.Send(event.Draining{})
	}
	synctest.Test(t, func(t *testing.T) {
		got := watched(t, zerolog.InfoLevel, happens)
		want := []string{
			"1 request, 1 entry accepted",
			"1,234 requests, 2,468 entries accepted, 1 written in 1 file",
			"request answered", "dead-lettered",
			"1 request, 1 refused, 2,468 entries written in 494 files, 3 not written again, 1 dead letter",
			"draining",
			"drained: 1,236 requests, 1 refused, 2,469 entries accepted, 2,469 written in 495 files, 3 not written again, 1 dead letter",
		}
		if !slices.Equal(got, want) {
			t.Errorf("told %q\nwant %q", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		got := watched(t, zerolog.DebugLevel, happens)
		for _, text := range []string{"server started", "broker connected", "shard owned", "worker started", "worker stopped", "worker history", "health checked"} {
			if !slices.Contains(got, text) {
				t.Errorf("%q is not told at the level debug", text)
			}
		}
	})
}

// TestPeopleOfNothing: a process that did nothing says so, and one whose files roll
// does not call a batch a file.
func TestPeopleOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := watched(t, zerolog.InfoLevel, func(s event.Sink) {
			s.Send(event.Started{Component: "message-consumer", Rolls: true})
			time.Sleep(10 * progressInterval)
		})
		if want := []string{"drained: 0 requests, 0 entries accepted, 0 written in 0 batches, 0 dead letters"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}
