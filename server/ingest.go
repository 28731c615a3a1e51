package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/labstack/echo/v4"

	"async-data-processor/message"
)

// ingestProtocol is the subprotocol of submissions.
const ingestProtocol = "adp.ingest.v1"

// Limits of a WebSocket for submissions. They are part of the contract.
const (
	maxFrameBytes = 1 << 20
	// windowFrames and windowBytes are how many frames without a first answer make the
	// server read no more, and how long ones.
	windowFrames = 256
	windowBytes  = 8 << 20
	// maxWaits is how many frames may wait for their second answer.
	maxWaits = 1024
	// minFrameBytes is what a frame counts for in the budget, at least.
	minFrameBytes = 1 << 10
	// roomInterval is how often a frame looks for room in the budget.
	roomInterval = 10 * time.Millisecond
)

// ingest is a WebSocket whose frames are submissions. One goroutine reads them and has
// them published. What is ready to be answered another one answers, which is there
// while there is something to answer.
//
//	frame ──▶ window ──▶ decode ──▶ Await ──▶ Start ─ ─ ▶ done ──▶ answers ──▶ one write
//	                        └────── rejected ─────────────────────────┘
type ingest struct {
	// set before use, read-only after
	socket  *Socket
	server  *Server
	scope   string        // of the client's keys
	session string        // a prefix of keys, or empty
	client  string        // see ClientKey
	held    *atomic.Int64 // what the client has of the budget
	waits   bool          // the client wants a second answer

	// Only the goroutine that reads uses what follows.
	number  int    // of the last frame
	bytes   int    // of all frames
	reading *frame // it is not made ready, nor published

	mu        sync.Mutex          // guards what follows
	room      sync.Cond           // a frame has got its first answer, or the WebSocket has to end
	refs      map[string]struct{} // of the frames that lack an answer
	unsettled int                 // frames without a first answer
	window    int64               // bytes of those
	waiting   map[*frame]struct{} // those that wait for their second answer
	ready     []*frame            // to be answered
	spare     []*frame            // to be used for ready
	answering bool                // a goroutine does that
}

// ingestSocket is GET /message: it opens a WebSocket.
func ingestSocket(ctx echo.Context) error {
	c := ctx.(*call)
	s, r, answer := c.server, c.Request(), c.Response().Header()
	if !opensSocket(r) {
		answer.Set("Allow", http.MethodPost)
		return &problem{kind: methodNotAllowed, detail: "GET opens a WebSocket, and this request does not ask for one; else the method of this path is POST"}
	}
	var err error
	if c.client, err = s.authorize(s.tokens, submitSettings, r, answer); err != nil {
		return err
	}
	in := &ingest{
		socket: newSocket(s), server: s, scope: c.client, client: clientOf(c.client, r),
		held: s.clients.ofRequest(r, len(s.tokens) > 0),
	}
	if err := in.query(r.URL.RawQuery); err != nil {
		return err
	}
	in.room.L = &in.mu
	in.socket.wake = func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.room.Broadcast()
	}
	if err := c.upgrade(in.socket, ingestProtocol); err != nil {
		return err
	}
	in.socket.conn.SetReadLimit(-1) // the frame is read into a buffer with a limit
	go in.run()
	return nil
}

// query reads the query of the handshake. It refuses what it does not know: a client
// whose session is misspelt would write its frames twice.
func (in *ingest) query(raw string) error {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return &problem{kind: invalidHandshake, detail: "the query cannot be read"}
	}
	for name, v := range values {
		switch {
		case name == "session" && len(v) == 1:
			if _, ok := message.TimeOf(v[0]); !ok {
				return &problem{kind: invalidHandshake, detail: "session must be a ULID"}
			}
			in.session = v[0] + "/"
		case name == "want" && len(v) == 1 && v[0] == "written":
			if in.server.cfg.Waiter == nil {
				return &problem{kind: invalidHandshake, detail: "want=written is not served here: this process does not learn what is written"}
			}
			in.waits = true
		default:
			return &problem{kind: invalidHandshake, detail: "the query may have session, a ULID, and want=written, each once"}
		}
	}
	return nil
}

