package consumer

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/output"
	"async-data-processor/workerpool"
)

// Set owns shards. Its methods may be called concurrently.
type Set struct {
	cfg Config
	// failed ends, with the reason, when a shard can never go on. Shards whose
	// output takes nothing then give up at once.
	failed context.Context
	fail   context.CancelCauseFunc
	// changed wakes up reconcile; it holds one wake-up.
	changed chan struct{}
	// outage is of the folder of all shards.
	outage outage
	// standby is how many shards wait for another owner of their folder.
	standby atomic.Int64

	mu       sync.Mutex // guards what follows
	assigned map[int]bool
	extra    map[int]bool // beyond the number of shards, with a queue; true once it was told to be drained
	left     map[int]bool // beyond the number of shards, with an open file
	running  map[int]*shard
	past     map[int][]event.Worker // the workers of pools that have ended, by shard
	ages     ages                   // by shard, also of those that do not run
	last     map[int]int            // the number of the newest worker, by shard
	opening  map[int]bool           // that are being opened for the first time; nil once that was told
	began    time.Time              // when Run did
}

// New returns a Set to which no shard is assigned.
func New(cfg Config) *Set {
	cfg.Rules = cmp.Or(cfg.Rules, message.Strict)
	s := &Set{
		cfg: cfg, changed: make(chan struct{}, 1),
		assigned: make(map[int]bool), extra: make(map[int]bool), left: make(map[int]bool),
		running: make(map[int]*shard), past: make(map[int][]event.Worker), last: make(map[int]int), ages: make(ages), opening: make(map[int]bool),
	}
	if s.cfg.Open == nil {
		s.cfg.Open = func(ctx context.Context, n int, onStandby func()) (Folder, error) {
			return cfg.Dir.Shard(ctx, n, onStandby)
		}
	}
	s.failed, s.fail = context.WithCancelCause(context.Background())
	s.outage = newOutage(&s.cfg, fmt.Sprintf("folder %s", cfg.Dir.Path()))
	return s
}

func newOutage(cfg *Config, what string) outage {
	return outage{
		what: what, patience: cfg.ErrorTimeout,
		quiet: cfg.WorkerTimeout + 2*retryMax, // more than an attempt and the pause before it
	}
}

// FolderMet takes what another look at the output's folder has found, nil if nothing is
// wrong. The Set ends with ErrOutputFailed, as for a failing shard, if an error other
// than a lack of space goes on for longer than Config.ErrorTimeout.
func (s *Set) FolderMet(err error) {
	if err == nil {
		s.outage.over()
	} else if err := s.outage.met(err); err != nil {
		s.fail(err)
	}
}

// Standby returns how many shards wait because another process owns their folder. It
// costs a load.
func (s *Set) Standby() int { return int(s.standby.Load()) }

// countStandby counts a shard that comes to a state, or leaves it. mu is held.
func (s *Set) countStandby(state event.ShardState, change int64) {
	if state == event.ShardStandby {
		s.standby.Add(change)
	}
}

// Start assigns a shard to the Set, which owns it from then on, when no other
// process does. It does not wait for that.
func (s *Set) Start(shard int) { s.assign(shard, true) }

// Stop takes a shard from the Set. What of it was received is finished and
// settled, then its folder is free for another owner. Stop does not wait for
// that: see Status.
func (s *Set) Stop(shard int) { s.assign(shard, false) }

func (s *Set) assign(shard int, to bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.assigned[shard] = to
	s.wake()
}

// wake has the shards compared with what they should be.
func (s *Set) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Failed ends, with the reason, when a shard can never go on; then the process
// has to end.
func (s *Set) Failed() context.Context { return s.failed }

// Run owns the shards until intake ends. Then every shard finishes what it has
// received, and Run returns; it gives up on that when work ends. It is called
// once. The error is why a shard could not go on, or not finish.
func (s *Set) Run(intake, work context.Context) error {
	defer s.fail(nil)
	intake, stop := context.WithCancelCause(intake)
	defer stop(nil)
	defer context.AfterFunc(s.failed, func() { stop(context.Cause(s.failed)) })()
	var others sync.WaitGroup
	s.began = time.Now()
	others.Go(func() { s.lookForQueues(intake) })
	others.Go(func() { s.lookForFiles(intake) })
	others.Go(func() { measurer{s}.run(intake) })

	ended := make(chan *shard)
	err := s.reconcileAll(intake, work, ended)
	others.Wait()
	return cmp.Or(err, context.Cause(s.failed)) // of the folder of shards that had nothing to write
}

// reconcileAll starts and stops shards until intake has ended and none runs any
// more. It alone changes which shards run.
func (s *Set) reconcileAll(intake, work context.Context, ended chan *shard) (err error) {
	done := intake.Done()
	for {
		if s.reconcile(intake, work, ended) == 0 && intake.Err() != nil {
			return err
		}
		select {
		case <-s.changed:
		case <-done:
			done = nil
		case sh := <-ended:
			if e := s.remove(sh, intake.Err() != nil); e != nil && err == nil {
				err = e
			}
		}
	}
}

