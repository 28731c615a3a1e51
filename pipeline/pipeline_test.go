package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/output"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal records what happens in which order.
type journal struct {
	mu    sync.Mutex
	steps []string
}

func (j *journal) add(step string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.steps = append(j.steps, step)
}

func (j *journal) so() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.steps)
}

// closing is a broker of which only Close matters.
type closing struct {
	broker.Broker
	journal *journal
}

func (c closing) Close() error {
	c.journal.add("broker closed")
	return nil
}

// fakeHalf works for a while after intake has ended.
type fakeHalf struct {
	journal *journal
	finish  time.Duration // how long its drain takes; for ever if negative
	fail    error         // what its work fails with, at once
}

func (h fakeHalf) start(g *errgroup.Group, intake, work context.Context) {
	g.Go(func() error {
		if h.fail != nil {
			return h.fail
		}
		<-intake.Done()
		if h.finish < 0 {
			<-work.Done()
			h.journal.add("gave up")
			return nil
		}
		time.Sleep(h.finish)
		h.journal.add("drained")
		return nil
	})
}

func (h fakeHalf) end() { h.journal.add("end") }

func TestRun(t *testing.T) {
	errBroken := errors.New("broken")
	for name, tc := range map[string]struct {
		halves []fakeHalf
		err    error
		steps  []string
	}{
		"a clean drain closes the broker last": {
			halves: []fakeHalf{{finish: time.Second}, {finish: 2 * time.Second}},
			steps:  []string{"drained", "drained", "broker closed", "end", "end"},
		},
		"a half that fails drains the other": {
			halves: []fakeHalf{{fail: errBroken}, {finish: time.Second}},
			err:    errBroken,
			steps:  []string{"drained", "broker closed", "end", "end"},
		},
		"the deadline makes them give up": {
			halves: []fakeHalf{{finish: -1}},
			err:    ErrDrainDeadline,
			steps:  []string{"gave up", "broker closed", "end"},
		},
		"a half that hangs is left behind": {
			halves: []fakeHalf{{finish: time.Hour}},
			err:    ErrDrainDeadline,
			steps:  []string{"end"},
		},
		"a half that hangs does not hide that the output failed": {
			halves: []fakeHalf{{fail: ErrOutputFailed}, {finish: time.Hour}},
			err:    ErrOutputFailed,
			steps:  []string{"end", "end"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				ctx, signal := context.WithCancel(t.Context())
				time.AfterFunc(time.Minute, signal)
				open := func(Config, event.Sink) (broker.Broker, error) { return closing{journal: &j}, nil }
				var builders []builder
				for _, h := range tc.halves {
					h.journal = &j
					builders = append(builders, func(*plant) (half, error) { return h, nil })
				}
				err := run(ctx, DefaultConfig(), newTeller(zerolog.Nop()), open, builders...)
				if !errors.Is(err, tc.err) {
					t.Errorf("error %v, want %v", err, tc.err)
				}
				if steps := j.so(); !slices.Equal(steps, tc.steps) {
					t.Errorf("steps %q, want %q", steps, tc.steps)
				}
				signal()
				time.Sleep(2 * time.Hour) // for what was left behind
			})
		})
	}
}

func TestRunFailsEarly(t *testing.T) {
	var j journal
	errPort := errors.New("the port is taken")
	open := func(Config, event.Sink) (broker.Broker, error) { return closing{journal: &j}, nil }
	err := run(t.Context(), DefaultConfig(), newTeller(zerolog.Nop()), open,
		func(*plant) (half, error) { return fakeHalf{journal: &j}, nil },
		func(*plant) (half, error) { return nil, errPort })
	if !errors.Is(err, errPort) || !slices.Equal(j.steps, []string{"broker closed", "end"}) {
		t.Errorf("error %v after %q", err, j.steps)
	}
}

// logged returns the log lines that f makes.
func logged(t *testing.T, level zerolog.Level, f func(*teller)) (lines []map[string]any) {
	t.Helper()
	var buf bytes.Buffer
	f(newTeller(zerolog.New(&buf).Level(level)))
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
	lines := logged(t, zerolog.InfoLevel, func(t *teller) {
		t.history([]event.Worker{a, b}, false)
		t.history([]event.Worker{a, b}, false)
		t.history([]event.Worker{a, changed}, false)
		t.history([]event.Worker{a, changed}, true)
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

func TestRepeatedTroubleIsToldSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trouble := event.BatchHeld{Worker: event.Worker{ID: "0-1"}, Err: errors.New("disk full")}
		lines := logged(t, zerolog.InfoLevel, func(t *teller) {
			for range 100 {
				t.event(trouble)
			}
			time.Sleep(repeatInterval)
			t.event(trouble)
		})
		if len(lines) != 2 || lines[0]["error"] != "disk full" || lines[1]["suppressed"] != 99.0 {
			t.Errorf("lines %v", lines)
		}
	})
}

// TestOwnedTellsWhatItKnows: what a new owner has read, and what it could not.
func TestOwnedTellsWhatItKnows(t *testing.T) {
	lines := logged(t, zerolog.InfoLevel, func(t *teller) {
		t.owned(1, 2, output.Recalled{IDs: 30, Files: 4, Took: 5 * time.Millisecond})
		t.owned(1, 0, output.Recalled{IDs: 3, Files: 1, Damaged: 1, Foreign: 2, Example: "x.ndjson"})
		t.owned(1, 0, output.Recalled{IDs: 9, Files: 2, Adopted: 1, Cut: 70})
	})
	var texts []string
	for _, l := range lines {
		texts = append(texts, fmt.Sprint(l["level"], l["message"], l["ids"], l["files"], l["elapsed_ms"], l["damaged"], l["foreign"], l["file"], l["adopted"], l["cut_bytes"]))
	}
	want := []string{
		fmt.Sprint("info", "shard owned", 30, 4, 5, nil, nil, nil, nil, nil),
		fmt.Sprint("warn", "not every file could be read for the ids of its messages, those may be written again", nil, nil, nil, 1, 2, "x.ndjson", nil, nil),
		fmt.Sprint("info", "shard owned", 3, 1, 0, nil, nil, nil, nil, nil),
		fmt.Sprint("info", "shard owned", 9, 2, 0, nil, nil, nil, 1, 70),
	}
	if !slices.Equal(texts, want) {
		t.Errorf("told %q\nwant %q", texts, want)
	}
}

func TestLevelsAreHeld(t *testing.T) {
	lines := logged(t, zerolog.ErrorLevel, func(t *teller) {
		t.brokerEvent(event.Connection{State: event.Lost, Shard: -1, Err: errors.New("gone"), Retry: time.Second})
		t.brokerEvent(event.Connection{State: event.Connected, Shard: 3})
		t.event(event.BatchReturned{Err: errors.New("x")})
	})
	if len(lines) != 0 {
		t.Errorf("lines below the level: %v", lines)
	}
}

// TestDeadLettersAreTold: no level below warn hides that an envelope was set
// apart, whoever did it, or that it could not be.
func TestDeadLettersAreTold(t *testing.T) {
	lines := logged(t, zerolog.WarnLevel, func(t *teller) {
		t.brokerEvent(event.DeadLettered{Shard: 3, Err: errors.New("it came back too often")})
		t.undecodable(3, "E1", "not JSON") // told by the broker's event
		t.unburied(3, "E2", errors.New("blocked"))
	})
	if len(lines) != 2 || lines[0]["error"] != "it came back too often" || lines[1]["envelope"] != "E2" || lines[1]["error"] != "blocked" {
		t.Errorf("lines %v", lines)
	}
}
