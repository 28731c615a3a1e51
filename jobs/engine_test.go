package jobs

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// hurtStore is a store that may be away.
type hurtStore struct {
	Store
	mu    sync.Mutex // guards what follows
	hurts bool
}

var errAway = errors.New("the database is away")

// hurt has the store go away, or come back, when no call of it is under way.
func (s *hurtStore) hurt(hurts bool) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurts = hurts
}

func (s *hurtStore) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hurts {
		return errAway
	}
	return nil
}

func (s *hurtStore) Claim(ctx context.Context, c store.Claim) ([]store.Run, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Claim(ctx, c)
}

func (s *hurtStore) Start(ctx context.Context, f store.Fence) (store.Run, bool, error) {
	if err := s.err(); err != nil {
		return store.Run{}, false, err
	}
	return s.Store.Start(ctx, f)
}

func (s *hurtStore) Renew(ctx context.Context, runner string, f []store.Fence) (renewed, cancelling []store.Fence, err error) {
	if err := s.err(); err != nil {
		return nil, nil, err
	}
	return s.Store.Renew(ctx, runner, f)
}

func (s *hurtStore) End(ctx context.Context, f store.Fence, e store.End) (store.Run, bool, error) {
	if err := s.err(); err != nil {
		return store.Run{}, false, err
	}
	return s.Store.End(ctx, f, e)
}

func (s *hurtStore) Unclaim(ctx context.Context, f store.Fence, why string) (store.Run, bool, error) {
	if err := s.err(); err != nil {
		return store.Run{}, false, err
	}
	return s.Store.Unclaim(ctx, f, why)
}

func (s *hurtStore) Clock(ctx context.Context) (time.Time, error) {
	if err := s.err(); err != nil {
		return time.Time{}, err
	}
	return s.Store.Clock(ctx)
}

func (s *hurtStore) ClockWentBack(ctx context.Context) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.ClockWentBack(ctx)
}

func (s *hurtStore) Writable(ctx context.Context) error {
	if err := s.err(); err != nil {
		return err
	}
	return s.Store.Writable(ctx)
}

func (s *hurtStore) Expire(ctx context.Context, limit int) ([]store.Run, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Expire(ctx, limit)
}

func (s *hurtStore) Attempts(ctx context.Context, id int64) ([]store.Attempt, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Attempts(ctx, id)
}

func (s *hurtStore) AppendLog(ctx context.Context, f store.Fence, offset int64, data []byte, cut int64) (int64, error) {
	if err := s.err(); err != nil {
		return 0, err
	}
	return s.Store.AppendLog(ctx, f, offset, data, cut)
}

func (s *hurtStore) Retain(ctx context.Context, keep map[string]int, limit int) (int, error) {
	if err := s.err(); err != nil {
		return 0, err
	}
	return s.Store.Retain(ctx, keep, limit)
}

func (s *hurtStore) Spawn(ctx context.Context, jobs []store.New, limit int) (int, error) {
	if err := s.err(); err != nil {
		return 0, err
	}
	return s.Store.Spawn(ctx, jobs, limit)
}

// TestDatabaseAway: all waits for it, and nothing is lost.
func TestDatabaseAway(t *testing.T) {
	inBubble(t, func(rg *rig) {
		s := &hurtStore{Store: rg.store}
		e := rg.start("node", s)
		p, _ := e.connect("r1", 2, nil)
		run := e.create("hello")
		offer := p.hear(frame.Offer)
		p.take(offer)
		s.hurt(true)
		next := e.create("hello")
		p.say(frame.Frame{Type: frame.Log, Run: run.ID, Attempt: 1, Data: []byte("text")})
		p.say(frame.Frame{Type: frame.End, Run: run.ID, Attempt: 1, Outcome: frame.Exited, Offset: 4})
		p.silent(10 * time.Second)
		if !errors.Is(e.Ready(), errAway) {
			t.Errorf("ready says %v", e.Ready())
		}
		s.hurt(false)
		var kinds []string
		for range 3 {
			var f frame.Frame
			mustJSON(t, p.text(), &f)
			kinds = append(kinds, f.Type)
		}
		slices.Sort(kinds)
		if !slices.Equal(kinds, []string{frame.End, frame.Log, frame.Offer}) {
			t.Errorf("got %v", kinds)
		}
		if got := rg.run(run.ID); got.State != store.Succeeded {
			t.Errorf("the run is %+v", got)
		}
		if got := rg.run(next.ID); got.State != store.Leased {
			t.Errorf("the next run is %+v", got)
		}
		time.Sleep(5 * time.Second)
		if e.Ready() != nil {
			t.Errorf("ready says %v", e.Ready())
		}
		if told := eventsOf[event.StateDatabase](rg); len(told) != 2 || told[0].Err == nil || told[1].Err != nil {
			t.Errorf("told %+v", told)
		}
		s.hurt(true)
		p.say(frame.Frame{Type: frame.Take, Run: next.ID, Attempt: 1})
		p.wantClose(closeLater, "does not answer")
		q := e.dial(false)
		q.say(frame.Frame{Type: frame.Hello, V: 1, Runner: "r1", Slots: 1, Attempts: []frame.Attempt{{Run: next.ID, Attempt: 1}}})
		q.silent(10 * time.Second)
		s.hurt(false)
		q.hear(frame.Welcome)
	})
}

