package jobs

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// Close codes of a runner's WebSocket (RFC 6455, section 7.4; from 4000 on, ours). They
// are part of the contract.
const (
	closeNormal   = 1000
	closeDrain    = 1001
	closeMistake  = 1011
	closeLater    = 1013 // the database does not answer, or there are too many runners
	closeBadFrame = 4400
	closeSlow     = 4408
	closeReplaced = 4409 // a newer connection has the name
)

const (
	// maxRunners bounds the runners that are connected to a process.
	maxRunners = 256
	// helloTimeout is how long a runner has for its first frame.
	helloTimeout = 10 * time.Second
)

// Socket is the WebSocket of a runner: a server.Socket.
type Socket interface {
	// Read returns the next frame, which may be used until the next call.
	Read() ([]byte, error)
	// Write sends each text as a frame. A client has 10 s to take 64 KiB.
	Write(texts ...[]byte) error
	// Bare tells that the client speaks the frames of old runners.
	Bare() bool
	// Draining is closed when the process begins to stop.
	Draining() <-chan struct{}
	// Close ends it with a code and a reason, and Read with it.
	Close(code int, reason string)
}

// hub is the runners that are connected to this process. Its methods may be called
// concurrently.
type hub struct {
	open sync.WaitGroup // the connections; added to while mu is held and closed is false

	mu      sync.Mutex // guards what follows
	count   int        // of connections, those without a name, too
	runners map[string]*runner
	closed  bool
}

// begin counts a connection. It returns false if there may be no other.
func (h *hub) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.count >= 2*maxRunners { // each may come back before its end is noticed
		return false
	}
	h.count++
	h.open.Add(1)
	return true
}

func (h *hub) end() {
	h.mu.Lock()
	h.count--
	h.mu.Unlock()
	h.open.Done()
}

// enter makes the runner the one of its name. It returns false if there are too many.
func (h *hub) enter(r *runner) bool {
	h.mu.Lock()
	before := h.runners[r.name]
	ok := !h.closed && (before != nil || len(h.runners) < maxRunners)
	if ok {
		h.runners[r.name] = r
	}
	h.mu.Unlock()
	if ok && before != nil {
		before.stop(closeReplaced, "a newer connection has this runner's name")
	}
	return ok
}

// leave forgets the runner, if it is the one of its name. Else another one is.
func (h *hub) leave(r *runner) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runners[r.name] == r {
		delete(h.runners, r.name)
	}
}

// close has the runners go, and waits until they have.
func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	for _, r := range h.all() {
		r.drain()
	}
	h.open.Wait()
}

// all returns the runners, in no order.
func (h *hub) all() []*runner {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.runners))
}

// idle returns those with free slots: the one with the fewest runs first, then the one
// that waits the longest.
func (h *hub) idle() []*runner {
	busy := make(map[*runner]int)
	for _, r := range h.all() {
		if free := r.load.free(); free > 0 {
			busy[r] = r.load.slots - free
		}
	}
	return slices.SortedFunc(maps.Keys(busy), func(a, b *runner) int {
		return cmp.Or(cmp.Compare(busy[a], busy[b]), a.connected.Compare(b.connected), strings.Compare(a.name, b.name))
	})
}

// of returns the runner that has an attempt, nil if none has that is welcome.
func (h *hub) of(f store.Fence) *runner {
	for _, r := range h.all() {
		if r.load.has(f) && r.load.isOpen() {
			return r
		}
	}
	return nil
}

// tellAll sends a frame to all. It is written once for each language.
func (h *hub) tellAll(f frame.Frame) {
	var texts [2][]byte
	for _, r := range h.all() {
		if !r.load.isOpen() {
			continue // it hears in its welcome
		}
		language := 0
		if r.seed {
			language = 1
		}
		if texts[language] == nil {
			texts[language] = r.encode(f)
		}
		r.sendText(texts[language])
	}
}

