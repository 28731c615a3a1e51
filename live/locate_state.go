package live

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"async-data-processor/message"
)

// gathering is what was learned of a message.
type gathering struct {
	id, node string
	asOf     time.Time
	shards   int
	ours     bool // its id has the form of ours
	servers  func() []string

	place    *wherePlace
	owner    string // that has the place
	covered  bitset // shards whose owner has answered
	forgot   map[int]time.Time
	sibling  bool
	accepted time.Time
	of       bitset // shards that have messages of its submission; nil if that is not known
	sought   map[string]bool
	dead     deadFound
}

func newGathering(shards int, id, node string, servers func() []string) *gathering {
	return &gathering{
		id: id, node: node, asOf: stamp(time.Now()), shards: shards, ours: submissionOf(id) != "", servers: servers,
		forgot: make(map[int]time.Time), sought: make(map[string]bool),
	}
}

// add takes what a node has answered. owns are its shards; nil for those in the answer.
func (g *gathering) add(a whereAnswer, owns bitset) {
	if owns == nil {
		owns, _ = parseBits(a.Owns, maxShards) // it is this node's own, or has none
	}
	g.covered.join(owns)
	for _, m := range a.Forgot {
		g.forgot[m.Shard] = time.UnixMilli(m.Since)
	}
	g.sibling = g.sibling || a.Sibling
	if a.Sought {
		g.sought[a.Node] = true
	}
	if at := time.UnixMilli(a.Accepted); g.ours && a.Accepted > 0 && (g.accepted.IsZero() || at.Before(g.accepted)) {
		g.accepted = at
		g.of, _ = parseBits(a.Shards, maxShards) // it was read before
	}
	if p := a.Place; p != nil && (g.place == nil || p.State == WhereWritten && g.place.State != WhereWritten) {
		g.place, g.owner = p, a.Node
	}
}

// silent are the shards whose owner has not answered, of those that may have the message.
func (g *gathering) silent() bitset {
	if g.of != nil {
		return g.of.without(g.covered)
	}
	return upTo(g.shards).without(g.covered)
}

func (g *gathering) isWritten() bool { return g.place != nil && g.place.State == WhereWritten }

// enough tells whether more answers would tell nothing new.
func (g *gathering) enough() bool {
	if g.isWritten() {
		return true
	}
	if g.silent().count() > 0 {
		return false
	}
	if !g.ours || !g.accepted.IsZero() || g.place != nil {
		return true
	}
	servers := g.servers()
	return servers != nil && !slices.ContainsFunc(servers, func(node string) bool { return !g.sought[node] })
}

// conclude says where the message is.
func (l *Locator) conclude(g *gathering) Location {
	loc := Location{AsOf: g.asOf, Node: g.node, Complete: g.isWritten() || g.silent().count() == 0, ID: g.id}
	if g.ours {
		loc.Submission = known(submissionOf(g.id))
	} else if _, err := countOf(g.id); err == nil {
		loc.Submission = known(g.id)
	}
	switch p := g.place; {
	case p != nil:
		loc.State, loc.Shard, loc.Owner, loc.Worker, loc.File, loc.Why = p.State, &p.Shard, known(g.owner), known(p.Worker), known(p.File), known(p.Why)
		if p.Line > 0 {
			loc.Line = &p.Line
		}
		if p.Since > 0 {
			loc.Since = at(time.UnixMilli(p.Since))
		}
		if p.State == WhereInHand && p.Worker == "" {
			loc.Why = known("no worker has it yet: its batch gathers, or waits for a worker")
		}
	case g.dead.place != nil:
		d := g.dead.place
		loc.State, loc.Reason, loc.Since = WhereDead, known(d.reason), at(d.at)
		if d.shard >= 0 {
			loc.Shard = &d.shard
		}
	default:
		l.missing(g, &loc)
	}
	return loc
}

// missing says why a message was not found.
func (l *Locator) missing(g *gathering, loc *Location) {
	loc.Since = at(g.accepted)
	of := slices.Collect(g.of.all())
	if len(of) == 1 {
		loc.Shard = &of[0]
	}
	var why []string
	say := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	silent, forgot := g.silent(), g.forgotten(time.Now())
	envelopes, trouble := l.cfg.Queues(of)
	switch {
	case silent.count() > 0:
		loc.State = WhereUnknown
		say("no owner of shard %s has answered", silent)
	case !g.dead.looked:
		loc.State = WhereUnknown
		say("not all dead letters could be looked at, and it is nowhere else")
	case g.ours && forgot != "":
		loc.State = WhereNotKnown
		say("%s: if it was accepted, it was written and is forgotten", forgot)
	case g.ours && (!g.accepted.IsZero() || g.sibling):
		loc.State = WhereQueued
		switch {
		case envelopes > 0:
			say("it waits in a queue: %s%s", wait(envelopes), inQueues(of))
		case envelopes == 0 && trouble == "":
			say("it was accepted, and no envelope waited%s a moment ago; if that stays so, its file was moved away before its owner has started", inQueues(of))
		}
	default:
		loc.State = WhereNotKnown
		l.never(g, forgot, envelopes, say)
	}
	if trouble != "" && loc.State != WhereNotKnown {
		say("%s", trouble)
	}
	loc.Why = known(strings.Join(why, "; "))
}

// never says what may be with a message of which nothing is known.
func (l *Locator) never(g *gathering, forgot string, envelopes int, say func(string, ...any)) {
	if count, err := countOf(g.id); err == nil {
		say("this may be the id of a submission: see its receipt; its messages are %s.0 to %s.%d", g.id, g.id, count-1)
	} else if submission, _, ok := strings.Cut(g.id, "."); ok && len(submission) == replyLen && !g.ours {
		if count, ok := message.CountOf(submission); ok {
			say("submission %s has %d messages, from %s.0 to %s.%d", submission, count, submission, submission, count-1)
		}
	}
	say("no process knows it: it was never accepted, or by another system, or was removed as a dead letter, or its file was moved away before its owner has started")
	if envelopes > 0 {
		say("%s in the queues, which cannot be looked into: it may be in one of them", wait(envelopes))
	}
	if forgot != "" {
		say("%s: it may have been written before", forgot)
	}
}

// forgotten says which shard does not remember what was written when the message was
// accepted; "" if all of them do. A message that has no time may be older than all.
func (g *gathering) forgotten(now time.Time) string {
	accepted := g.accepted
	if accepted.IsZero() && g.ours {
		accepted = timeOf(g.id[:replyLen], now)
	}
	if accepted.IsZero() && g.ours {
		return "" // as for its receipt
	}
	for _, n := range slices.Sorted(maps.Keys(g.forgot)) {
		if g.of != nil && !g.of.has(n) || !accepted.IsZero() && !accepted.Before(g.forgot[n]) {
			continue
		}
		return fmt.Sprintf("shard %d remembers what was written since %s", n, stamp(g.forgot[n]).Format(time.RFC3339))
	}
	return ""
}

func wait(envelopes int) string {
	if envelopes == 1 {
		return "1 envelope waits"
	}
	return fmt.Sprintf("%d envelopes wait", envelopes)
}

// inQueues names the shards whose queues are meant.
func inQueues(of []int) string {
	switch len(of) {
	case 0:
		return " in the queues"
	case 1:
		return fmt.Sprintf(" in the queue of shard %d", of[0])
	}
	var set bitset
	for _, n := range of {
		set.add(n)
	}
	return " in the queues of the shards " + set.String()
}

// known is a text of an answer, nil if it is empty; at is the same of a time.
func known(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = stamp(t)
	return &t
}
