package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/client"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/runner/guard"
)

const (
	// greetTimeout bounds the way to a Welcome.
	greetTimeout = 10 * time.Second
	// logWindow is how many bytes of logs are on the way at most. A beat may have to wait
	// for them.
	logWindow = 4 * frame.MaxLogPart
)

// link is a connection that an engine has welcomed.
type link struct {
	r    *Runner
	ws   *websocket.Conn
	wake chan struct{} // there is something to send
	beat chan struct{} // a beat is due now

	// mu of the Runner guards what follows.
	queue []frame.Frame
	turn  int // of the attempts, whose log is next
	beats beats
}

// beats are the beats of a connection that have no answer yet.
type beats struct {
	seq  uint64
	open map[uint64]beat
}

// beat renews attempts. A lease lasts from its start at least, as the engine cannot have
// renewed it before.
type beat struct {
	start    int64 // by guard.Now
	attempts []frame.Attempt
}

// begin returns a beat that is sent at a time not before now.
func (b *beats) begin(now int64, attempts []frame.Attempt) frame.Frame {
	if b.open == nil {
		b.open = make(map[uint64]beat)
	}
	b.seq++
	b.open[b.seq] = beat{now, attempts}
	return frame.Frame{Type: frame.BeatFrame, Seq: b.seq, Attempts: attempts}
}

// answer returns the beat that was answered.
func (b *beats) answer(seq uint64) (answered beat, ok bool) {
	answered, ok = b.open[seq]
	for earlier := range b.open {
		if earlier <= seq {
			delete(b.open, earlier) // the later one says more
		}
	}
	return answered, ok
}

// connect makes a connection and works with it until it ends. welcomed tells whether an
// engine has taken the runner.
func (r *Runner) connect(ctx context.Context) (welcomed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, welcome, err := r.greet(ctx)
	if err != nil {
		return false, err
	}
	defer l.ws.CloseNow()
	r.begin(l, welcome)
	r.cfg.Tell(Notice{Text: "connected to an engine", Node: welcome.Node})
	var parts sync.WaitGroup
	parts.Go(func() { cancel(l.send(ctx)) })
	parts.Go(func() { cancel(l.keepBeating(ctx)) })
	err = l.read(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // why the reading has ended
	}
	cancel(nil)
	r.mu.Lock()
	r.link = nil
	r.mu.Unlock()
	parts.Wait()
	return true, client.Refusal(err)
}

// greet dials, tells what the runner has, and reads the Welcome.
func (r *Runner) greet(ctx context.Context) (_ *link, welcome frame.Frame, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, greetTimeout, fmt.Errorf("no welcome within %v", greetTimeout))
	defer cancel()
	ws, err := client.Dial(ctx, client.DialConfig{HTTP: r.cfg.HTTP, URL: r.url, Token: r.cfg.Token, Subprotocol: frame.Protocol})
	if err != nil {
		return nil, welcome, err
	}
	defer func() {
		if err != nil {
			_ = ws.CloseNow()
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	ws.SetReadLimit(frame.MaxFrame)
	l := &link{r: r, ws: ws, wake: make(chan struct{}, 1), beat: make(chan struct{}, 1)}
	hello := frame.Frame{
		Type: frame.Hello, V: frame.Version, Runner: r.cfg.Name, Version: r.cfg.Version, Slots: r.cfg.Slots, Labels: r.cfg.Labels,
	}
	r.mu.Lock()
	for _, a := range r.attempts {
		id := a.id()
		id.Log = a.log.length.Load()
		hello.Attempts = append(hello.Attempts, id)
	}
	r.mu.Unlock()
	if err := l.write(ctx, hello); err != nil {
		return nil, welcome, client.Refusal(err)
	}
	if welcome, err = l.receive(ctx); err != nil {
		return nil, welcome, client.Refusal(err)
	}
	if welcome.Type != frame.Welcome {
		return nil, welcome, fmt.Errorf("%w: the engine begins with %q, not with a welcome", client.ErrRefused, welcome.Type)
	}
	return l, welcome, nil
}

func (l *link) write(ctx context.Context, f frame.Frame) error {
	text, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("%w: %w", client.ErrRefused, err)
	}
	return l.ws.Write(ctx, websocket.MessageText, text)
}

func (l *link) receive(ctx context.Context) (f frame.Frame, err error) {
	_, text, err := l.ws.Read(ctx)
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	return f, err
}

