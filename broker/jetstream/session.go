package jetstream

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker/conn"
	"async-data-processor/message"
)

// maxTurns keeps the server busy, and the wait for its answer well below the time-out.
const maxTurns = 32

// session is one connection and everything that ends with it.
type session struct {
	*conn.Life
	broker    *Broker
	role      string
	dialer    *dialer
	conn      *nats.Conn
	js        jetstream.JetStream // for administration
	publisher *publisher          // set by Prepare, read-only after; nil when consuming

	bus atomic.Pointer[busConn] // set when the bus can be used

	settling settling // these are used when consuming
	subs     subscriptions
	turns    chan struct{} // of consumers that are looked up or made at the same time
}

// Prepare implements conn.Session.
func (s *session) Prepare() error {
	err := s.prepare()
	if err != nil {
		return s.broker.target.explain(err)
	}
	if s.role != conn.Bus { // which needs no stream
		s.Loops.Go(s.watch)
	}
	return nil
}

func (s *session) prepare() (err error) {
	if s.role == conn.Bus {
		return s.openBus()
	}
	if err := s.checkServer(); err != nil {
		return err
	}
	if s.js, err = jetstream.New(s.conn); err != nil {
		return err
	}
	if err := s.ensure(); err != nil {
		return err
	}
	if s.role == conn.Publish {
		return s.openPublisher()
	}
	return s.openSettling()
}

// Over implements conn.Session.
func (s *session) Over() bool { return s.Ended() || s.conn.IsClosed() }

// Cut implements conn.Session.
func (s *session) Cut() { s.dialer.cut() }

// Leave implements conn.Session.
func (s *session) Leave() {
	s.returnUnsettled()
	s.conn.Close()
}

// giveUp ends the session for a reason that is not explained yet.
func (s *session) giveUp(err error) { s.Fail(s.broker.target.explain(err)) }

// watch looks after the streams until the session ends.
func (s *session) watch() {
	look := lookout{session: s, last: time.Now()}
	probe := time.NewTicker(s.broker.timing.probe)
	defer probe.Stop()
	for {
		select {
		case <-probe.C:
			s.probe()
			if look.due() {
				look.look()
			}
		case <-s.Repair():
			if err := s.ensure(); err != nil {
				s.giveUp(err)
			}
			s.probe()
		case <-s.Gone():
			return
		}
	}
}

// probe looks whether the server's reason to refuse publishes is gone.
func (s *session) probe() {
	b := s.broker
	if s.publisher == nil || b.full.reason() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(b.conns.Context(), b.timing.rpc)
	defer cancel()
	stream, err := s.js.Stream(ctx, ShardStream)
	if err != nil {
		return
	}
	info := stream.CachedInfo()
	room := (info.Config.MaxBytes <= 0 || info.State.Bytes+message.MaxEnvelopeBytes <= uint64(info.Config.MaxBytes)) &&
		(info.Config.MaxMsgs <= 0 || info.State.Msgs < uint64(info.Config.MaxMsgs))
	if b.full.over(room, b.timing.blocked) {
		b.block(nil)
	}
}