// handshake is the first frame that the client gets.
func (in *ingest) handshake() []byte {
	type limits struct {
		Frame       int `json:"frame"`
		Entries     int `json:"entries"`
		Entry       int `json:"entry"`
		Window      int `json:"window"`
		WindowBytes int `json:"window_bytes"`
		Waits       int `json:"waits,omitempty"`
	}
	l := limits{maxFrameBytes, message.MaxEntries, message.MaxEntryBytes, windowFrames, windowBytes, 0}
	if in.waits {
		l.Waits = maxWaits
	}
	text, err := json.Marshal(struct {
		Type   string `json:"type"`
		Node   string `json:"node"`
		Limits limits `json:"limits"`
		Dedupe int    `json:"dedupe_s"`
		Ping   int    `json:"ping_s"`
	}{"handshake", in.server.cfg.Node(), l, int(in.server.cfg.Dedupe.Seconds()), int(pingInterval.Seconds())})
	if err != nil {
		panic(err) // it cannot fail on texts and numbers
	}
	return text
}

// run reads frames until the WebSocket ends, or has to. Then the frames that were read
// get their answers.
func (in *ingest) run() {
	defer in.socket.recovered()
	defer in.panicked()
	if in.socket.Write(in.handshake()) == nil {
		for in.hasRoom() && in.read() {
		}
	}
	in.settle()
	in.socket.count(in.number, in.bytes)
	if in.socket.isDraining() && in.socket.Write([]byte(`{"type":"drain"}`)) == nil {
		in.socket.Close(closeGoingAway, errDraining.Error())
	}
	in.socket.Close(closeNormal, "")
}

// panicked lets go of the frame that is read, if there is one: then run has panicked.
func (in *ingest) panicked() {
	f := in.reading
	switch {
	case f == nil:
		return
	case f.entered:
		f.problem = &problem{kind: internalError, detail: "a bug"}
		in.answer(f)
	default:
		f.taken.give(f.taken.bytes)
	}
	in.settle()
}

// hasRoom waits until the window has room for a frame. It returns false if no more
// are to be read.
func (in *ingest) hasRoom() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.unsettled >= windowFrames || in.window >= windowBytes {
		if in.isOver() {
			return false
		}
		in.socket.held.Store(true)
		in.room.Wait()
	}
	if in.socket.held.Load() {
		in.socket.wire.alive.Add(1)
		in.socket.held.Store(false)
	}
	return !in.isOver()
}

// isOver tells whether no more frames are to be read.
func (in *ingest) isOver() bool {
	select {
	case <-in.socket.done:
		return true
	default:
		return in.socket.isDraining()
	}
}

