package server

import (
	"strconv"
	"sync"
	"time"

	"async-data-processor/event"
	"async-data-processor/message"
)

// frame is a submission on its way.
type frame struct {
	in   *ingest
	done func([]message.ShardCount, error) // of Submitter.Start

	// Set before the frame is answered, read-only after.
	ref        string
	submission string // its id
	accepted   int    // how many messages it has
	bytes      int    // of the frame
	began      time.Time
	took       time.Duration
	shards     []message.ShardCount
	problem    *problem // nil if it was published
	entered    bool     // it counts in the window

	taken share // of the goroutine that reads, then of the one that answers

	// Guarded by ingest.mu.
	wanted   bool    // a second answer is to come
	wait     Waiting // for it
	answered bool    // the first answer is sent, or about to
	progress Progress

	// Only the goroutine that answers uses what follows: which answers it sends.
	first, second bool
}

// framePool keeps *frame.
var framePool sync.Pool

func newFrame(in *ingest) *frame {
	f, _ := framePool.Get().(*frame)
	if f == nil {
		f = new(frame)
		f.done = f.published
	}
	f.in, f.began = in, time.Now()
	f.taken = share{of: &in.server.budget, client: in.held}
	return f
}

// recycle gives back what the frame has taken of the budget, and the frame.
func (f *frame) recycle() {
	f.taken.give(f.taken.bytes)
	if f.wait == nil { // else its Waiter may still tell it something
		*f = frame{done: f.done}
		framePool.Put(f)
	}
}

// await begins to wait for the frame's messages to be in files, if there is room for
// one more that waits.
func (in *ingest) await(f *frame) {
	in.mu.Lock()
	f.wanted = len(in.waiting) < maxWaits
	if f.wanted {
		if in.waiting == nil {
			in.waiting = make(map[*frame]struct{})
		}
		in.waiting[f] = struct{}{}
	}
	in.mu.Unlock()
	if !f.wanted {
		return
	}
	w, ok := in.server.cfg.Waiter.Await(f.submission, in.client, f.written)
	in.mu.Lock()
	defer in.mu.Unlock()
	if ok {
		f.wait = w
	} else {
		f.wanted = false
		delete(in.waiting, f)
	}
}

// written is told that each of the frame's messages is written or dead.
func (f *frame) written(p Progress) {
	f.in.mu.Lock()
	defer f.in.mu.Unlock()
	if _, waits := f.in.waiting[f]; !waits {
		return
	}
	f.progress = p
	if f.answered { // else the second answer goes with the first
		f.in.makeReady(f)
	}
}

// published is told the outcome of Submitter.Start.
func (f *frame) published(shards []message.ShardCount, err error) {
	f.in.server.Intake.leave()
	f.shards = shards
	if err != nil {
		f.problem = refusePublish(err, true)
	}
	f.in.answer(f)
}

// answer has the frame be answered.
func (in *ingest) answer(f *frame) {
	f.took = time.Since(f.began)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.makeReady(f)
}

// makeReady is answer also for a second one. mu is held.
func (in *ingest) makeReady(f *frame) {
	in.ready = append(in.ready, f)
	if !in.answering {
		in.answering = true
		go in.answerAll()
	}
}

// answerAll answers what is ready, all of it in one write, until there is no more.
func (in *ingest) answerAll() {
	for {
		batch := in.takeReady()
		if batch == nil {
			return
		}
		err := in.socket.writeAll(func(yield func([]byte) bool) {
			text := *outs.Get().(*[]byte)
			defer func() { giveOut(text) }()
			for _, f := range batch {
				if f.first {
					if text = f.appendFirst(text[:0]); !yield(text) {
						return
					}
				}
				if f.second {
					if text = f.appendSecond(text[:0]); !yield(text) {
						return
					}
				}
			}
		})
		for _, f := range batch {
			f.tell(err)
		}
		in.leave(batch)
	}
}

