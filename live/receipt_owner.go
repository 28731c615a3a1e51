package live

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

const (
	// leaseTime is how long an interest lasts that is not told again.
	leaseTime = 3 * tellAgain
	// gatherChanges is how long changes wait for others before they are told.
	gatherChanges = 8 * time.Millisecond
	// maxInterests bounds the interests of all nodes. Beyond it a node is answered, and
	// hears of changes when it asks again.
	maxInterests = 65_536
	// maxDeadNews bounds the dead letters that wait to be told. Beyond it the nodes find
	// them in the dead-letter queue.
	maxDeadNews = 10_000
	// answerBytes is about how long an answer gets. One submission takes less than half
	// of what the bus carries.
	answerBytes = broker.MaxBusBody / 2
)

// Owned is what this process, as the owner of a shard, knows of a submission.
type Owned struct {
	Shard int
	// Bits has a bit for each index that is written: index i is bit i%64 of Bits[i/64].
	Bits []uint64
	// First and Last are when the first and the last of them were written. Until is when
	// the first may be forgotten.
	First, Last, Until time.Time
	// Forgot tells that the shard does not remember all that was ever written, but all
	// since Since.
	Forgot bool
	Since  time.Time
	// Pause is nil unless the shard is paused.
	Pause *Pause
}

// owner is the part of a node that knows what is written: it tells who is interested.
//
// An interest is noted before the node looks at what is written. So what is written
// after that look is told as a change. A change has no content of its own: it makes the
// node look again. So nothing adds up that could be lost, or be counted twice.
type owner struct {
	cfg    *ReceiptConfig
	memory *memory // nil if this process is no server
	tell   func(to string, a answer)
	wake   func()

	// watched tells that there are interests.
	watched atomic.Bool

	mu        sync.Mutex // guards what follows
	interests map[string]*interested
	askers    int // of all of them
	changed   []string
	news      []deadNews
	changedAt time.Time // of the first in changed and news
	expired   time.Time // when leases were looked at last
}

// interested are the nodes that want to hear of a submission.
type interested struct {
	count   int
	shards  bitset // that have its messages; nil if that is not known
	changed bool
	askers  []asker
}

// asker is a node: the word of its topic, and until when it wants to hear.
type asker struct {
	to    string
	until time.Time
}

// deadNews is a message that has become a dead letter.
type deadNews struct {
	id     string
	shard  int
	index  int
	reason string
}

// Watched tells whether Written and Dead are to be called. It costs an atomic load.
func (r *Receipts) Watched() bool { return r.owner.watched.Load() }

// Written is told of messages that are durable, and known as such to
// ReceiptConfig.Owned.
func (r *Receipts) Written(messages []message.Message) { r.owner.written(messages) }

// Dead is told of a message of a shard that the dead-letter queue has taken.
func (r *Receipts) Dead(shard int, id []byte, reason string) { r.owner.dead(shard, id, reason) }

// split cuts the id of a message in that of its submission and the rest.
func split(id []byte) (submission, index []byte) {
	if len(id) < replyLen+2 || id[replyLen] != '.' {
		return nil, nil
	}
	return id[:replyLen], id[replyLen+1:]
}

func (o *owner) written(messages []message.Message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	last := ""
	for _, m := range messages {
		submission, _ := split(m.RawID())
		if submission == nil || string(submission) == last {
			continue
		}
		if in := o.interests[string(submission)]; in != nil {
			last = string(submission)
			o.change(last, in)
		}
	}
}

func (o *owner) dead(shard int, id []byte, reason string) {
	submission, text := split(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	in := o.interests[string(submission)]
	index, err := strconv.Atoi(string(text))
	if in == nil || err != nil || index < 0 || index >= in.count || len(o.news) >= maxDeadNews {
		return
	}
	o.news = append(o.news, deadNews{string(submission), shard, index, broker.Clip(reason, maxReason)})
	o.change(string(submission), in)
}

// change notes that a submission has changed. mu is held.
func (o *owner) change(id string, in *interested) {
	if in.changed {
		return
	}
	in.changed = true
	if len(o.changed) == 0 {
		o.changedAt = time.Now()
		o.wake()
	}
	o.changed = append(o.changed, id)
}

// hear takes the interest of a node, and answers what is known.
func (o *owner) hear(in *interest) {
	if o.cfg.Owned == nil && o.memory == nil {
		return
	}
	if o.cfg.Owned != nil {
		o.note(in, time.Now())
	}
	answers := o.answers()
	for _, a := range in.IDs {
		shards, _ := parseBits(a.Shards, maxShards) // it was read before
		if st, owns := o.look(a.ID, shards); len(owns) > 0 || a.Seek && o.memory != nil {
			if a.Seek {
				o.remember(&st)
			}
			answers.add(in.To, owns, st)
		}
	}
	answers.send()
}

// note has the node hear of changes.
func (o *owner) note(in *interest, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range in.IDs {
		known := o.interests[a.ID]
		shards, _ := parseBits(a.Shards, maxShards)
		if known == nil {
			if o.askers >= maxInterests {
				continue
			}
			count, _ := message.CountOf(a.ID)
			known = &interested{count: count, shards: shards}
			o.interests[a.ID] = known
		} else if known.shards != nil && shards != nil {
			known.shards.join(shards)
		} else {
			known.shards = nil
		}
		until := now.Add(leaseTime)
		if i := slices.IndexFunc(known.askers, func(k asker) bool { return k.to == in.To }); i >= 0 {
			known.askers[i].until = until
		} else if o.askers < maxInterests {
			known.askers = append(known.askers, asker{in.To, until})
			o.askers++
		}
	}
	o.watched.Store(len(o.interests) > 0)
}

// expire forgets interests whose lease is over.
func (o *owner) expire(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.expired) < tellAgain {
		return
	}
	o.expired = now
	for id, in := range o.interests {
		before := len(in.askers)
		in.askers = slices.DeleteFunc(in.askers, func(a asker) bool { return !now.Before(a.until) })
		o.askers -= before - len(in.askers)
		if len(in.askers) == 0 {
			delete(o.interests, id)
		}
	}
	o.watched.Store(len(o.interests) > 0)
}

