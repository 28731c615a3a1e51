package main

import (
	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

func newConsumer(lookup lookupEnv, told *messages) *cobra.Command {
	return stage{
		use:   "message-consumer",
		short: "Write the queued messages to files, a batch each",
		long: `message-consumer takes each shard's messages from its queue, gathers them into
batches of five, and writes every batch to a file of its own:

  <output-dir>/shard-<n>/<worker>_<ULID>.ndjson

With --roll-bytes or --roll-interval batches are appended to one file a shard
instead, which can be seen when it is so large or so old, or at the drain.

A file that can be seen is complete. The broker is told to forget messages once
they are durable. 3 to 4 workers per shard write at the same time; the log has the
history of each. Several message-consumers of one broker share the shards.

SIGTERM drains: incomplete batches are written, too, then it exits 0.`,
		example: `  async-data-processor message-consumer --output-dir ./data
  DATA_OUTPUT_DIR=/srv/data async-data-processor message-consumer --batch-linger 5s`,
		groups:   forConsumer | forAdmin,
		defaults: pipeline.DefaultConfig(),
		validate: pipeline.Config.Validate,
		run:      pipeline.Consume,
	}.command(lookup, told)
}