// takeReady returns the frames to be answered now, nil if there are none.
func (in *ingest) takeReady() []*frame {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.ready) == 0 {
		in.answering = false
		in.room.Broadcast()
		return nil
	}
	batch := in.ready
	in.ready, in.spare = in.spare[:0], nil
	for _, f := range batch {
		f.first, f.answered = !f.answered, true
		f.second = f.wanted && f.progress.Done && f.problem == nil
		if f.isLast() {
			delete(in.refs, f.ref) // before the client may use it again
		}
	}
	return batch
}

// isLast tells whether no other answer follows the ones that are sent now.
func (f *frame) isLast() bool { return !f.wanted || f.second || f.problem != nil }

// leave takes the answered frames out of the window, and ends what is over.
func (in *ingest) leave(batch []*frame) {
	for _, f := range batch {
		if f.wait == nil {
			continue
		}
		if f.problem != nil || f.second {
			f.wait.End()
		} else {
			f.wait.Accepted(f.shards)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, f := range batch {
		if f.first {
			in.unsettled--
			in.window -= int64(f.bytes)
		}
		if f.isLast() {
			delete(in.waiting, f)
			f.recycle()
		} else {
			f.taken.give(f.taken.bytes)
		}
		batch[i] = nil
	}
	in.spare = batch[:0]
	in.room.Broadcast()
}

// appendFirst appends the frame's first answer. No part of it but the problem needs
// escapes.
func (f *frame) appendFirst(b []byte) []byte {
	if f.problem == nil {
		b = append(append(b, `{"type":"accepted","ref":"`...), f.ref...)
		b = appendReceipt(append(b, `",`...), f.submission, f.accepted, f.shards)
		if f.in.waits && !f.wanted {
			b = append(b, `,"want":"unavailable"`...)
		}
		return append(b, '}')
	}
	kind := "unknown"
	switch f.problem.kind.name {
	case notPublished.name, intakePaused.name:
		kind = "unavailable"
	case outcomeUnknown.name, internalError.name:
	default:
		text, err := f.problem.marshal(f.in.socket.request.ID)
		// It names faults of the client's entries, so it may be longer than they are.
		if err == nil && f.taken.take(max(0, int64(len(text))-f.taken.bytes)) == nil {
			b = append(append(b, `{"type":"rejected","ref":"`...), f.ref...)
			return append(append(append(b, `","problem":`...), text...), '}')
		}
		f.problem, kind = &problem{kind: overloaded, detail: "this process has no room for the answer", cause: errOverBudget}, "overloaded"
	}
	b = append(append(b, `{"type":"failed","ref":"`...), f.ref...)
	b = append(append(b, `","kind":"`...), kind...)
	b = append(append(b, `","title":"`...), f.problem.kind.title...)
	b = append(b, `","retry_ms":`...)
	return append(strconv.AppendInt(b, int64(f.problem.kind.retryAfter)*1000, 10), '}')
}

// appendSecond appends the frame's second answer.
func (f *frame) appendSecond(b []byte) []byte {
	kind := "written"
	if f.progress.Dead > 0 {
		kind = "dead"
	}
	b = append(append(append(b, `{"type":"`...), kind...), `","ref":"`...)
	b = append(append(append(b, f.ref...), `","id":"`...), f.submission...)
	b = append(b, '"')
	if f.progress.Dead > 0 {
		b = strconv.AppendInt(append(b, `,"dead":`...), int64(f.progress.Dead), 10)
	}
	return append(b, '}')
}

// tell sends the event about the first answer, and why it could not be written.
func (f *frame) tell(err error) {
	if !f.first {
		return
	}
	r := f.in.socket.request
	r.Bytes, r.Elapsed, r.Err = f.bytes, f.took, err
	if f.problem == nil {
		r.Status = 201
		f.in.server.cfg.Events.Send(event.Submitted{Request: r, Submission: f.submission, Accepted: f.accepted})
		return
	}
	r.Status, r.Err = f.problem.kind.status, f.problem
	f.in.server.cfg.Events.Send(event.Refused{Request: r, Kind: f.problem.kind.name, Submission: f.submission})
}
