package jobs

import (
	"cmp"
	"context"
	"encoding/json"
	"sync"
	"time"

	"async-data-processor/event"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

const (
	// maxWaiting is how many frames may wait to be sent to a runner.
	maxWaiting = 1024
	// goneTimeout bounds how long the offers of a runner that has gone are given back.
	goneTimeout = 5 * time.Second
)

// runner is a connection of a runner. Four goroutines work for it: one reads frames, one
// does what they ask for in their order, one renews leases, so that these do not wait for
// logs, and one writes.
//
//	read ──▶ todo  ──▶ work  ──┐
//	  └────▶ beats ──▶ renew ──┴──▶ out ──▶ write
type runner struct {
	// set before it is in the hub, read-only after
	engine        *Engine
	socket        Socket
	name, version string
	seed          bool // see Socket.Bare
	connected     time.Time
	load          load
	ctx           context.Context // ends when the connection has to
	end           context.CancelFunc
	parts         sync.WaitGroup

	out   chan []byte
	todo  *queue
	beats chan frame.Frame // the last one that waits

	mu     sync.Mutex // guards what follows
	code   int        // why it ends; 0 if that is not known
	reason string
}

func newRunner(e *Engine, s Socket) *runner {
	r := &runner{
		engine: e, socket: s, connected: time.Now(), out: make(chan []byte, maxWaiting), beats: make(chan frame.Frame, 1),
		todo: &queue{filled: make(chan struct{}, 1), emptied: make(chan struct{}, 1)},
	}
	r.load.held, r.load.shunned = make(map[store.Fence]*held), make(map[string]time.Time)
	r.ctx, r.end = context.WithCancel(context.Background())
	return r
}

// stop has the connection end, without waiting for that. The first call says why.
func (r *runner) stop(code int, reason string) {
	r.mu.Lock()
	if r.code == 0 {
		r.code, r.reason = code, reason
	}
	r.mu.Unlock()
	r.load.close()
	r.end()
}

// drain has the runner go to another engine.
func (r *runner) drain() { r.stop(closeDrain, "the engine stops") }

// gone gives back what the runner was offered, and tells that it is not there any more. A
// run that it has taken is left to it: it may come back before its lease ends.
func (r *runner) gone() {
	r.end()
	r.parts.Wait()
	r.engine.hub.leave(r)
	offers, taken := r.load.close()
	e := event.RunnerGone{Runner: r.name, Held: taken}
	r.mu.Lock()
	e.Why = cmp.Or(r.reason, "it has stopped, or the connection to it broke")
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), goneTimeout)
	defer cancel()
	for _, f := range offers {
		if err := r.engine.unclaim(ctx, f, "runner "+r.name+" has gone"); err != nil {
			break // they are given back when their lease ends
		}
	}
	r.engine.cfg.Events.Send(e)
	r.engine.tells.runnersChanged()
	r.engine.Kick()
}

// write sends what waits, until the connection ends, and then says why.
func (r *runner) write() {
	for {
		select {
		case text := <-r.out:
			if r.socket.Write(pending(r.out, text)...) != nil {
				r.end()
			}
			continue
		case <-r.socket.Draining():
			r.drain()
		case <-r.ctx.Done():
		}
		break
	}
	r.mu.Lock()
	code, reason := r.code, r.reason
	r.mu.Unlock()
	if code == closeDrain {
		last := pending(r.out)
		if text := r.encode(frame.Frame{Type: frame.Drain}); text != nil {
			last = append(last, text)
		}
		_ = r.socket.Write(last...)
	}
	r.socket.Close(cmp.Or(code, closeNormal), reason)
}

// pending returns the texts that wait, after those that are given.
func pending(out <-chan []byte, texts ...[]byte) [][]byte {
	for {
		select {
		case text := <-out:
			texts = append(texts, text)
		default:
			return texts
		}
	}
}

// encode returns a frame as the runner reads it, nil if it has no word for it.
func (r *runner) encode(f frame.Frame) []byte {
	if r.seed {
		return seedFrame(f)
	}
	text, err := json.Marshal(f)
	if err != nil {
		return nil // of arguments that are not JSON, which were not let in
	}
	return text
}

// send sends a frame. It does not wait: a runner that does not read is closed.
func (r *runner) send(f frame.Frame) { r.sendText(r.encode(f)) }

func (r *runner) sendText(text []byte) {
	if text == nil {
		return
	}
	select {
	case r.out <- text:
	default:
		r.stop(closeSlow, "frames are sent faster than they are read")
	}
}

// reply sends a frame, and waits while the runner does not read.
func (r *runner) reply(f frame.Frame) {
	text := r.encode(f)
	if text == nil {
		return
	}
	select {
	case r.out <- text:
	case <-r.ctx.Done():
	}
}

// stale tells the runner that an attempt is not its own.
func (r *runner) stale(f store.Fence) {
	r.load.drop(f)
	r.reply(frame.Frame{Type: frame.Stale, Run: f.Run, Attempt: f.Attempt})
}

// offer offers a run that was claimed. It returns false if the runner has gone.
func (r *runner) offer(run store.Run) bool {
	if !r.load.add(fenceOf(run), run.Job, r.seed) {
		return false
	}
	r.send(frame.Frame{Type: frame.Offer, Run: run.ID, Attempt: run.Attempt, Job: run.Job, Args: run.Args, File: run.File})
	if r.seed { // it starts at once
		r.todo.put(frame.Frame{Type: frame.Take, Run: run.ID, Attempt: run.Attempt})
	}
	return true
}

func (r *runner) view(node string) RunnerView {
	v := RunnerView{ID: r.name, Engine: node, Version: r.version, Connected: r.connected.UTC().Truncate(time.Millisecond), Runs: []int64{}, Seed: r.seed}
	r.load.tell(&v)
	return v
}
