package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	demoInterval = 500 * time.Millisecond
	demoEntries  = 7 // at most, per submission
)

// demo posts generated entries to its own process, by HTTP as anybody would.
type demo struct{ plant *plant }

func newDemo(p *plant) (half, error) { return demo{p}, nil }

func (d demo) start(g *errgroup.Group, intake, _ context.Context) {
	g.Go(func() error {
		tick := time.NewTicker(demoInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.post(intake)
			case <-intake.Done():
				return nil
			}
		}
	})
}

func (d demo) end() {}

// post sends one submission. A refusal is in the log of the server already.
func (d demo) post(ctx context.Context) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.plant.addr.String()+"/message", bytes.NewReader(demoBody(time.Now())))
	if err != nil {
		return // it has no part that could be wrong
	}
	req.Header.Set("Content-Type", "application/json")
	if tokens := d.plant.cfg.AuthTokens; len(tokens) > 0 {
		req.Header.Set("Authorization", "Bearer "+tokens[0])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// demoBody is an array of readings of the last second.
func demoBody(now time.Time) []byte {
	body := []byte{'['}
	for i := range 1 + rand.IntN(demoEntries) {
		if i > 0 {
			body = append(body, ',')
		}
		at := now.Add(-rand.N(time.Second)).UTC().Format(time.RFC3339Nano)
		body = fmt.Appendf(body, `{"timestamp":%q,"value":%q,"sensor":%q,"celsius":%.2f}`,
			at, string(rune('A'+rand.IntN(26))), fmt.Sprintf("demo-%d", 1+rand.IntN(3)), 18+4*rand.Float64())
	}
	return append(body, ']')
}
