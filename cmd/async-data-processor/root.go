package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"async-data-processor/pipeline"
)

func newRoot(lookup lookupEnv, told *messages) *cobra.Command {
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
  send              sends lines of standard input, each written once
  listen            prints the entries of all processes as they are written
  runner            runs jobs for a server that has --jobs
  verify            checks such a folder: nothing twice, nothing torn
  status            shows the processes, who owns which shard, what waits
  where             shows where a message is: in which file and line, or why not
  dead-letters      lists, shows, replays or purges what could not be written
  ctl               pauses, resumes, resizes or flushes running shards
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
	root.SetFlagErrorFunc(misused)
	root.AddCommand(newStandalone(lookup, told), newServer(lookup, told), newConsumer(lookup, told), newVerify(lookup),
		newSend(told), newListen(told), newRunner(lookup, told), newStatus(), newWhere(), newDeadLetters(lookup), newCtl(), newStore(lookup), newHealthcheck(), newVersion())
	cobra.EnableCommandSorting = false
	explainSwitches(root)
	return root
}

// explainSwitches has the commands say how a switch takes its value, when they refuse an
// argument that is the value of one: --any-value no is a switch and an argument.
func explainSwitches(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		explainSwitches(sub)
	}
	check := cmd.Args
	if check == nil {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return nil
		}
		for _, arg := range args {
			if _, other := parseYes(arg); other != nil {
				continue
			}
			var forms []string
			cmd.Flags().Visit(func(f *pflag.Flag) {
				if f.Value.Type() == "bool" {
					forms = append(forms, "--"+f.Name+"="+arg)
				}
			})
			if len(forms) > 0 {
				return misused(cmd, fmt.Errorf("a switch takes its value behind =: write %s", strings.Join(forms, " or ")))
			}
		}
		return err
	}
}

// stage is a command of the pipeline.
type stage struct {
	use, short, long, example string
	groups                    groups
	defaults                  pipeline.Config
	validate                  func(pipeline.Config) error
	run                       func(context.Context, pipeline.Config, zerolog.Logger) error
}

// command makes the cobra command of a stage: settings in, stage run.
func (s stage) command(lookup lookupEnv, told *messages) *cobra.Command {
	cfg := s.defaults
	cfg.Version, cfg.LostLines = buildVersion(), told.Lost
	var file string
	var checkOnly bool
	cmd := &cobra.Command{
		Use: s.use, Short: s.short, Long: s.long, Example: s.example,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sources, err := resolve(cmd.Flags(), lookup, file)
			if err == nil {
				err = s.validate(cfg)
			}
			if err == nil {
				err = cfg.CheckCertificate()
			}
			if err == nil {
				err = cfg.CheckJobs(s.groups&forConsumer != 0)
			}
			if err == nil && s.groups&forConsumer != 0 {
				err = cfg.CheckOutputDir()
			}
			if err != nil {
				return fmt.Errorf("%w\nRun '%s --help' for the settings", err, cmd.CommandPath())
			}
			if checkOnly {
				warn(cmd.ErrOrStderr(), lookup)
				printConfig(cmd.OutOrStdout(), cmd.Flags(), sources)
				return nil
			}
			cfg.Shown = shown(cmd.Flags())
			defer giveHeapRoom(lookup)()
			log := told.logTo(cfg)
			for _, w := range warnings(variablesSet(), lookup) {
				log.Warn().Str("variable", w.variable).Msg(w.text)
			}
			if err := s.run(cmd.Context(), cfg, log); err != nil {
				log.Error().Err(err).Msg("stopped")
				return failure{error: err, logged: true}
			}
			return nil
		},
	}
	addSettings(cmd.Flags(), &cfg, s.groups)
	configVar(cmd.Flags(), &file)
	cmd.Flags().BoolVar(&checkOnly, "check-config", false, "validate the settings, print them without secrets, and exit")
	cmd.Flags().SortFlags = false
	return cmd
}
