package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"async-data-processor/httpstream"
	"async-data-processor/problem"
)

const (
	// MaxViewers is how many streams a Feed has at a time.
	MaxViewers = 64
	// lookInterval is the time between two looks at a part, however many streams tell of it.
	lookInterval = 500 * time.Millisecond
	// joinInterval is how old a part has to be to be looked at beside another one, so that
	// looks at all parts come together.
	joinInterval = 100 * time.Millisecond
	// beatInterval is the longest silence of a stream.
	beatInterval = 2 * time.Second
	// maxEvent is how many bytes of rows are enough for an event.
	maxEvent = 64 << 10
	// maxRate bounds what a stream writes, in bytes a second on average. So many may come
	// at once.
	maxRate = 1 << 20
	// comeBack is when a client may come again after a drain, comeLater when it has found or
	// lost its place; in milliseconds.
	comeBack, comeLater = 1000, 10_000
)

// Form is how the stream tells of a part.
type Form string

// Forms.
const (
	Rows   Form = "rows"   // with those that are gone
	Value  Form = "value"  // the one row
	Points Form = "points" // that never change; they go without a word
)

// Part is a part of the system that streams tell of.
type Part struct {
	Name string
	Form Form
	// Look returns the part as it is now. It has one caller at a time, and may wait.
	Look func() State
}

// State is a part of the system at a moment.
type State struct {
	AsOf     time.Time
	Node     string
	Complete bool // every node has answered
	// More tells that there are rows beside these.
	More bool
	Rows []Row
}

// Row is what a stream tells when it is new.
type Row struct {
	// Key is its name in JSON, unique in the part.
	Key string
	// News makes the row new when it differs from the last: it lacks what changes with the
	// time alone.
	News []byte
	// Text returns the row in JSON.
	Text func() []byte
}

// Feed serves GET /api/v1/events: what is new of the system, as server-sent events. One
// goroutine looks for all streams, and only while there is one.
//
//	Look, twice a second ──▶ part: latest rows, each with a version ──▶ stream: rows after its version
//
// A stream holds no queue: a client that is slow gets the latest rows, later.
type Feed struct {
	client func(*http.Request) string
	places httpstream.Places
	woken  chan struct{} // wakes up run; holds one wake-up

	mu      sync.Mutex // guards what follows
	parts   []*part
	viewers map[*viewer]struct{}
	running bool
	asOf    time.Time // when the last look began
}

// NewFeed returns a Feed of the parts. client returns what tells the clients of requests
// apart.
func NewFeed(parts []Part, client func(*http.Request) string) *Feed {
	f := &Feed{client: client, woken: make(chan struct{}, 1), viewers: make(map[*viewer]struct{})}
	for _, p := range parts {
		f.parts = append(f.parts, &part{Part: p, rows: make(map[string]*row)})
	}
	return f
}

// viewer is one stream. Only its handler uses its parts.
type viewer struct {
	parts []*part
	at    []uint64      // the version of each that is told
	turn  int           // whose turn it was last
	news  chan struct{} // holds one
}

// errFull: there are MaxViewers streams.
var errFull = fmt.Errorf("%d streams are open, as many as there may be", MaxViewers)

// ServeHTTP implements http.Handler for GET. A stream ends when the client goes, or the
// context of the request does, which is when the process stops.
func (f *Feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	parts, err := f.wanted(r)
	if err != nil {
		problem.BadQuery(w, err)
		return
	}
	client := f.client(r)
	v, err := f.enter(parts)
	if errors.Is(err, errFull) && f.places.Yield(client) {
		v, err = f.enter(parts)
	}
	if err != nil {
		problem.Answer(w, http.StatusServiceUnavailable, "too-many-viewers", err.Error(), comeLater/1000)
		return
	}
	ctx, place := f.places.Enter(r.Context(), client, func() { f.leave(v) })
	defer f.places.Leave(place)
	out, err := httpstream.New(ctx, w)
	if err != nil {
		problem.Answer(w, http.StatusInternalServerError, "internal-error", err.Error(), 0)
		return
	}
	w.Header().Set("X-Accel-Buffering", "no") // of a proxy
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/event-stream")
	out.Hurrying(func() { f.follow(ctx, v, out) })
}

