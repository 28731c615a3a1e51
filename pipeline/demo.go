package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"async-data-processor/message"
	"async-data-processor/server"
)

const (
	demoInterval = 500 * time.Millisecond
	demoEntries  = 7 // at most, per submission
)

// demo posts generated entries to its own process, by HTTP as any client would.
type demo struct {
	url    string
	token  string // empty for none
	client http.Client
	rules  *message.Rules
}

func newDemo(cfg Config, addr net.Addr) *demo {
	place := addr.String() + cfg.BasePath + "/message"
	d := &demo{url: "http://" + place}
	d.rules, _ = cfg.Rules() // Validate has made them
	if cfg.TLSCert != "" {
		d.url = "https://" + place
		d.client.Transport = &http.Transport{TLSClientConfig: TrustOnly(cfg.TLSCert)}
	}
	if len(cfg.AuthTokens) > 0 {
		_, d.token, _ = server.ParseToken(cfg.AuthTokens[0]) // Validate has read it
	}
	return d
}

// post sends one submission. A refusal is in the log of the server already.
func (d *demo) post(ctx context.Context) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(d.body(time.Now())))
	if err != nil {
		return // it has no part that could be wrong
	}
	req.Header.Set("Content-Type", "application/json")
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// body is an array of readings of the last second.
func (d *demo) body(now time.Time) []byte {
	body := []byte{'['}
	for i := range 1 + rand.IntN(demoEntries) {
		if i > 0 {
			body = append(body, ',')
		}
		at := now.Add(-rand.N(time.Second)).UTC().Format(time.RFC3339Nano)
		body = append(body, d.rules.Sample(at, "value", strconv.Quote(string(rune('A'+rand.IntN(26)))),
			"sensor", fmt.Sprintf(`"demo-%d"`, 1+rand.IntN(3)), "celsius", fmt.Sprintf("%.2f", 18+4*rand.Float64()))...)
	}
	return append(body, ']')
}