// settle ends the waits for second answers, and waits until each frame has its first
// one. The publish time-out and that of a write bound that.
func (in *ingest) settle() {
	in.mu.Lock()
	waiting := in.waiting
	in.waiting = nil
	in.mu.Unlock()
	for f := range waiting { // without the lock, which a call of told may wait for
		f.wait.End()
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.unsettled > 0 || in.answering {
		in.room.Wait()
	}
}

// read reads a frame and has it published. It returns false if that was the last.
func (in *ingest) read() bool {
	kind, r, err := in.socket.conn.Reader(context.Background())
	if err != nil {
		in.socket.readEnds(err)
		return false
	}
	if kind != websocket.MessageText {
		in.socket.stop(closeBinary, "send text")
		return false
	}
	in.number++
	f := newFrame(in)
	in.reading = f
	b := newBuffer()
	err = in.fill(b, r, f)
	if err == nil {
		err = in.submit(b.data, f)
	}
	b.recycle()
	in.reading = nil
	if err == nil {
		return true
	}
	f.recycle()
	if refused, ok := errors.AsType[frameError](err); ok {
		in.socket.stop(refused.code, refused.reason)
	} else {
		in.socket.readEnds(err)
	}
	return false
}

// frameError is why a frame ends its WebSocket.
type frameError struct {
	code   int
	reason string
}

func (e frameError) Error() string { return e.reason }

// fill reads a frame. It waits for room in the budget, as the ref that a refusal would need
// may be anywhere in the frame.
func (in *ingest) fill(b *buffer, src io.Reader, f *frame) error {
	var deadline time.Time
	for {
		err := f.taken.take(minFrameBytes - min(b.room, minFrameBytes))
		if err == nil {
			b.room = max(b.room, minFrameBytes)
			in.socket.wire.beginFrame()
			err = b.fill(src, -1, maxFrameBytes, &f.taken)
			in.socket.wire.endFrame()
		}
		switch {
		case errors.Is(err, errTooLong):
			return frameError{closeTooLong, fmt.Sprintf("frame %d is longer than %d bytes", in.number, maxFrameBytes)}
		case !errors.Is(err, errOverBudget) && !errors.Is(err, errOverShare):
			f.bytes = len(b.data)
			in.bytes += f.bytes
			return err
		}
		now := time.Now()
		if deadline.IsZero() {
			deadline = now.Add(in.server.cfg.PublishTimeout)
		}
		if now.After(deadline) {
			return frameError{closeOverloaded, err.Error()}
		}
		in.socket.wire.alive.Add(1)
		select {
		case <-time.After(roomInterval):
		case <-in.socket.done:
			return errStopped
		case <-in.socket.draining:
			return errStopped
		}
	}
}

// submit decodes a frame and begins to publish it. An error ends the WebSocket; what
// is wrong with the entries is answered.
func (in *ingest) submit(text []byte, f *frame) error {
	parsed, err := message.ParseFrame(text)
	if err != nil {
		return frameError{closeNotProtocol, fmt.Sprintf("frame %d: %v", in.number, err)}
	}
	if f.ref = parsed.Ref; f.ref == "" {
		f.ref = strconv.Itoa(in.number)
	}
	key := parsed.Key
	if key == "" && in.session != "" {
		key = in.session + f.ref
	}
	submission, err := decode(in.server.cfg.Rules, in.scope, key, parsed.Entries, message.JSON)
	f.submission, f.accepted = submission.ID, len(submission.Messages)
	if _, invalid := errors.AsType[*message.InvalidError](err); invalid && parsed.Ref == "" && !message.IsJSON(text) {
		return frameError{closeNotProtocol, fmt.Sprintf("frame %d is not JSON", in.number)}
	}
	// What the entries need from now on is about as long as the frame.
	f.taken.give(f.taken.bytes - max(int64(f.bytes), minFrameBytes))
	if !in.enter(f) {
		submission.Recycle()
		return frameError{closeNotProtocol, fmt.Sprintf("frame %d has a ref that still waits for an answer", in.number)}
	}
	if err != nil {
		err = refuseSubmission(err)
	} else if err = in.server.Intake.enter(); err != nil {
		submission.Recycle()
	}
	if err != nil {
		p, ok := errors.AsType[*problem](err)
		if !ok {
			p = &problem{kind: internalError, detail: "a bug", cause: err}
		}
		f.problem = p
		in.answer(f)
		return nil
	}
	if in.waits {
		in.await(f)
	}
	in.server.cfg.Submitter.Start(in.server.untilLate(), submission, f.done)
	submission.Recycle()
	return nil
}

// enter makes the frame one that lacks its answers. It returns false if another one
// has its ref.
func (in *ingest) enter(f *frame) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, taken := in.refs[f.ref]; taken {
		return false
	}
	if in.refs == nil {
		in.refs = make(map[string]struct{})
	}
	in.refs[f.ref] = struct{}{}
	in.unsettled++
	in.window += int64(f.bytes)
	f.entered = true
	return true
}