// wanted returns the parts that a request names; all, if it names none.
func (f *Feed) wanted(r *http.Request) (parts []*part, err error) {
	query, err := problem.Query(r, "parts")
	if err != nil {
		return nil, err
	}
	names, given := query["parts"]
	if !given {
		return f.parts, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(f.parts, func(p *part) bool { return p.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("parts has %.40q, want some of %s", name, f.names())
		}
		if !slices.Contains(parts, f.parts[i]) {
			parts = append(parts, f.parts[i])
		}
	}
	return parts, nil
}

func (f *Feed) names() string {
	var names []string
	for _, p := range f.parts {
		names = append(names, p.Name)
	}
	return strings.Join(names, ",")
}

// enter begins a stream, and the looking with the first one.
func (f *Feed) enter(parts []*part) (*viewer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.viewers) >= MaxViewers {
		return nil, errFull
	}
	for _, p := range parts {
		if p.viewers++; p.viewers == 1 && time.Since(p.looked) >= lookInterval {
			p.forget() // it is old
		}
	}
	v := &viewer{parts: parts, at: make([]uint64, len(parts)), turn: len(parts) - 1, news: make(chan struct{}, 1)}
	v.news <- struct{}{} // what is known already
	f.viewers[v] = struct{}{}
	if !f.running {
		f.running = true
		go f.run()
	}
	wake(f.woken)
	return v, nil
}

// leave ends a stream. It may be called more than once.
func (f *Feed) leave(v *viewer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, there := f.viewers[v]; !there {
		return
	}
	delete(f.viewers, v)
	for _, p := range v.parts {
		p.viewers--
	}
	wake(f.woken)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run looks for the streams until there is none.
func (f *Feed) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, wait, goOn := f.due(time.Now())
		if !goOn {
			return
		}
		for _, p := range due {
			began := time.Now()
			s := p.Look()
			f.tell(p, &s, began)
		}
		if len(due) > 0 {
			continue // the looks may have taken long
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-f.woken:
		}
	}
}

// due returns which parts are to be looked at now, or how long to wait. It returns false,
// and the looking is over, if there is no stream.
func (f *Feed) due(now time.Time) (due []*part, wait time.Duration, goOn bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.viewers) == 0 {
		f.running = false
		return nil, 0, false
	}
	wait = lookInterval
	for _, p := range f.parts {
		if p.viewers > 0 {
			wait = min(wait, lookInterval-now.Sub(p.looked))
		}
	}
	if wait > 0 {
		return nil, wait, true
	}
	for _, p := range f.parts {
		if p.viewers > 0 && now.Sub(p.looked) >= joinInterval {
			due = append(due, p)
			p.looked = now
		}
	}
	f.asOf = now
	return due, 0, true
}

// tell takes a look, and wakes up the streams that have to tell of it.
func (f *Feed) tell(p *part, s *State, began time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.looked = began
	if !p.take(s) {
		return
	}
	for v := range f.viewers {
		if slices.Contains(v.parts, p) {
			wake(v.news)
		}
	}
}

// next adds an event with what is new of one of the viewer's parts, as much as fits, and
// returns whether there was anything.
func (f *Feed) next(v *viewer, out *httpstream.Stream) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range v.parts {
		v.turn = (v.turn + 1) % len(v.parts)
		if p := v.parts[v.turn]; p.isNew(v.at[v.turn]) {
			v.at[v.turn] = p.event(v.at[v.turn], &out.Out)
			return true
		}
	}
	return false
}

// follow tells what is new until the stream ends.
func (f *Feed) follow(ctx context.Context, v *viewer, out *httpstream.Stream) {
	quiet := time.NewTimer(beatInterval)
	defer quiet.Stop()
	paid := time.Now() // what is written may not be further ahead than a second
	for ctx.Err() == nil {
		if f.next(v, out) {
			size := out.Out.Len()
			if out.Flush() != nil {
				return // the client is gone, or takes nothing
			}
			quiet.Reset(beatInterval)
			if now := time.Now(); paid.Before(now) {
				paid = now
			}
			paid = paid.Add(time.Duration(size) * time.Second / maxRate)
			sleep(ctx, time.Until(paid)-time.Second)
			continue
		}
		select {
		case <-v.news:
		case <-quiet.C:
			f.beat(out)
			if out.Flush() != nil {
				return
			}
			quiet.Reset(beatInterval)
		case <-ctx.Done():
		}
	}
	why, retry := "drain", comeBack
	if errors.Is(context.Cause(ctx), httpstream.ErrYielded) {
		why, retry = "places", comeLater
	}
	fmt.Fprintf(&out.Out, "retry: %d\nevent: bye\ndata: {\"why\":%q,\"retry_ms\":%d}\n\n", retry, why, retry)
	_ = out.Flush() // the client may be gone
}

// beat adds what says that the stream is alive, and as of when it tells all.
func (f *Feed) beat(out *httpstream.Stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(&out.Out, "event: beat\ndata: {\"as_of\":%q}\n\n", stamp(f.asOf))
}

// stamp is a time as it is told.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// sleep waits, unless ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
