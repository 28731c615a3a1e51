package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

func newStandalone(lookup lookupEnv) *cobra.Command {
	var (
		demo bool
		cmd  *cobra.Command
	)
	defaults := pipeline.DefaultConfig()
	defaults.BrokerURL = pipeline.EmbeddedURL
	cmd = stage{
		use:   "standalone",
		short: "Run server and message-consumer in one process, over an embedded broker",
		long: `standalone is server, message-consumer and, unless --broker-url names another, a
durable broker of its own, in one process: there is nothing else to install.
Everything accepted is fsynced in the broker's folder before the 201, and leaves
it when it is fsynced in a file.

When one machine is no longer enough, run server and message-consumer on their
own against RabbitMQ or a JetStream cluster: only --broker-url changes.`,
		example: `  async-data-processor standalone
  async-data-processor standalone --demo
  async-data-processor standalone --broker-url embedded:///var/lib/adp/broker --output-dir /srv/data`,
		groups:   forBoth,
		defaults: defaults,
		run: func(ctx context.Context, cfg pipeline.Config, log zerolog.Logger) error {
			return pipeline.Standalone(ctx, cfg, log, demo, func(addr net.Addr) {
				welcome(cmd.OutOrStdout(), cfg, addr)
			})
		},
	}.command(lookup)
	cmd.Flags().BoolVar(&demo, "demo", false, "post a few generated entries every second")
	return cmd
}

// welcome says how to use the process that has just become ready.
func welcome(w io.Writer, cfg pipeline.Config, addr net.Addr) {
	host, port, _ := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	set, token := "", ""
	if len(cfg.AuthTokens) > 0 { // which are not shown
		set, token = "TOKEN=...   # one of --auth-tokens\n  ", ` -H "Authorization: Bearer $TOKEN"`
	}
	dir, err := filepath.Abs(cfg.OutputDir)
	if err != nil {
		dir = cfg.OutputDir
	}
	fmt.Fprintf(w, `
Ready. Post an array of entries:

  %scurl -i%s http://%s/message -H 'Content-Type: application/json' -d '[{"timestamp":"2019-10-12T07:20:50.52Z","value":"A"}]'

and find them in %s/shard-*/. Ctrl-C drains and stops.

`, set, token, net.JoinHostPort(host, port), dir)
}