// TestTwoEngines: a run is offered once, whichever engine looks first; one hears of what
// the other has created, and of what is to be cancelled.
func TestTwoEngines(t *testing.T) {
	inBubble(t, func(rg *rig) {
		one, two := rg.start("node-1", rg.store), rg.start("node-2", rg.store)
		time.Sleep(time.Second)
		p, _ := two.connect("r2", 1, nil)
		time.Sleep(lookInterval / 4) // it has looked
		began := time.Now()
		run := one.create("hello")
		offer := p.hear(frame.Offer)
		if took := time.Since(began); took >= lookInterval/2 {
			t.Errorf("the other engine has taken %v to look", took)
		}
		p.take(offer)
		q, _ := one.connect("r1", 1, nil)
		q.silent(10 * time.Second)
		cancelled, err := rg.store.Cancel(context.Background(), run.ID, "test", "enough")
		must(t, err)
		one.Changed(cancelled)
		p.hear(frame.Cancel)
		for range 20 {
			one.create("hello")
		}
		offered := make(map[int64]bool)
		p.end(offer, frame.Cancelled, 0, frame.End)
		for range 10 {
			for _, peer := range []*peer{p, q} {
				o := peer.hear(frame.Offer)
				if offered[o.Run] {
					t.Errorf("the run %d is offered twice", o.Run)
				}
				offered[o.Run] = true
				peer.take(o)
				peer.end(o, frame.Exited, 0, frame.End)
			}
		}
	})
}

// TestEngineDrains: a process that stops sends its runners away, and keeps nothing of theirs.
func TestEngineDrains(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(2)
		e.create("hello")
		taken := p.hear(frame.Offer)
		p.take(taken)
		offered := e.create("hello")
		p.hear(frame.Offer)
		close(p.socket.draining)
		p.hear(frame.Drain)
		p.wantClose(closeDrain, "the engine stops")
		if got := rg.run(offered.ID); got.State != store.Queued || got.Spent != 0 {
			t.Errorf("what was offered is %+v", got)
		}
		if got := rg.run(taken.Run); got.State != store.Running {
			t.Errorf("what was taken is %+v", got)
		}
	})
}

// TestRunnerDrains: a runner that stops gets no more, and may end what it has.
func TestRunnerDrains(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(2)
		e.create("again")
		offer := p.hear(frame.Offer)
		p.take(offer)
		p.say(frame.Frame{Type: frame.Drain})
		time.Sleep(time.Millisecond)
		e.create("hello")
		p.silent(5 * time.Second)
		if v := e.Runners(); len(v) != 1 || !v[0].Draining {
			t.Errorf("the runner is %+v", v)
		}
		p.end(offer, frame.Returned, 0, frame.End)
		if got := rg.run(offer.Run); got.State != store.Queued || got.Spent != 0 {
			t.Errorf("the run is %+v", got)
		}
		p.silent(5 * time.Second)
	})
}

