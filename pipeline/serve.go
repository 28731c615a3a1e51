package pipeline

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"

	"async-data-processor/broker"
	"async-data-processor/server"
)

// serving is the half in front of the broker.
type serving struct {
	listener net.Listener
	server   *server.Server
}

func newServing(cfg Config, b broker.Broker, t *teller) (half, error) {
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w", cfg.Listen, err)
	}
	srv := server.New(server.Config{
		Submitter:      submitter{broker: b, shards: cfg.Shards},
		Tokens:         cfg.AuthTokens,
		MaxInFlight:    cfg.MaxInFlight,
		PublishTimeout: broker.PublishTimeout,
		Ready:          func() []server.Check { return []server.Check{{Name: "broker", Err: b.Ready()}} },
		Observe:        t.access,
		ErrorLog:       t.httpErrors(),
	})
	t.log.Info().Str("component", "server").Stringer("addr", listener.Addr()).
		Str("broker", RedactURL(cfg.BrokerURL)).Int("shards", cfg.Shards).
		Int("tokens", len(cfg.AuthTokens)).Msg("server started")
	return &serving{listener, srv}, nil
}

func (s *serving) start(g *errgroup.Group, intake, work context.Context) {
	g.Go(func() error { return s.server.Serve(s.listener) })
	g.Go(func() error {
		<-intake.Done()
		// Not ready, no new requests; those under way are answered, and with
		// them every publish is done.
		return s.server.Shutdown(work)
	})
}

func (s *serving) end() { s.listener.Close() }
