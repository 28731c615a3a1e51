package pipeline

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"

	"async-data-processor/broker"
	"async-data-processor/publisher"
	"async-data-processor/server"
)

// routes are those that every listener serves beside its own.
func (c Config) routes() []server.Route {
	if c.Pprof {
		return server.Profiles()
	}
	return nil
}

// serving is the half in front of the broker.
type serving struct {
	plant    *plant
	listener net.Listener
	server   *server.Server
}

func newServing(p *plant) (half, error) {
	listener, err := net.Listen("tcp", p.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w", p.cfg.Listen, err)
	}
	submissions := publisher.Config{Broker: p.broker, Shards: p.cfg.Shards, Timeout: broker.PublishTimeout}
	if p.reserve != nil {
		submissions.Room = p.reserve.Low
	}
	srv := server.New(server.Config{
		Submitter:      publisher.New(submissions),
		Tokens:         p.cfg.AuthTokens,
		MaxInFlight:    p.cfg.MaxInFlight,
		PublishTimeout: broker.PublishTimeout,
		Ready:          p.ready,
		Mount:          p.cfg.routes(),
		Events:         p.teller.event,
	})
	p.addr, p.served = listener.Addr(), make(chan struct{})
	return &serving{p, listener, srv}, nil
}

func (s *serving) start(g *errgroup.Group, intake, work context.Context) {
	cfg := s.plant.cfg
	s.plant.teller.log.Info().Str("component", "server").Stringer("addr", s.listener.Addr()).
		Str("broker", RedactURL(cfg.BrokerURL)).Int("shards", cfg.Shards).
		Int("tokens", len(cfg.AuthTokens)).Msg("server started")
	g.Go(func() error { return s.server.Serve(s.listener) })
	g.Go(func() error {
		defer close(s.plant.served)
		<-intake.Done()
		// Not ready, no new requests; those under way are answered. What is still
		// being published then was answered with 503, and the broker's end ends it.
		return s.server.Shutdown(work)
	})
}

func (s *serving) end() { s.listener.Close() }

// admin is the health endpoints of a process without a server.
type admin struct {
	plant    *plant
	listener net.Listener
	server   *server.Server
}

func newAdmin(p *plant) (half, error) {
	listener, err := net.Listen("tcp", p.cfg.AdminListen)
	if err != nil {
		return nil, fmt.Errorf("--admin-listen %s: %w", p.cfg.AdminListen, err)
	}
	srv := server.NewAdmin(server.Config{Ready: p.ready, Mount: p.cfg.routes(), Events: p.teller.event})
	return &admin{p, listener, srv}, nil
}

func (a *admin) start(g *errgroup.Group, intake, work context.Context) {
	a.plant.teller.log.Info().Str("component", "admin").Stringer("addr", a.listener.Addr()).Msg("health endpoints started")
	g.Go(func() error { return a.server.Serve(a.listener) })
	g.Go(func() error {
		<-intake.Done()
		a.server.Drain()       // not ready, for as long as the drain takes
		a.plant.writing.Wait() // which the deadline of work bounds
		return a.server.Shutdown(work)
	})
}

func (a *admin) end() { a.listener.Close() }
