package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

func newRoot(lookup lookupEnv) *cobra.Command {
	root := &cobra.Command{
		Use:   "async-data-processor",
		Short: "Takes JSON over HTTP, queues it durably, writes it to files: each accepted entry once",
		Long: `async-data-processor takes JSON over HTTP, queues it durably and writes it to
files. An entry that was answered with 201 is not lost, whatever crashes.

  standalone        everything in one process, over an embedded broker: start here
  server            POST /message: validates entries, shards them by their
                    timestamp, publishes them to a durable queue per shard
  message-consumer  batches each shard's messages by five and writes every
                    batch to a file under DATA_OUTPUT_DIR
  verify            checks such a folder: nothing twice, nothing torn
  dead-letters      lists, shows, replays or purges what could not be written
  store             checks the store of an embedded broker, or salvages it

Run server and message-consumer against the same broker (--broker-url): RabbitMQ
or a NATS JetStream cluster. Every flag can also be set by the variable that its
help names, or by its name in a YAML file (--config); flags win over variables,
variables over the file.`,
		Example: `  async-data-processor standalone
  curl -sS localhost:8080/message -H 'Content-Type: application/json' \
    -d '[{"timestamp":"2019-10-12T08:10:54.52Z","value":"F"}]'

  async-data-processor server --broker-url amqp://user:password@host/
  async-data-processor message-consumer --broker-url amqp://user:password@host/`,
		Version:       buildVersion(),
		SilenceUsage:  true,
		SilenceErrors: true, // exitCode tells them
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w\nRun '%s --help' for the flags", err, cmd.CommandPath())
	})
	root.AddCommand(newStandalone(lookup), newServer(lookup), newConsumer(lookup), newVerify(lookup),
		newDeadLetters(lookup), newStore(lookup), newHealthcheck(), newVersion())
	cobra.EnableCommandSorting = false
	return root
}

// stage is a command of the pipeline.
type stage struct {
	use, short, long, example string
	groups                    groups
	defaults                  pipeline.Config
	run                       func(context.Context, pipeline.Config, zerolog.Logger) error
}

// command makes the cobra command of a stage: settings in, stage run.
func (s stage) command(lookup lookupEnv) *cobra.Command {
	cfg := s.defaults
	var file string
	var checkOnly bool
	cmd := &cobra.Command{
		Use: s.use, Short: s.short, Long: s.long, Example: s.example,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sources, err := resolve(cmd.Flags(), lookup, file)
			if err == nil {
				err = cfg.Validate()
			}
			if err != nil {
				return fmt.Errorf("%w\nRun '%s --help' for the settings", err, cmd.CommandPath())
			}
			if checkOnly {
				printConfig(cmd.OutOrStdout(), cmd.Flags(), sources)
				return nil
			}
			defer giveHeapRoom(lookup)()
			log := newLogger(cfg, cmd.ErrOrStderr())
			if err := s.run(cmd.Context(), cfg, log); err != nil {
				log.Error().Err(err).Msg("stopped")
				return failure{err, true}
			}
			return nil
		},
	}
	addSettings(cmd.Flags(), &cfg, s.groups)
	cmd.Flags().StringVar(&file, "config", "", "YAML file of settings, named as the flags (CONFIG_FILE)")
	cmd.Flags().BoolVar(&checkOnly, "check-config", false, "validate the settings, print them without secrets, and exit")
	cmd.Flags().SortFlags = false
	return cmd
}

// newLogger logs to w, for people if that is a terminal.
func newLogger(cfg pipeline.Config, w io.Writer) zerolog.Logger {
	format := cfg.LogFormat
	if f, ok := w.(*os.File); format == "auto" && ok && isatty.IsTerminal(f.Fd()) {
		format = "console"
	}
	if format == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05.000"}
	}
	level, err := zerolog.ParseLevel(cfg.LogLevel)
	if err != nil {
		level = zerolog.InfoLevel // Validate refuses it before
	}
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00" // RFC 3339 in milliseconds; one for all loggers
	return zerolog.New(zerolog.SyncWriter(w)).Level(level).With().Timestamp().Logger()
}