// look returns what is written of a submission in the shards that this process owns, and
// which those are.
func (o *owner) look(id string, shards bitset) (st idState, owns []Owned) {
	st.ID = id
	if o.cfg.Owned == nil {
		return st, nil
	}
	count, _ := message.CountOf(id)
	owns = o.cfg.Owned(id, count, slices.Collect(shards.all()))
	for _, w := range owns {
		if len(w.Bits) > 0 {
			st.Written = append(st.Written, written{w.Shard, bitset(w.Bits).String(), w.First.UnixMilli(), w.Last.UnixMilli(), w.Until.UnixMilli()})
		}
	}
	return st, owns
}

// remember adds what this process remembers of having accepted the submission.
func (o *owner) remember(st *idState) {
	if o.memory == nil {
		return
	}
	st.Sought = true
	if at, shards, found := o.memory.find(st.ID); found {
		st.Accepted, st.Shards = at.UnixMilli(), shards.String()
	}
}

// due tells the changes that have waited long enough. It returns when the next are, zero
// for never.
func (o *owner) due(now time.Time) time.Time {
	o.mu.Lock()
	if len(o.changed) == 0 {
		o.mu.Unlock()
		return time.Time{}
	}
	if at := o.changedAt.Add(gatherChanges); now.Before(at) {
		o.mu.Unlock()
		return at
	}
	type told struct {
		id     string
		shards bitset
		to     []string
		dead   deadSets
	}
	all := make([]told, 0, len(o.changed))
	index := make(map[string]int, len(o.changed))
	for _, id := range o.changed {
		in := o.interests[id]
		if in == nil {
			continue
		}
		in.changed = false
		t := told{id: id, shards: slices.Clone(in.shards)}
		for _, a := range in.askers {
			t.to = append(t.to, a.to)
		}
		index[id] = len(all)
		all = append(all, t)
	}
	for _, n := range o.news {
		if i, ok := index[n.id]; ok {
			all[i].dead.add(n.shard, n.reason, n.index, now)
		}
	}
	o.changed, o.news = o.changed[:0], nil
	o.mu.Unlock()

	answers := o.answers()
	for _, t := range all {
		st, owns := o.look(t.id, t.shards)
		for _, d := range t.dead {
			st.Dead = append(st.Dead, deadState{d.shard, d.bits.String(), d.reason})
		}
		for _, to := range t.to {
			answers.add(to, owns, st)
		}
	}
	answers.send()
	return time.Time{}
}

// answers gathers what is to be told, by the node that asked and the shards that were
// looked at.
type answers struct {
	owner *owner
	open  map[answerKey]*openAnswer
}

type answerKey struct{ to, owns string }

type openAnswer struct {
	answer
	bytes int
}

func (o *owner) answers() *answers { return &answers{o, make(map[answerKey]*openAnswer)} }

func (a *answers) add(to string, owns []Owned, st idState) {
	var shards bitset
	for _, w := range owns {
		if w.Shard < maxShards {
			shards.add(w.Shard)
		}
	}
	key := answerKey{to, shards.String()}
	open := a.open[key]
	if open == nil {
		open = &openAnswer{answer: answer{V: broker.BusVersion, Node: a.owner.cfg.Node(), Owns: key.owns, Paused: pausedOf(owns)}}
		for _, w := range owns {
			if w.Forgot && w.Shard < maxShards {
				open.Forgot = append(open.Forgot, shardMemory{w.Shard, w.Since.UnixMilli()})
			}
		}
		a.open[key] = open
	}
	bytes := 80 + len(st.Shards)
	for _, w := range st.Written {
		bytes += 100 + len(w.Bits)
	}
	for _, d := range st.Dead {
		bytes += 50 + len(d.Bits) + 6*len(d.Reason)
	}
	if len(open.IDs) > 0 && open.bytes+bytes > answerBytes {
		a.owner.tell(to, open.answer)
		open.IDs, open.bytes = nil, 0
	}
	open.IDs, open.bytes = append(open.IDs, st), open.bytes+bytes
}

func (a *answers) send() {
	for key, open := range a.open {
		a.owner.tell(key.to, open.answer)
	}
}
