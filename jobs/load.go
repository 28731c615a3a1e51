package jobs

import (
	"slices"
	"strings"
	"sync"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// shunFor is how long a runner gets no runs of a job that it has refused, or could not run
// through its own fault.
const shunFor = 30 * time.Second

// load is what a runner has, and what it may have. Its methods may be called concurrently.
type load struct {
	// set before use, read-only after
	slots  int
	labels []string // sorted
	seed   bool

	mu       sync.Mutex // guards what follows
	ready    bool       // the runner is welcome
	draining bool       // it wants no more
	closed   bool       // it gets no more, as it goes
	held     map[store.Fence]*held
	shunned  map[string]time.Time // until when, by job
}

// held is an attempt that a runner has.
type held struct {
	job     string
	since   time.Time
	taken   bool // else it is an offer
	missing int  // of so many beats in a row
}

// open lets the runner have offers.
func (l *load) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = true
}

func (l *load) isOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready && !l.closed
}

// drain lets the runner have no more offers.
func (l *load) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining = true
}

// close is drain that returns the offers without an answer, and how many attempts are
// taken.
func (l *load) close() (offers []store.Fence, taken int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for f, h := range l.held {
		if h.taken {
			taken++
		} else {
			offers = append(offers, f)
		}
	}
	return offers, taken
}

// add notes an attempt that is offered, or taken. It returns false if the runner gets none.
func (l *load) add(f store.Fence, job string, taken bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.held[f] = &held{job: job, since: time.Now(), taken: taken}
	return true
}

// take notes that an attempt that is held is taken. From then on it is not overdue.
func (l *load) take(f store.Fence) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[f]
	if h == nil {
		return false
	}
	if !h.taken {
		h.taken, h.since = true, time.Now()
	}
	return true
}

// drop forgets an attempt, and returns its job; it is empty if it was not held.
func (l *load) drop(f store.Fence) (job string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[f]; h != nil {
		job = h.job
		delete(l.held, f)
	}
	return job
}

func (l *load) has(f store.Fence) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[f] != nil
}

// overdue returns the offers that have no answer for too long, and forgets them.
func (l *load) overdue(now time.Time) (fences []store.Fence) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f, h := range l.held {
		if !h.taken && now.Sub(h.since) >= frame.OfferTimeout {
			fences = append(fences, f)
			delete(l.held, f)
		}
	}
	return fences
}

// beat notes which attempts a beat of the runner has named, and which of them are renewed:
// the others are stale. What it has taken and does not name in two beats it has forgotten.
func (l *load) beat(named, renewed []store.Fence) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f, h := range l.held {
		switch {
		case slices.Contains(renewed, f):
			h.missing = 0
		case h.taken && (h.missing > 0 || slices.Contains(named, f)):
			delete(l.held, f)
		case h.taken:
			h.missing++
		}
	}
	for _, f := range renewed {
		if l.held[f] == nil {
			l.held[f] = &held{since: time.Now(), taken: true}
		}
	}
}

// taken returns the attempts that are, each with its job and since when.
func (l *load) taken() map[store.Fence]held {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := make(map[store.Fence]held)
	for f, h := range l.held {
		if h.taken {
			taken[f] = *h
		}
	}
	return taken
}

// free returns how many more runs the runner takes.
func (l *load) free() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ready || l.draining || l.closed {
		return 0
	}
	return l.slots - len(l.held)
}

// shun has the runner get no runs of a job for a while.
func (l *load) shun(job string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if job != "" && len(l.shunned) < maxJobs {
		l.shunned[job] = time.Now().Add(shunFor)
	}
}

// set names the jobs that the runner may run: two runners with the same one may run the
// same. It is empty if the jobs are this runner's alone.
func (l *load) set(now time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for job, until := range l.shunned {
		if now.After(until) {
			delete(l.shunned, job)
		}
	}
	switch {
	case len(l.shunned) > 0:
		return ""
	case l.seed:
		return "seed"
	}
	return "labels " + strings.Join(l.labels, " ")
}

// wants returns which of the jobs the runner may run, each with how many of its runs may
// run at a time.
func (l *load) wants(jobs []frame.Definition) map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := make(map[string]int)
	for _, d := range jobs {
		_, shunned := l.shunned[d.Name]
		missing := slices.ContainsFunc(d.Labels, func(label string) bool { return !slices.Contains(l.labels, label) })
		if !shunned && !missing && (!l.seed || seedRuns(d)) {
			wanted[d.Name] = d.Concurrency
		}
	}
	return wanted
}

// tell adds what the runner has to its view.
func (l *load) tell(v *RunnerView) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v.Slots, v.Busy, v.Working, v.Draining = l.slots, len(l.held), len(l.held) > 0, l.draining
	v.Labels = slices.Concat([]string{}, l.labels)
	for f := range l.held {
		v.Runs = append(v.Runs, f.Run)
	}
	slices.Sort(v.Runs)
}
