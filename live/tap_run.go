package live

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"async-data-processor/broker"
	"async-data-processor/message"
)

const (
	// workShare bounds what filters cost: one part of so many of a processor's time.
	// workBurst is for how long they may go on without a rest.
	workShare = 20
	workBurst = 20 * time.Millisecond
	// atOnce is how many batches are asked about between two looks at taps at most.
	atOnce = 32
)

// run serves the taps until ctx ends. Then it tells what is left, and that it ends.
func (o *tapOwner) run(ctx context.Context) {
	tick := time.NewTicker(tellInterval)
	tick.Stop()
	ticking := false
	var rest <-chan time.Time // while the filters have used up their time
	work := allowance{}
	for {
		woken := o.woken
		if rest != nil {
			woken = nil
		}
		select {
		case <-ctx.Done():
			o.finish()
			return
		case <-rest:
			rest = nil
			o.wake()
		case <-woken:
			if !ticking {
				tick.Reset(tellInterval)
				ticking = true
			}
			began := time.Now()
			if o.askSome() {
				o.wake()
			}
			if d := work.spend(began, time.Since(began)); d > 0 {
				rest = time.After(d)
			}
		case now := <-tick.C:
			taps := o.expire(now)
			if len(taps) == 0 {
				tick.Stop()
				ticking = false
			}
			o.tell(now, taps, false)
		}
	}
}

// finish ends all taps with what is left for them.
func (o *tapOwner) finish() {
	for o.askSome() {
	}
	now := time.Now()
	taps := o.expire(now)
	o.tell(now, taps, true)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for _, t := range taps {
		o.end(t)
	}
}

// allowance is how long the filters may work.
type allowance struct {
	left time.Duration
	at   time.Time
}

// spend takes what was spent from a moment on, and returns how long to rest.
func (a *allowance) spend(began time.Time, took time.Duration) (rest time.Duration) {
	if a.at.IsZero() {
		a.left = workBurst
	} else {
		a.left = min(workBurst, a.left+began.Sub(a.at)/workShare)
	}
	a.left, a.at = a.left-took, began
	return max(0, -a.left*workShare)
}

// askSome asks the filters about some of the lines that wait, and returns whether there
// are more.
func (o *tapOwner) askSome() (more bool) {
	o.mu.Lock()
	some := o.queue
	if more = len(some) > atOnce; more {
		some, o.queue = some[:atOnce:atOnce], some[atOnce:]
	} else {
		o.queue = nil
	}
	taps := make([]*tap, 0, len(o.taps))
	for _, t := range o.taps {
		t.bucket.rate = t.rate
		taps = append(taps, t)
	}
	o.mu.Unlock()
	now := time.Now()
	for i := range some {
		if i > 0 && time.Since(now) > workBurst { // the others wait, after a rest
			o.mu.Lock()
			defer o.mu.Unlock()
			o.queue = append(some[i:], o.queue...)
			return true
		}
		o.ask(&some[i], taps, now)
		o.bytes.Add(-int64(some[i].size))
		some[i] = passed{} // its lines can go
	}
	return more
}

// ask asks the filters of the taps about lines.
func (o *tapOwner) ask(p *passed, taps []*tap, now time.Time) {
	taps = slices.DeleteFunc(slices.Clone(taps), func(t *tap) bool {
		return t.from > p.number || t.filter.Stage != p.Stage || !t.filter.wants(p.Shard)
	})
	from := 0
	for _, to := range p.ends {
		l := tapLine{owner: o, of: &p.Passed, raw: p.lines[from:to]}
		from = to
		id := l.id()
		for _, t := range taps {
			t.seen++
			if !t.filter.matches(p.Shard, id, l.text) {
				continue
			}
			t.matched++
			switch {
			case !t.bucket.take(now):
				t.sampled++
			case t.bytes < tellBytes:
				e := l.entry(t.filter.Payload)
				t.entries = append(t.entries, e)
				t.bytes += len(e)
			}
		}
	}
}

// tapLine is a message that taps look at. What it needs for them is made once.
type tapLine struct {
	owner   *tapOwner
	of      *Passed
	raw     []byte
	redacts []byte             // raw, masked
	encoded map[Payload][]byte // as a Message
}

func (l *tapLine) id() []byte { return message.Message{Line: l.raw}.RawID() }

// text is the line with what has to be masked masked.
func (l *tapLine) text() []byte {
	if l.redacts == nil {
		l.redacts = l.raw
		if l.owner.redact != nil {
			l.redacts = l.owner.redact.masked(l.raw)
		}
	}
	return l.redacts
}

func (l *tapLine) entry(p Payload) []byte {
	if l.encoded[p] == nil {
		if l.encoded == nil {
			l.encoded = make(map[Payload][]byte, 1)
		}
		l.encoded[p] = l.encode(p)
	}
	return l.encoded[p]
}

