// Package runner runs jobs for an engine. A Runner connects to an engine by a WebSocket
// (package jobs/frame), takes as many attempts as it has slots, and runs each as a process
// or a container. Attempts outlast connections and restarts of the engine. A Runner keeps
// their logs and ends until an engine has acknowledged them.
//
// A guard (package jobs/runner/guard) stands between the Runner and each process. It sees
// to it that nothing of an attempt runs when its lease is over, whatever happens to the
// Runner: so an attempt never runs beside the next one of its run.
package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/backoff"
	"async-data-processor/client"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/runner/guard"
)

// Config says what a Runner connects to, and what it has.
type Config struct {
	// URL is that of an engine, with the scheme http, https, ws or wss, and without the path
	// of the resource.
	URL string
	// HTTP makes the connections; nil is http.DefaultClient. Its Timeout must be 0.
	HTTP *http.Client
	// Token is sent as bearer token (RFC 6750), if it is not empty.
	Token string
	// Name is that of the runner among all of the engines, and must be one that Claim has
	// given. Version is the program's.
	Name, Version string
	// Slots is how many attempts run at a time, 1 to frame.MaxSlots. Labels are what jobs may
	// ask for, at most maxLabels.
	Slots  int
	Labels []string
	// Containers is what runs containers: docker, podman, or empty for neither.
	Containers string
	// OutputDir is where the published files are on this machine; empty if they are not.
	OutputDir string
	// Drain is how long attempts have to end when Run has to.
	Drain time.Duration
	// Private are the names of variables that no job gets, as a secret or otherwise.
	Private []string
	// Tell is told what happens. It is called concurrently; nil for no one.
	Tell func(Notice)

	// lease is frame.Lease, or a test's. A beat is a third of it, the fence two thirds.
	lease time.Duration
}

// maxLabels is how many labels a runner may have, and maxLabel the length of one.
const maxLabels, maxLabel = 16, 64

// Notice tells people what happens. What it is not about is zero.
type Notice struct {
	Text string
	// Problem tells that it is one.
	Problem bool
	Err     error
	Run     int64
	Attempt int
	Job     string
	// Outcome, Exit, Why and Took are of an attempt that has ended.
	Outcome frame.Outcome
	Exit    int
	Why     string
	Took    time.Duration
	// Node is the engine's.
	Node string
	// Pause is the time to the next try to connect.
	Pause time.Duration
}

// Runner runs jobs.
type Runner struct {
	cfg      Config
	url      string
	children children

	mu       sync.Mutex // guards what follows
	attempts []*attempt // in the order of the offers
	jobs     map[string]frame.Definition
	link     *link // nil without a connection
	welcome  bool  // an engine has taken this runner once
	draining bool
	changed  chan struct{} // closed when attempts change, and then replaced
}

// New returns a Runner. Its error is one of the configuration.
func New(cfg Config) (*Runner, error) {
	target, err := client.Endpoint(cfg.URL, frame.Path)
	switch {
	case err != nil:
		return nil, err
	case cfg.Slots < 1 || cfg.Slots > frame.MaxSlots:
		return nil, fmt.Errorf("the number of slots is %d, want 1 to %d", cfg.Slots, frame.MaxSlots)
	case len(cfg.Labels) > maxLabels:
		return nil, fmt.Errorf("there are %d labels, want at most %d", len(cfg.Labels), maxLabels)
	case cfg.Drain < 0:
		return nil, fmt.Errorf("the time to drain is %v, want 0 or more", cfg.Drain)
	}
	for _, label := range cfg.Labels {
		if !validName.MatchString(label) || len(label) > maxLabel {
			return nil, fmt.Errorf("a label is %q, want at most %d letters, digits, '.', '_' and '-'", label, maxLabel)
		}
	}
	if cfg.OutputDir != "" {
		if cfg.OutputDir, err = filepath.Abs(cfg.OutputDir); err != nil {
			return nil, fmt.Errorf("the folder of the output: %w", err)
		}
	}
	cfg.HTTP = cmp.Or(cfg.HTTP, http.DefaultClient)
	cfg.lease = cmp.Or(cfg.lease, frame.Lease)
	if cfg.Tell == nil {
		cfg.Tell = func(Notice) {}
	}
	return &Runner{cfg: cfg, url: target.String(), changed: make(chan struct{})}, nil
}

