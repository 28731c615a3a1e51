package main

import (
	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

func newServer(lookup lookupEnv, told *messages) *cobra.Command {
	return stage{
		use:   "server",
		short: "Serve POST /message: validate entries and publish them to the shards' queues",
		long: `server takes JSON arrays (or NDJSON) of entries at POST /message, validates
them, shards them by their timestamp and publishes them to a durable queue per
shard. It answers 201 only after the broker has confirmed everything; a bad
request changes nothing.

Needs a broker, not at once: until it is reachable, /readyz and POST /message
answer 503. SIGTERM drains: requests under way are answered, then it exits 0.`,
		example: `  async-data-processor server --broker-url amqp://guest:guest@localhost:5672/
  AUTH_TOKENS=secret async-data-processor server --listen :8080`,
		groups:   forServer,
		defaults: pipeline.DefaultConfig(),
		validate: pipeline.Config.ValidateServer,
		run:      pipeline.Serve,
	}.command(lookup, told)
}
