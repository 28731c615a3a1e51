package pipeline

import (
	"context"
	"net"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
)

// EmbeddedURL is the broker of a standalone process that is told of no other.
const EmbeddedURL = "embedded:data/broker"

// Standalone runs the server and the message-consumer in one process until ctx
// ends, and then drains both. It calls ready, with the server's address, when
// submissions become files. It returns nil after a clean drain. cfg must be valid.
//
// With demo it also posts a few generated entries every second.
func Standalone(ctx context.Context, cfg Config, log zerolog.Logger, demo bool, ready func(net.Addr)) error {
	announce := func(p *plant) (half, error) { return &announcing{p, ready}, nil }
	builders := []builder{newConsuming, newServing, announce}
	if demo {
		builders = append(builders, newDemo)
	}
	return run(ctx, cfg, newTeller(log), openBroker, builders...)
}

// announcing tells once when the process is ready.
type announcing struct {
	plant *plant
	ready func(net.Addr)
}

// readyInterval is how often a process that starts is asked whether it is ready.
const readyInterval = 10 * time.Millisecond

func (a *announcing) start(g *errgroup.Group, intake, _ context.Context) {
	g.Go(func() error {
		tick := time.NewTicker(readyInterval)
		defer tick.Stop()
		for {
			if a.plant.isReady() {
				a.ready(a.plant.addr)
				return nil
			}
			select {
			case <-tick.C:
			case <-intake.Done():
				return nil
			}
		}
	})
}

func (a *announcing) end() {}