// Run runs attempts until ctx ends. Then it takes no more, lets those that run end within
// Drain, and gives back the others. Its error is one of the first connection: an engine
// refuses the runner for good (client.ErrRefused). The process must have no other children
// than those of Run: it ends descendants that it does not know.
func (r *Runner) Run(ctx context.Context) error {
	// What a killed guard has guarded becomes a child of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of the processes of jobs: %w", err)
	}
	if err := guard.Hide(); err != nil {
		return err
	}
	r.cfg.removeFiles()
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	if r.cfg.Containers != "" {
		r.sweep()
		parts.Go(func() { r.keepSwept(working) })
	}
	refused := make(chan error, 1)
	parts.Go(func() { refused <- r.keepConnected(working) })
	select {
	case err := <-refused:
		return err // before there was an attempt
	case <-ctx.Done():
		r.drain()
		return nil
	}
}

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
)

// keepConnected keeps a connection to an engine.
func (r *Runner) keepConnected(ctx context.Context) error {
	pauses := backoff.Backoff{Min: firstPause, Max: longestPause, Jitter: 0.5}
	for {
		welcomed, err := r.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.mu.Lock()
		first := !r.welcome
		r.mu.Unlock()
		if first && errors.Is(err, client.ErrRefused) {
			return err
		}
		if welcomed {
			pauses.Reset()
		}
		pause := max(pauses.Next(), client.Asked(err))
		r.cfg.Tell(Notice{Text: "no connection to an engine, trying again", Problem: true, Err: err, Pause: pause})
		if !backoff.Sleep(ctx, pause) {
			return nil
		}
	}
}

// drain lets the attempts end, and gives back those that do not.
func (r *Runner) drain() {
	began := time.Now()
	r.mu.Lock()
	r.draining = true
	if r.link != nil {
		r.link.say(frame.Frame{Type: frame.Drain})
	}
	running, longest := 0, time.Duration(0)
	for _, a := range r.attempts {
		if a.state != over {
			running++
			longest = max(longest, time.Duration(a.def.Grace))
		}
	}
	r.mu.Unlock()
	r.cfg.Tell(Notice{Text: fmt.Sprintf("stopping, %d attempts run", running)})
	// The grace is a part of the time to drain, at most half of it.
	grace := min(longest, r.cfg.Drain/2)
	r.await(began.Add(r.cfg.Drain-grace), func() bool { return len(r.attempts) == 0 })
	r.mu.Lock()
	left := slices.Clone(r.attempts)
	r.mu.Unlock()
	for _, a := range left {
		a.order(guard.Order{End: guard.Cause(frame.Returned), Within: grace})
	}
	const (
		kill = 2 * time.Second // for SIGKILL to end all
		last = time.Second     // for the engine to hear of it
	)
	r.await(began.Add(r.cfg.Drain+kill), func() bool {
		return !slices.ContainsFunc(r.attempts, func(a *attempt) bool { return a.state == started })
	})
	r.await(time.Now().Add(last), func() bool { return len(r.attempts) == 0 })
}

// await waits until a condition is met, which it asks with mu locked.
func (r *Runner) await(deadline time.Time, met func() bool) {
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	for {
		r.mu.Lock()
		done, changed := met(), r.changed
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-late.C:
			return
		}
	}
}

// tellChange wakes those who wait for the attempts, and the connection. mu is locked.
func (r *Runner) tellChange() {
	close(r.changed)
	r.changed = make(chan struct{})
	if r.link != nil {
		r.link.wakeUp()
	}
}

// find returns an attempt, or nil. mu is locked.
func (r *Runner) find(run int64, number int) *attempt {
	for _, a := range r.attempts {
		if a.run == run && a.number == number {
			return a
		}
	}
	return nil
}

// forget removes an attempt. mu is locked.
func (r *Runner) forget(a *attempt) {
	r.attempts = slices.DeleteFunc(r.attempts, func(b *attempt) bool { return a == b })
	go a.log.close() // the disk may hold it up
	r.tellChange()
}

// removeFiles removes the files of an earlier process of this name that was killed.
func (c *Config) removeFiles() {
	pattern := c.filePattern()
	prefix, suffix, _ := strings.Cut(pattern, "*")
	paths, _ := filepath.Glob(filepath.Join(os.TempDir(), pattern)) // the pattern is a good one
	for _, path := range paths {
		random := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), prefix), suffix)
		if strings.Trim(random, "0123456789") == "" { // else it is another runner's
			_ = os.Remove(path) // it may be another user's
		}
	}
}

// filePattern is that of the names of this runner's files, for os.CreateTemp.
func (c *Config) filePattern() string { return "adp-*." + c.Name + ".env" }