func (h *hub) views(node string) []RunnerView {
	views := []RunnerView{}
	for _, r := range h.all() {
		views = append(views, r.view(node))
	}
	slices.SortFunc(views, func(a, b RunnerView) int { return strings.Compare(a.ID, b.ID) })
	return views
}

// Socket serves the WebSocket of a runner until it ends, at frame.Path.
func (e *Engine) Socket(s Socket, req *http.Request) {
	if !e.hub.begin() {
		s.Close(closeLater, "this process has as many runners as it may, or stops")
		return
	}
	defer e.hub.end()
	r := newRunner(e, s)
	defer r.parts.Wait()
	defer r.end()
	r.parts.Go(r.write)
	had, ok := r.introduce()
	if !ok {
		return
	}
	if !e.hub.enter(r) {
		r.stop(closeLater, "this process has as many runners as it may, or stops")
		return
	}
	defer r.gone()
	kept, ok := r.resume(had)
	if !ok {
		return
	}
	e.cfg.Events.Send(event.RunnerConnected{
		Runner: r.name, Version: r.version, Peer: req.RemoteAddr, Slots: r.load.slots, Labels: r.load.labels, Kept: kept, Seed: r.seed,
	})
	e.tells.runnersChanged()
	e.Kick()
	r.parts.Go(r.work)
	r.parts.Go(r.renew)
	r.read()
}

// introduce reads the first frame. It returns what the runner still has.
func (r *runner) introduce() (had []frame.Attempt, ok bool) {
	if r.socket.Bare() {
		r.becomeSeed()
		return nil, true
	}
	late := time.AfterFunc(helloTimeout, func() { r.stop(closeSlow, "no hello within 10 s") })
	defer late.Stop()
	text, err := r.socket.Read()
	if err != nil {
		return nil, false
	}
	f, err := parseFrame(text)
	if err == nil {
		err = checkHello(f)
	}
	if err != nil {
		r.stop(closeBadFrame, err.Error())
		return nil, false
	}
	r.name, r.version, r.load.slots, r.load.labels = f.Runner, strings.Clone(clean(f.Version, maxName)), f.Slots, f.Labels
	slices.Sort(r.load.labels)
	return f.Attempts, true
}

// resume settles what the runner has of an earlier connection, and welcomes it.
func (r *runner) resume(had []frame.Attempt) (kept int, ok bool) {
	renewed, cancelling, ok := r.renewAll(fencesOf(had))
	if !ok {
		return 0, false
	}
	jobs := r.engine.Definitions()
	welcome := frame.Frame{Type: frame.Welcome, Node: r.engine.cfg.Node(), Definitions: jobs}
	for _, f := range renewed {
		job, length, ok := r.again(f)
		if !ok {
			return 0, false
		}
		if job == "" {
			continue // it has become stale meanwhile
		}
		r.load.add(f, job, true)
		welcome.Attempts = append(welcome.Attempts, frame.Attempt{Run: f.Run, Attempt: f.Attempt, Log: length})
	}
	r.send(welcome)
	for _, f := range cancelling {
		r.send(frame.Frame{Type: frame.Cancel, Run: f.Run, Attempt: f.Attempt})
	}
	r.load.open()
	if now := r.engine.Definitions(); len(now) != len(jobs) || len(now) > 0 && &now[0] != &jobs[0] {
		r.send(frame.Frame{Type: frame.Definitions, Definitions: now}) // they have changed meanwhile
	}
	return len(welcome.Attempts), true
}

// again notes that an attempt runs, and returns its job and the length of its log. The job
// is empty if the attempt is stale.
func (r *runner) again(f store.Fence) (job string, length int64, ok bool) {
	run, going, ok := r.started(f)
	if !ok || !going {
		return "", 0, ok
	}
	r.engine.tells.add([]store.Run{run})
	_, length, ok = r.attempt(f)
	return run.Job, length, ok
}
