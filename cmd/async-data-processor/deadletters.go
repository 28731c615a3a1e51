package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

// deadLetters is what the commands below dead-letters have in common.
type deadLetters struct {
	lookup  lookupEnv
	cfg     pipeline.Config
	file    string
	timeout time.Duration
	named   bool // a flag, a variable or the file says which broker
}

func newDeadLetters(lookup lookupEnv) *cobra.Command {
	d := &deadLetters{lookup: lookup, cfg: pipeline.DefaultConfig()}
	cmd := &cobra.Command{
		Use:   "dead-letters",
		Short: "List, show, replay or purge what could not be written",
		Long: `dead-letters looks after what can never be written as it is: messages and whole
envelopes that the broker keeps apart, each with the reason. Nothing waits for
them, and they are nowhere else.

  list    one line each, the oldest first
  show    all that is known of one, and its body
  replay  puts them back into the queues they came from, for example after an
          upgrade that reads them. They keep their ids, so what is in a file
          already, and still remembered, is not written again; what is still
          bad dies again
  purge   forgets them, for good

Unless --broker-url, a variable or the file names a broker, it is the store that
standalone makes in this folder, data/broker, if that is there; else RabbitMQ on
this machine. Each answer names the broker.

An embedded broker belongs to one process. While that runs, it is asked, through
the socket control.sock in the broker's folder; so be the same user, or root.`,
		Example: `  async-data-processor dead-letters list
  async-data-processor dead-letters show 01KB0M8Q3Z9X5T7V1C2D4E6F8G
  async-data-processor dead-letters replay --all --broker-url amqp://user:password@host/
  async-data-processor dead-letters list --json | jq -r 'select(.shard == 3) | .id'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	addSettings(flags, &d.cfg, forLetters)
	broker := flags.Lookup("broker-url")
	broker.Usage += "; default: " + pipeline.EmbeddedURL + " if that is there, else " + pipeline.RedactURL(broker.DefValue)
	broker.DefValue = "" // it depends on the folder, so the help says it above
	spanVar(flags, &d.timeout, "timeout", 10*time.Second, "how long to wait for the broker")
	configVar(flags, &d.file)
	flags.SortFlags = false
	cmd.AddCommand(d.list(), d.show(), d.replay(), d.purge())
	return cmd
}

// open reads the settings, and the flags of the filter. Its error is one of usage.
func (d *deadLetters) open(cmd *cobra.Command, filter *lettersFilter) (pipeline.DeadLetters, error) {
	sources, err := resolve(cmd.Flags(), d.lookup, d.file)
	if err == nil {
		if d.named = sources["broker-url"] != ""; !d.named && pipeline.StoreHere() {
			d.cfg.BrokerURL, d.named = pipeline.EmbeddedURL, true
		}
		err = d.cfg.Validate()
	}
	if d.timeout <= 0 {
		err = errors.Join(err, fmt.Errorf("--timeout is %v, want more than 0", d.timeout))
	}
	if err != nil {
		return pipeline.DeadLetters{}, misused(cmd, err)
	}
	warn(cmd.ErrOrStderr(), d.lookup)
	return pipeline.DeadLetters{Config: d.cfg, Timeout: d.timeout}, filter.parse(cmd, time.Now())
}

// broker names the broker of the answers.
func (d *deadLetters) broker() string { return pipeline.RedactURL(d.cfg.BrokerURL) }

// failed is a failure at the broker. The broker names itself in its errors.
func (d *deadLetters) failed(err error) error {
	if !d.named {
		err = fmt.Errorf("%w\nNo broker was named, and there is no store in this folder (%s); name one with --broker-url", err, pipeline.EmbeddedURL)
	}
	return failure{error: err}
}

// counted is a number of dead letters of the broker, in words.
func (d *deadLetters) counted(n int) string {
	noun := "dead letters"
	if n == 1 {
		noun = "dead letter"
	}
	return fmt.Sprintf("%d %s at %s", n, noun, d.broker())
}

func misused(cmd *cobra.Command, err error) error {
	return fmt.Errorf("%w\nRun '%s --help' for the flags", err, cmd.CommandPath())
}

func (d *deadLetters) list() *cobra.Command {
	var asJSON bool
	var filter lettersFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print a line for each dead letter, the oldest first",
		Example: `  async-data-processor dead-letters list
  async-data-processor dead-letters list --shard 3 --before 24h
  async-data-processor dead-letters list --json | jq -r .reason | sort | uniq -c`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := d.open(cmd, &filter)
			if err != nil {
				return err
			}
			var found []letter
			err = at.Each(cmd.Context(), func(l pipeline.DeadLetter) {
				if filter.meant(l) {
					found = append(found, d.letterOf(l))
				}
			})
			if err != nil {
				return d.failed(err)
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				err = printLines(out, found)
			case len(found) > 0:
				err = printLetters(out, found, isTerminal(out))
			}
			if !asJSON || len(found) == 0 { // an object of JSON has the name
				fmt.Fprintln(cmd.ErrOrStderr(), d.counted(len(found)))
			}
			return printed(err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line instead of a table")
	filter.add(cmd.Flags())
	return cmd
}

func (d *deadLetters) show() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Print all that is known of a dead letter, and its body",
		Long: `show prints what is known of the dead letters with an id, and their bodies as they
are. A terminal gets a body that it could not show in quotes, as in Go. With --json
a body is the member "body", or "body_base64" if it is not UTF-8.`,
		Example: `  async-data-processor dead-letters show 01KB0M8Q3Z9X5T7V1C2D4E6F8G
  async-data-processor dead-letters show 01KB0M8Q3Z9X5T7V1C2D4E6F8G --json | jq -r .body`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := d.open(cmd, new(lettersFilter)) // which means all
			if err != nil {
				return err
			}
			var found []letter
			err = at.Each(cmd.Context(), func(l pipeline.DeadLetter) {
				if pipeline.HasDeadLetterID(&l, args[0]) {
					found = append(found, d.letterOf(l).withBody(l.Envelope.Body))
				}
			})
			if err != nil {
				return d.failed(err)
			}
			if len(found) == 0 {
				return failure{error: d.noSuch(args[0])}
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return printed(printLines(out, found))
			}
			return printed(printWhole(out, found, isTerminal(out)))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object instead")
	return cmd
}

func (d *deadLetters) noSuch(id string) error {
	return fmt.Errorf("no dead letter at %s has the id %s", d.broker(), plain(id))
}

func printed(err error) error {
	if err != nil {
		return failure{error: fmt.Errorf("print the dead letters: %w", err)}
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	if r, ok := w.(*results); ok {
		w = r.Writer
	}
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