// encode is the line as a Message. It is encoded by hand, since encoding/json would
// change the entry's text.
func (l *tapLine) encode(p Payload) []byte {
	b := make([]byte, 0, 256+len(l.raw))
	b = appendText(b, `{"id":`, string(l.id()))
	b = strconv.AppendInt(append(b, `,"shard":`...), int64(l.of.Shard), 10)
	if l.of.Worker != "" {
		b = appendText(b, `,"worker":`, l.of.Worker)
	}
	if l.of.File != "" {
		b = appendText(b, `,"file":`, l.of.File)
	}
	if l.of.Reason != "" {
		b = appendText(b, `,"reason":`, cut(l.of.Reason, MaxTailEntry))
	}
	b = append(stamp(l.of.At).AppendFormat(append(b, `,"at":"`...), time.RFC3339Nano), '"')
	if p != PayloadNone {
		most := MaxTailEntry
		if p == PayloadHead {
			most = HeadBytes
		}
		text := l.text()
		switch {
		case len(text) > most:
			b = appendText(b, `,"truncated":true,"entry":`, cut(string(text[:most]), most))
		case jsontext.Value(text).IsValid():
			b = append(append(b, `,"entry":`...), text...)
		default: // of a dead letter that no server of ours has made
			b = appendText(b, `,"entry":`, string(text))
		}
	}
	return append(b, '}')
}

// cut returns at most so many bytes of a text, of whole characters.
func cut(s string, most int) string {
	s = s[:min(len(s), most)]
	return s[:broker.WholeRunes(s)]
}

func appendText(b []byte, name, text string) []byte {
	b, _ = jsontext.AppendQuote(append(b, name...), text) // of what is no UTF-8, bad bytes are replaced
	return b
}

// tell tells of the taps what is new. What does not fit into the bytes of an interval is
// lost, and told by the counts: those with little come first, so that a tap with much
// takes nothing from them.
func (o *tapOwner) tell(now time.Time, taps []*tap, end bool) {
	slices.SortFunc(taps, func(a, b *tap) int { return a.bytes - b.bytes }) // by chance if they have as much
	room := tellBytes
	for i, t := range taps {
		o.mu.Lock()
		unasked := t.unasked
		t.unasked = 0
		o.mu.Unlock()
		t.seen += unasked
		t.matched += unasked
		share := room / (len(taps) - i)
		if len(t.entries) > 0 {
			share = min(room, max(share, len(t.entries[0])+1))
		}
		b := tapEntries{Seen: t.seen, Matched: t.matched, Sampled: t.sampled}
		if (b.Seen == t.told.Seen || room == 0) && !end && now.Sub(t.toldAt) < stillInterval {
			continue
		}
		b.V, b.Node, b.Tap, b.Began, b.Seq, b.End = broker.BusVersion, o.cfg.Node(), t.key.tap, t.began, t.told.Seq+1, end
		body := t.body(&b, share)
		room -= min(room, len(body))
		t.told, t.toldAt, t.entries, t.bytes = b, now, nil, 0
		// A body that is lost is told by the counts of the next one.
		_ = o.cfg.Bus.Tell(entriesTopic(t.key.hub), body)
	}
}

// body is the body that tells of the tap, with as many entries as there is room for.
func (t *tap) body(b *tapEntries, room int) []byte {
	body := make([]byte, 0, 256+min(room, t.bytes)+len(t.entries))
	body = strconv.AppendInt(append(body, `{"v":`...), broker.BusVersion, 10)
	body = appendText(body, `,"node":`, b.Node)
	body = appendText(body, `,"tap":`, b.Tap)
	for _, n := range []struct {
		name  string
		value uint64
	}{{"seq", b.Seq}, {"began", b.Began}, {"seen", b.Seen}, {"matched", b.Matched}, {"sampled", b.Sampled}} {
		body = append(append(append(body, `,"`...), n.name...), `":`...)
		body = strconv.AppendUint(body, n.value, 10)
	}
	if b.End {
		body = append(body, `,"end":true`...)
	}
	body = append(body, `,"entries":[`...)
	for i, e := range t.entries {
		if room -= len(e) + 1; room < 0 {
			break
		}
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, e...)
	}
	return append(body, "]}"...)
}

// bucket lets a number of entries a second through, a tenth of a second's at once.
type bucket struct {
	rate   int // 0 for all
	tokens float64
	at     time.Time
}

func (b *bucket) take(now time.Time) bool {
	if b.rate == 0 {
		return true
	}
	most := max(1, float64(b.rate)/10)
	if b.at.IsZero() {
		b.tokens = most
	} else {
		b.tokens = min(most, b.tokens+now.Sub(b.at).Seconds()*float64(b.rate))
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