// begin makes a connection the one of the runner, and goes on where the engine says.
func (r *Runner) begin(l *link, welcome frame.Frame) {
	var lost []*attempt
	r.mu.Lock()
	r.link, r.welcome = l, true
	r.define(welcome.Definitions)
	keeps := make(map[frame.Attempt]int64)
	for _, id := range welcome.Attempts {
		log := id.Log
		id.Log = 0
		keeps[id] = log
	}
	for _, a := range slices.Clone(r.attempts) {
		if a.state == offered { // the engine's answer is lost, and the offer with it
			a.log.end()
			a.state, a.outcome, a.why = over, frame.Returned, "the connection broke before the start"
		}
		if log, ok := keeps[a.id()]; ok {
			a.resume(log)
			continue
		}
		a.resume(a.acked) // its late report is of use, too
		if r.giveUp(a) {
			lost = append(lost, a)
		}
	}
	if r.draining {
		l.say(frame.Frame{Type: frame.Drain})
	}
	r.mu.Unlock()
	end(lost)
}

// define takes the jobs as they are now. mu is locked.
func (r *Runner) define(definitions []frame.Definition) {
	r.jobs = make(map[string]frame.Definition, len(definitions))
	for _, d := range definitions {
		r.jobs[d.Name] = d
	}
}

// giveUp makes an attempt stale, and returns whether its process has to be ended, which the
// caller does without the lock. mu is locked.
func (r *Runner) giveUp(a *attempt) (ends bool) {
	a.stale = true
	if a.state == offered {
		r.forget(a)
	}
	return a.state == started
}

// end ends the processes of attempts that are not the runner's any more.
func end(lost []*attempt) {
	for _, a := range lost {
		a.order(guard.Order{End: guard.Fenced, Within: time.Duration(a.def.Grace)})
	}
}

// say sends a frame. mu of the Runner is locked.
func (l *link) say(f frame.Frame) {
	l.queue = append(l.queue, f)
	l.wakeUp()
}

func (l *link) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// send sends what is said, and the logs and ends of attempts, until the connection ends.
func (l *link) send(ctx context.Context) error {
	for {
		f, more := l.next()
		if f == nil && more {
			continue
		}
		if f == nil {
			select {
			case <-l.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := l.write(ctx, *f); err != nil {
			return err
		}
		if f.Type == frame.Take { // its lease has to be known before the process starts
			select {
			case l.beat <- struct{}{}:
			default:
			}
		}
	}
}

// next returns what is to be sent. Without that, more tells that there may be something
// already.
func (l *link) next() (f *frame.Frame, more bool) {
	r := l.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(l.queue) > 0 {
		f, l.queue = &l.queue[0], l.queue[1:]
		return f, true
	}
	room := int64(logWindow)
	for _, a := range r.attempts {
		room -= a.sent - a.acked
	}
	n := len(r.attempts)
	for i := range n {
		a := r.attempts[(l.turn+i)%n]
		log, ended := a.due(room)
		switch {
		case ended:
			return a.end(), true
		case log:
			l.turn = (l.turn + i + 1) % n
			return l.part(a), true
		}
	}
	return nil, false
}

// part returns the next part of an attempt's log, or nil. mu of the Runner is locked, but not
// while it reads.
func (l *link) part(a *attempt) *frame.Frame {
	offset := a.sent
	l.r.mu.Unlock()
	f := a.part(offset)
	l.r.mu.Lock()
	if a.sent != offset || len(f.Data) == 0 && f.Cut == 0 {
		return nil // the engine wants another part, or none any more
	}
	a.sent += int64(len(f.Data)) + f.Cut
	a.progress = time.Now()
	return f
}

// errSilent is why a connection is given up.
var errSilent = errors.New("the engine is silent")

// keepBeating renews the attempts until the connection ends. An engine may take its time for
// an answer, since its database does; but one that does not answer a ping either is gone.
func (l *link) keepBeating(ctx context.Context) error {
	lease := l.r.cfg.lease
	next := time.NewTicker(lease / 3)
	defer next.Stop()
	for {
		if err := l.pulse(ctx, lease/6); err != nil {
			return err
		}
		ask := time.After(lease / 6)
		for due := false; !due; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-next.C:
				due = true
			case <-l.beat:
				due = true
			case <-ask:
				if err := l.ping(ctx, lease/12); err != nil {
					return err
				}
			}
		}
	}
}

// pulse sends a beat. It goes out within limit, or the connection is of no use.
func (l *link) pulse(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	r := l.r
	r.mu.Lock()
	var ids []frame.Attempt
	for _, a := range r.attempts {
		if !a.stale {
			ids = append(ids, a.id())
		}
		if waits := a.sent > a.acked || a.endSent; waits && time.Since(a.progress) > r.cfg.lease*2/3 {
			a.resume(a.acked) // what was sent is lost, it seems
			l.wakeUp()
		}
	}
	f := l.beats.begin(guard.Now(), ids)
	r.mu.Unlock()
	err := l.write(ctx, f)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// ping finds out whether the engine is there, if it owes an answer.
func (l *link) ping(ctx context.Context, limit time.Duration) error {
	l.r.mu.Lock()
	owes := len(l.beats.open) > 0
	l.r.mu.Unlock()
	if !owes {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSilent)
	defer cancel()
	if err := l.ws.Ping(ctx); err != nil {
		return errSilent
	}
	return nil
}