// TestFiles: each file that was recorded becomes a run.
func TestFiles(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(1)
		f := frame.Published{Name: "shard-3/3-1_01JZZZZZZZZZZZZZZZZZZZZZZZ.ndjson", Shard: 3, Lines: 5, Bytes: 400}
		must(t, rg.store.Record(context.Background(), []store.Recorded{{Shard: 3, Files: []frame.Published{f}}}))
		e.Kick()
		offer := p.hear(frame.Offer)
		if offer.File == nil || *offer.File != f || offer.Job != "file" {
			t.Errorf("got %+v", offer)
		}
		p.silent(time.Second)
	})
}

// TestRetain: ended runs beyond what the job keeps are removed.
func TestRetain(t *testing.T) {
	inBubble(t, func(rg *rig) {
		must(t, os.WriteFile(rg.jobs, []byte("hello: {command: x, keep: 2}"), 0o600))
		e, p := rg.pair(1)
		for range 5 {
			e.create("hello")
			offer := p.hear(frame.Offer)
			p.take(offer)
			p.end(offer, frame.Exited, 0, frame.End)
		}
		time.Sleep(2 * retainInterval)
		runs, err := rg.store.Runs(context.Background(), store.Filter{Limit: 100})
		must(t, err)
		if len(runs) != 2 || runs[0].ID != 5 {
			t.Errorf("%d runs are left", len(runs))
		}
	})
}

// TestReload: the jobs follow their file, runners are told, and a broken file changes nothing.
func TestReload(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(1)
		old := e.dial(true)
		old.text()
		must(t, os.WriteFile(rg.jobs, []byte("hello: {command: [echo, new]}\nother: {command: x}\n"), 0o600))
		f := p.hear(frame.Definitions)
		if len(f.Definitions) != 2 || !slices.Equal(f.Definitions[0].Command, []string{"echo", "new"}) {
			t.Errorf("got %+v", f)
		}
		if text := old.text(); text[0] != frame.BinaryDefinitions || !strings.Contains(string(text), `"name":"other"`) {
			t.Errorf("an old runner is told %q", text)
		}
		must(t, os.WriteFile(rg.jobs, []byte("hello: {commnad: x}\n"), 0o600))
		p.silent(10 * time.Second)
		if len(e.Definitions()) != 2 {
			t.Errorf("the jobs are %+v", e.Definitions())
		}
		must(t, os.WriteFile(rg.jobs, []byte("hello: {command: [echo, new]}\nother: {command: x}\n"), 0o600)) // put right
		if f := p.hear(frame.Definitions); len(f.Definitions) != 2 {
			t.Errorf("got %+v", f)
		}
		must(t, os.WriteFile(rg.jobs, []byte("hello: {commnad: x}\n"), 0o600)) // and wrong again
		p.silent(5 * time.Second)
		must(t, os.WriteFile(rg.jobs, []byte("hello: {command: y}\n"), 0o600))
		if f := p.hear(frame.Definitions); len(f.Definitions) != 1 {
			t.Errorf("got %+v", f)
		}
		told := eventsOf[event.JobsLoaded](rg)
		if len(told) != 5 || told[0].Jobs != 2 || told[1].Err == nil || !strings.Contains(told[1].Err.Error(), "line 1") ||
			told[2].Err != nil || told[2].Jobs != 2 || told[3].Err == nil || told[4].Jobs != 1 {
			t.Errorf("told %+v", told)
		}
	})
}

// TestHear: what comes by the bus may be anything.
func TestHear(t *testing.T) {
	inBubble(t, func(rg *rig) {
		e, p := rg.pair(1)
		e.create("hello")
		p.take(p.hear(frame.Offer))
		for _, body := range []string{
			"", "null", "[]", `{"v":2,"node":"x","more":true}`, `{"v":1,"node":"node","runs":[{"id":1,"attempt":1,"cancelling":true}]}`,
			`{"v":1,"node":"x","runs":[{"id":-1,"attempt":99,"state":"what","cancelling":true}]}`, `{"v":1,"runs":{}}`,
		} {
			must(t, rg.bus.Tell(changedTopic, []byte(body)))
		}
		p.silent(2 * time.Second)
		must(t, rg.bus.Tell(changedTopic, []byte(`{"v":1,"node":"x","runs":[{"id":1,"attempt":1,"state":"running","cancelling":true}]}`)))
		p.hear(frame.Cancel)
	})
}