// reconcile starts the shards that should run and do not, and stops those that
// run and should not. It returns how many run.
func (s *Set) reconcile(intake, work context.Context, ended chan<- *shard) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := s.wanted()
	for n, sh := range s.running {
		if p, ok := wanted[n]; !ok || p != sh.purpose {
			sh.stop()
		}
	}
	if intake.Err() == nil && s.failed.Err() == nil {
		for _, n := range slices.Sorted(maps.Keys(wanted)) {
			if s.running[n] != nil {
				continue
			}
			sh := newShard(s, intake, n, wanted[n])
			s.running[n] = sh
			if s.opening != nil && sh.purpose == toConsume {
				s.opening[n] = true
			}
			go func() {
				sh.err = sh.run(work)
				close(sh.ended)
				ended <- sh
			}()
		}
	}
	return len(s.running)
}

// purpose is what a shard is owned for.
type purpose bool

const (
	toConsume     purpose = true
	toPublishFile purpose = false // the open file that a crash has left
)

// wanted returns what this process should own, and for what. mu is held.
func (s *Set) wanted() map[int]purpose {
	wanted := make(map[int]purpose)
	for n := range s.left {
		wanted[n] = toPublishFile
	}
	for n := range s.extra {
		wanted[n] = toConsume
	}
	for n, assigned := range s.assigned { // what was said of a shard outweighs what was found
		delete(wanted, n)
		if assigned {
			wanted[n] = toConsume
		}
	}
	return wanted
}

// remove forgets a shard that has ended. It returns the error that ends the Set.
func (s *Set) remove(sh *shard, draining bool) error {
	stopped := sh.stopping.Err() != nil
	sh.stop()
	s.mu.Lock()
	s.countStandby(sh.state, -1)
	delete(s.running, sh.n)
	sh.age.forget()
	if sh.purpose == toPublishFile {
		delete(s.left, sh.n)
	}
	s.mu.Unlock()
	end, err := event.ShardChanged{Shard: sh.n, State: event.ShardStopped}, sh.err
	if stopped && !draining && s.failed.Err() == nil {
		end.Err, err = err, nil // the Set does not need the shard any more
	}
	s.cfg.Events.Send(end)
	if !draining {
		s.opened(sh.n) // it may have been stopped before it was open
	}
	if err != nil && !draining {
		s.fail(err)
	}
	return err
}

// opened tells, when no shard is being opened for the first time any more, how many
// run. One that has begun to wait for its folder counts as told of.
func (s *Set) opened(n int) {
	s.mu.Lock()
	delete(s.opening, n)
	if s.opening == nil || len(s.opening) > 0 {
		s.mu.Unlock()
		return
	}
	s.opening = nil
	e := event.ShardsOpened{Shards: len(s.running), Took: time.Since(s.began)}
	for _, sh := range s.running {
		switch sh.state {
		case event.ShardRunning, event.ShardPaused:
			e.Owned++
		case event.ShardStandby:
			e.Standby++
		}
	}
	s.mu.Unlock()
	s.cfg.Events.Send(e)
}

// Sought returns the shards of a Set, ascending, for whose folder another process has
// waited since the last call, one that could write them. The first call says nothing. It
// has one caller at a time. It asks the disk.
func Sought(s *Set) (shards []int) {
	folders := make(map[int]Folder)
	s.mu.Lock()
	for n, sh := range s.running {
		if sh.folder != nil {
			folders[n] = sh.folder
		}
	}
	s.mu.Unlock()
	for n, f := range folders {
		if f.Sought() {
			shards = append(shards, n)
		}
	}
	slices.Sort(shards)
	return shards
}

// History returns a record of every worker that ever lived. Of each shard it sums up those
// beyond the last thousand that have stopped.
func (s *Set) History() (workers []event.Worker) {
	s.mu.Lock()
	for _, n := range slices.Sorted(maps.Keys(s.past)) {
		workers = append(workers, s.past[n]...)
	}
	var pools []*workerpool.Pool
	for _, n := range slices.Sorted(maps.Keys(s.running)) {
		if p := s.running[n].pool; p != nil {
			pools = append(pools, p)
		}
	}
	s.mu.Unlock()
	for _, p := range pools {
		workers = append(workers, p.History()...)
	}
	return workers
}

// lastWorker returns the number of the newest worker of a shard.
func (s *Set) lastWorker(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[n]
}

// use makes the pool that of the shard, and giveUp what ends it.
func (s *Set) use(sh *shard, pool *workerpool.Pool, giveUp func(why error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh.pool, sh.giveUp = pool, giveUp
	pool.Resize(sh.control.bounds(s.cfg))
}

// retire keeps of the shard's pool, which has ended, its history only.
func (s *Set) retire(sh *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past[sh.n] = workerpool.Fold(append(s.past[sh.n], sh.pool.History()...))
	s.last[sh.n] = sh.pool.Last()
	sh.pool, sh.giveUp = nil, nil
}

var _ Folder = (*output.Shard)(nil)
