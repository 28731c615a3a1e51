package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// Publish implements broker.Broker. The answers come one by one.
func (b *Broker) Publish(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	broker.PublishEach(ctx, b.publish, envelopes, done)
}

func (b *Broker) publish(ctx context.Context, e message.Envelope) error {
	if err := broker.Check(&e, b.cfg.Shards); err != nil {
		return err
	}
	if strings.TrimSpace(e.ID) != e.ID || strings.ContainsAny(e.ID, "\r\n") {
		return broker.Rejected(errors.New("the envelope's id has blanks around it, or more than one line"))
	}
	s, err := b.conns.Publishing.Current()
	if err != nil {
		return broker.Rejected(err)
	}
	header := nats.Header{
		jetstream.MsgIDHeader: {retryID(e.Shard, e.ID)},
		idHeader:              {e.ID},
		typeHeader:            {envelopeType},
		contentTypeHeader:     {contentType},
		countHeader:           {strconv.Itoa(e.Count)},
	}
	if len(e.Attributes) > 0 {
		header.Set(attributesHeader, broker.EncodeAttributes(e.Attributes))
	}
	return s.publish(ctx, ShardStream, &nats.Msg{Subject: subjectOf(e.Shard), Header: header, Data: e.Body})
}

// publish sends a message to a stream and waits for its verdict.
func (s *session) publish(ctx context.Context, stream string, msg *nats.Msg) error {
	if ctx.Err() != nil {
		return broker.Rejected(context.Cause(ctx))
	}
	out := s.publisher
	p := &publication{stream: stream, msg: msg, verdict: make(chan error, 1)}
	select {
	case out.publications <- p:
	case <-s.Gone():
		return broker.Rejected(s.Cause())
	case <-ctx.Done():
		return broker.Rejected(fmt.Errorf("the connection takes nothing: %w", context.Cause(ctx)))
	}
	select {
	case err := <-p.verdict:
		return err
	case <-ctx.Done():
		out.forget(p)
		return broker.Unknown(fmt.Errorf("no answer: %w", context.Cause(ctx)))
	}
}

// publisher is the publications of a session. One goroutine writes them, so that
// its callers can leave while it is stuck in the socket; the answers come by one
// subscription. Publications do not wait for each other's answer.
//
// The library's own ways do not fit: its requests block in the socket beyond
// their context, and its asynchronous publishes hold on to what got no answer.
type publisher struct {
	session      *session
	inbox        string            // the answers' subject, up to the number of the publication
	publications chan *publication // unbuffered: who takes one writes it

	mu      sync.Mutex // guards what follows
	last    uint64
	pending map[uint64]*publication // by number; nil when the session is over
}

type publication struct {
	stream  string
	msg     *nats.Msg
	number  uint64     // guarded by the publisher's lock
	verdict chan error // of one; taken by the caller
}

// openPublisher makes the session one for publishing.
func (s *session) openPublisher() error {
	p := &publisher{
		session:      s,
		inbox:        s.conn.NewInbox() + ".",
		publications: make(chan *publication),
		pending:      map[uint64]*publication{},
	}
	sub, err := s.conn.Subscribe(p.inbox+"*", p.answered)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1) // a dropped answer is an unknown outcome
	}
	if err != nil {
		return fmt.Errorf("subscribing to the answers: %w", err)
	}
	s.publisher = p
	s.Loops.Go(p.write)
	return nil
}

// write sends what callers hand over, until the session ends.
func (p *publisher) write() {
	for {
		select {
		case one := <-p.publications:
			one.msg.Reply = p.inbox + strconv.FormatUint(p.register(one), 10)
			if err := p.session.conn.PublishMsg(one.msg); err != nil && p.forget(one) {
				one.verdict <- p.session.unsent(err)
			}
		case <-p.session.Gone():
			p.close()
			return
		}
	}
}

// unsent classifies an error of a write. Those of the library's checks come
// before anything is written.
func (s *session) unsent(err error) error {
	switch {
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrMaxPayload):
		return broker.Rejected(s.broker.target.explain(err))
	default:
		return broker.Unknown(s.broker.target.explain(err))
	}
}

func (p *publisher) register(one *publication) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	one.number = p.last
	p.pending[one.number] = one
	return one.number
}

// take removes a publication; the goroutine that gets it gives the verdict.
func (p *publisher) take(number uint64) *publication {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.pending[number]
	delete(p.pending, number)
	return one
}

// forget removes a publication, and tells whether it was still there.
func (p *publisher) forget(one *publication) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.number == 0 || p.pending[one.number] != one {
		return false
	}
	delete(p.pending, one.number)
	return true
}

// close ends what waits for answers that will not come.
func (p *publisher) close() {
	p.mu.Lock()
	pending := p.pending
	p.pending = map[uint64]*publication{}
	p.mu.Unlock()
	for _, one := range pending {
		one.verdict <- p.session.Lost()
	}
}

// answered hears an answer of the server.
func (p *publisher) answered(m *nats.Msg) {
	number, err := strconv.ParseUint(strings.TrimPrefix(m.Subject, p.inbox), 10, 64)
	if err != nil {
		return
	}
	one := p.take(number)
	if one == nil {
		return // its caller has left
	}
	b := p.session.broker
	v := judge(m, one.stream)
	switch {
	case v.err == nil && one.stream == ShardStream:
		b.block(nil)
	case v.full && one.stream == ShardStream:
		if b.block(v.reason) {
			p.session.AskRepair()
		}
	case v.missing:
		p.session.AskRepair()
	}
	one.verdict <- v.err
}

// verdict is what an answer means.
type verdict struct {
	err     error // for the caller of Publish
	reason  error // the server's own words, if any
	missing bool  // no stream took it
	full    bool  // the stream takes nothing at all
}

// noResponders is the status of an answer that says that no server is there
// (docs.nats.io, "No responders").
const noResponders = "503"

// judge reads an answer to a publish.
func judge(m *nats.Msg, stream string) verdict {
	if len(m.Data) == 0 && m.Header.Get("Status") == noResponders {
		return verdict{
			err:     broker.Rejected(fmt.Errorf("the stream %s is missing or has no leader, and is looked for", stream)),
			missing: true,
		}
	}
	var ack struct {
		Error    *jetstream.APIError `json:"error"`
		Stream   string              `json:"stream"`
		Sequence uint64              `json:"seq"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return verdict{err: broker.Unknown(fmt.Errorf("the stream's answer is not JSON: %w", err))}
	}
	if ack.Error != nil {
		return refused(stream, ack.Error)
	}
	if ack.Stream != stream || ack.Sequence == 0 {
		return verdict{err: broker.Unknown(fmt.Errorf("an answer of the stream %q, sequence %d, want %s", ack.Stream, ack.Sequence, stream))}
	}
	return verdict{}
}

// refused reads an error of the server.
func refused(stream string, api *jetstream.APIError) verdict {
	reason := fmt.Errorf("the stream %s refused it: %s (error %d)", stream, api.Description, api.ErrorCode)
	v := verdict{err: broker.Rejected(reason), reason: reason}
	switch api.ErrorCode {
	case codeInProcess: // the earlier one may succeed
		v.err = broker.Unknown(reason)
	case codeAccountFull, codeNoResources, codeMemoryFull, codeStorageFull, codeStoreFailed:
		v.full = true
	case jetstream.JSErrCodeStreamNotFound:
		v.missing = true
	}
	return v
}
