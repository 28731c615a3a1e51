package live

import (
	"context"
	"io"
	"slices"
	"time"

	"async-data-processor/broker"
)

// step returns the next frame; one without a kind if there is none yet, and how long to
// wait for another look at most.
func (v *Viewer) step(ctx context.Context, now time.Time) (f Frame, wait time.Duration, err error) {
	t := v.tail
	t.mu.Lock()
	if want := v.want; want > 0 && len(v.first) == 0 {
		v.want = 0
		t.mu.Unlock()
		asking, cancel := context.WithTimeout(ctx, broker.AskTimeout)
		v.ask(asking, want)
		cancel()
		t.mu.Lock()
	}
	defer t.mu.Unlock()
	if v.closed {
		return Frame{}, 0, errClosed
	}
	if v.over {
		return Frame{}, 0, io.EOF
	}
	if now.Sub(v.born) >= shownTime {
		v.shown = nil
	}
	if len(v.first) == 0 {
		v.advance(now)
	}
	if len(v.first) > 0 {
		f, v.first = v.first[0], v.first[1:]
		v.over = f.Kind == KindBye
		return f, 0, nil
	}
	wait = statsInterval - now.Sub(v.statsAt)
	if v.sampled != v.sampleTold {
		wait = min(wait, sampleInterval-now.Sub(v.sampleAt))
	}
	return Frame{}, max(0, wait), nil
}

// advance goes on by one place, and makes the frames that are to be shown for it. mu is
// held.
func (v *Viewer) advance(now time.Time) {
	switch {
	case v.bye != nil:
		v.account(&v.before)
		v.show(KindStats, v.counts())
		v.show(KindBye, *v.bye)
	case now.Sub(v.statsAt) >= statsInterval:
		v.statsAt = now
		v.show(KindStats, v.counts())
	case v.sampled != v.sampleTold && now.Sub(v.sampleAt) >= sampleInterval:
		v.sampleAt, v.sampleTold = now, v.sampled
		v.show(KindSample, v.counts())
	case len(v.earlier) > 0:
		it := v.earlier[0]
		v.earlier = v.earlier[1:]
		v.showItem(&it)
	case len(v.queue) > 0:
		it := v.pop()
		v.account(&v.before)
		v.showItem(&it)
	default:
		v.account(&v.before)
		v.account(&v.behind)
	}
}

func (v *Viewer) show(k Kind, data any) {
	v.first = append(v.first, Frame{k, placeOf(v.stream.epoch, v.at), data})
}

// showItem shows a message, and what is before it.
func (v *Viewer) showItem(it *item) {
	v.account(&it.before)
	if it.message.Replayed {
		v.replayed++
	} else {
		v.at = it.seq
	}
	v.sent++
	v.show(KindMessage, it.message)
	if v.sent == uint64(v.query.Limit) {
		v.finish()
	}
}

// finish ends the view because it has shown as many as it was to show. What waits was
// never at its place.
func (v *Viewer) finish() {
	v.earlier, v.queue, v.before, v.behind = nil, nil, counts{}, counts{}
	v.bye = &Bye{Why: ByeLimit}
}

// account goes on behind messages that are not shown, and tells those that are missed.
func (v *Viewer) account(c *counts) {
	v.at += c.sampled + c.again
	v.sampled += c.sampled
	v.again += c.again
	for _, gap := range []Gap{{c.ring, WhyRing, false}, {c.node, WhyNode, c.unknown}, {c.slow, WhySlow, false}} {
		if gap.Missed > 0 || gap.AtLeast {
			v.at += gap.Missed
			v.missed += gap.Missed
			v.show(KindGap, gap)
		}
	}
	*c = counts{}
}

// counts are those at the place of the view. Matched is from the numbers of the stream,
// the others were counted here.
func (v *Viewer) counts() Counts {
	return Counts{
		Seen:    v.stream.seen - v.seenBefore + v.replayed,
		Matched: v.at - v.begin - v.again + v.replayed,
		Sent:    v.sent, Missed: v.missed, Sampled: v.sampled,
	}
}

// replay puts messages from files before what is shown, without those that the stream
// has: the number of all is what was wanted beside it at most.
func (v *Viewer) replay(found []Message, want int) {
	// A node has them in the order of its shards. Shards have one owner.
	slices.SortStableFunc(found, func(a, b Message) int { return a.At.Compare(b.At) })
	v.tail.mu.Lock()
	defer v.tail.mu.Unlock()
	if v.closed || v.bye != nil {
		return
	}
	v.shown = make(map[string]struct{}, len(found))
	for _, it := range v.stream.ring {
		v.shown[it.message.ID] = struct{}{}
	}
	found = slices.DeleteFunc(found, func(m Message) bool {
		_, again := v.shown[m.ID]
		return again
	})
	found = found[len(found)-min(len(found), want):]
	clear(v.shown)
	items := make([]item, 0, len(found)+len(v.earlier))
	for _, m := range found {
		if _, again := v.shown[m.ID]; again {
			continue // two nodes have told it
		}
		v.shown[m.ID] = struct{}{}
		m.Replayed = true
		items = append(items, item{message: m})
	}
	v.earlier = append(items, v.earlier...)
}
