package deadletter

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"async-data-processor/backoff"
	"async-data-processor/broker"
)

// looking is a request that waits for a look, or takes part in one.
type looking struct {
	done chan struct{}

	mu   sync.Mutex // guards what follows
	see  func(*seen) (more bool)
	gone bool // it sees no more
	// As of the end of the look: when it began, whether it has shown all, and why it failed.
	began time.Time
	whole bool
	err   error
}

// show shows a letter, and tells whether more are wanted.
func (k *looking) show(s *seen) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = k.gone || !k.see(s)
	return !k.gone
}

// looks are the looks of a process, one at a time, each for all who wait for it. Its
// methods may be called concurrently.
type looks struct {
	letters *Letters

	mu      sync.Mutex // guards what follows
	waiting []*looking // for the next look
	running bool
	askers  map[string]int // requests by client, and
	places  int            // of all, those that take part in a look included
}

// look has see called with the dead letters, until it returns false. It takes part in
// the next look. whole tells that all were shown.
func (l *looks) look(ctx context.Context, client string, see func(*seen) (more bool)) (began time.Time, whole bool, err error) {
	k := &looking{done: make(chan struct{}), see: see}
	if err := l.join(k, client); err != nil {
		return began, false, err
	}
	defer l.leave(k, client)
	select {
	case <-k.done:
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gone = true
	if k.began.IsZero() {
		return began, false, context.Cause(ctx)
	}
	return k.began, k.whole, k.err
}

func (l *looks) join(k *looking, client string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.places >= maxLooking || l.askers[client] >= maxLookingOne {
		return ErrTooMany
	}
	if !l.running {
		if err := l.letters.begin(l.run); err != nil {
			return err
		}
		l.running = true
	}
	l.waiting = append(l.waiting, k)
	l.askers[client]++
	l.places++
	return nil
}

func (l *looks) leave(k *looking, client string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.places--
	if l.askers[client]--; l.askers[client] == 0 {
		delete(l.askers, client)
	}
	l.waiting = slices.DeleteFunc(l.waiting, func(o *looking) bool { return o == k })
}

// next returns those that wait for a look; none ends the looks.
func (l *looks) next() []*looking {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.waiting
	l.waiting = nil
	l.running = len(all) > 0
	return all
}

// run looks until no request waits for it.
func (l *looks) run(ctx context.Context) {
	for {
		all := l.next()
		if len(all) == 0 {
			return
		}
		began := time.Now()
		whole, err := l.lookFor(ctx, all)
		for _, k := range all {
			k.mu.Lock()
			k.began, k.whole, k.err = began, whole, err
			k.mu.Unlock()
			close(k.done)
		}
		backoff.Sleep(ctx, min(max(lookPause, time.Since(began)), lookTime))
	}
}

// lookFor is a look, within the bounds.
func (l *looks) lookFor(ctx context.Context, all []*looking) (whole bool, err error) {
	letters, room := 0, lookBytes
	return l.letters.visit(ctx, lookTime, func(s *seen) (broker.Verdict, bool) {
		letters++
		room -= len(s.Envelope.Body)
		if s.late || letters > lookLetters || room < 0 {
			return broker.Keep, false
		}
		more := false
		for _, k := range all {
			more = k.show(s) || more
		}
		return broker.Keep, more
	})
}

// Head begins each answer.
type Head struct {
	// AsOf is when Node began to look, or to ask.
	AsOf time.Time `json:"as_of"`
	Node string    `json:"node"`
	// Complete tells that all were looked at, or that every node has answered.
	Complete bool `json:"complete"`
}

func (l *Letters) head(at time.Time, complete bool) Head {
	return Head{at.UTC().Truncate(time.Millisecond), l.cfg.Node(), complete}
}

// Letter is a dead letter as it is listed.
type Letter struct {
	// Key names this dead letter, as several may have one id.
	Key     string     `json:"key"`
	ID      string     `json:"id"` // of the message, or of the envelope if it holds several
	Time    *time.Time `json:"time"`
	Origin  string     `json:"origin"` // the queue or subject; empty if unknown
	Shard   *int       `json:"shard"`  // nil if unknown
	Count   int        `json:"count"`
	Bytes   int        `json:"bytes"`
	Reason  string     `json:"reason"`
	Foreign bool       `json:"foreign"`
}

func (s *seen) letter() Letter {
	out := Letter{
		Key: s.Key(), ID: s.id(), Time: stamp(s.Time), Origin: broker.Clip(s.Origin, maxText), Count: s.count(),
		Bytes: len(s.Envelope.Body), Reason: reasonOf(s.DeadLetter), Foreign: s.Envelope.Foreign,
	}
	if shard := s.Envelope.Shard; shard >= 0 {
		out.Shard = &shard
	}
	return out
}

// place orders letters: by time, and those of one time by key.
func (x *Letter) place() string {
	when := "-"
	if x.Time != nil {
		when = x.Time.Format(placeTime)
	}
	return when + "." + x.Key
}

const placeTime = "20060102T150405000Z"

// List is a page of dead letters, the oldest first.
type List struct {
	Head
	Letters []Letter `json:"letters"`
	// Next is where the next page begins; empty if this is the last one.
	Next string `json:"next,omitempty"`
}

// list returns the page of at most limit letters after a place; empty for the first.
func (l *Letters) list(ctx context.Context, client string, f *Filter, after string, limit int) (List, error) {
	out := List{Letters: []Letter{}}
	began, whole, err := l.looks.look(ctx, client, func(s *seen) bool {
		if f.Matches(s.DeadLetter, s.Body) {
			if x := s.letter(); x.place() > after {
				out.Letters = append(out.Letters, x)
			}
		}
		if len(out.Letters) > 2*limit+1 { // what is on a later page need not be kept
			out.Letters = firstOf(out.Letters, limit+1)
		}
		return true
	})
	if err != nil {
		return out, err
	}
	out.Letters = firstOf(out.Letters, limit+1)
	if len(out.Letters) > limit {
		out.Next = out.Letters[limit-1].place()
		out.Letters = out.Letters[:limit]
	}
	out.Head = l.head(began, whole)
	return out, nil
}

// firstOf returns the first letters in the order of their places, at most n.
func firstOf(letters []Letter, n int) []Letter {
	slices.SortFunc(letters, func(a, b Letter) int { return cmp.Compare(a.place(), b.place()) })
	return letters[:min(len(letters), n)]
}

// Bounds of groups.
const (
	maxGroups   = 1000
	maxExamples = 5
)

// Group is the dead letters of one reason.
type Group struct {
	Reason   string     `json:"reason"`
	Letters  int        `json:"letters"`
	Messages int        `json:"messages"`
	Oldest   *time.Time `json:"oldest"`
	Newest   *time.Time `json:"newest"`
	Shards   []int      `json:"shards"`
	Examples []string   `json:"examples"` // keys
}

func (g *Group) add(s *seen) {
	g.Letters++
	g.Messages += s.count()
	if t := stamp(s.Time); t != nil {
		if g.Oldest == nil || t.Before(*g.Oldest) {
			g.Oldest = t
		}
		if g.Newest == nil || t.After(*g.Newest) {
			g.Newest = t
		}
	}
	if n := s.Envelope.Shard; n >= 0 {
		if i, found := slices.BinarySearch(g.Shards, n); !found {
			g.Shards = slices.Insert(g.Shards, i, n)
		}
	}
	if len(g.Examples) < maxExamples {
		g.Examples = append(g.Examples, s.Key())
	}
}

// Groups are dead letters by reason, most first.
type Groups struct {
	Head
	Total int `json:"total"`
	// Cut tells that there may be more: not all letters were looked at, or the reasons
	// are too many.
	Cut    bool    `json:"cut"`
	Groups []Group `json:"groups"`
}

func (l *Letters) groups(ctx context.Context, client string, f *Filter) (Groups, error) {
	var out Groups
	groups := make(map[string]*Group)
	began, whole, err := l.looks.look(ctx, client, func(s *seen) bool {
		if !f.Matches(s.DeadLetter, s.Body) {
			return true
		}
		out.Total++
		reason := reasonOf(s.DeadLetter)
		g := groups[reason]
		if g == nil && len(groups) >= maxGroups {
			out.Cut = true
			return true
		}
		if g == nil {
			g = &Group{Reason: reason, Shards: []int{}, Examples: []string{}}
			groups[reason] = g
		}
		g.add(s)
		return true
	})
	if err != nil {
		return out, err
	}
	out.Head, out.Cut = l.head(began, whole), out.Cut || !whole
	out.Groups = []Group{}
	for _, reason := range slices.Sorted(maps.Keys(groups)) {
		out.Groups = append(out.Groups, *groups[reason])
	}
	slices.SortStableFunc(out.Groups, func(a, b Group) int { return cmp.Compare(b.Letters, a.Letters) })
	return out, nil
}

// Whole is a dead letter with its body.
type Whole struct {
	Head
	Letter
	Body   *string `json:"body,omitempty"` // if it is UTF-8, and may be seen
	Base64 []byte  `json:"body_base64,omitempty"`
	// Messages are those in it; none if it cannot be read so.
	Messages []Part `json:"messages,omitempty"`
	// Editable tells that it can be replayed with another body. Why says why not.
	Editable bool   `json:"editable"`
	Why      string `json:"why,omitempty"`
}

// Part is a message of a dead letter: its id, and which line of the body it is, from 1.
type Part struct {
	ID   string `json:"id"`
	Line int    `json:"line"`
}

// show returns the dead letter with the key.
func (l *Letters) show(ctx context.Context, client, key string) (Whole, error) {
	var out Whole
	found := false
	began, whole, err := l.looks.look(ctx, client, func(s *seen) bool {
		if s.Key() != key {
			return true
		}
		found = true
		out.Letter = s.letter()
		if !l.cfg.Hidden {
			if body := s.Body(); utf8.Valid(body) {
				out.Body = new(string)
				*out.Body = string(body)
			} else {
				out.Base64 = slices.Clone(body)
			}
		}
		if ids, err := idsOf(&s.Envelope); err == nil {
			for i, id := range ids {
				out.Messages = append(out.Messages, Part{id, i + 1})
			}
		}
		why := s.uneditable()
		if out.Editable = why == nil; why != nil {
			out.Why = why.Error()
		}
		return false
	})
	switch {
	case err != nil:
		return out, err
	case !found && whole:
		return out, ErrNotFound
	case !found:
		return out, ErrTooFar
	}
	out.Head = l.head(began, true)
	return out, nil
}

// errHidden is why nothing may look into bodies.
var errHidden = fmt.Errorf("%w: LIVE_PAYLOAD=none hides the bodies, so nothing looks into them", ErrQuery)

// check returns why a filter cannot be used here.
func (l *Letters) check(f *Filter) error {
	if l.cfg.Hidden && f.Contains != "" {
		return errHidden
	}
	return f.Check()
}
