package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

func (d *deadLetters) replay() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "replay ID... | --all",
		Short: "Put dead letters back into the queues they came from",
		Long: `replay publishes dead letters to the queues they came from and then removes them
here. All ids stay, so a message that is in a file already, and is still remembered
(--dedupe-ids, --dedupe-window of the consumer), is not written again.
--all means those that are there at the start: what dies again meanwhile stays.`,
		Example: `  async-data-processor dead-letters replay 01KB0M8Q3Z9X5T7V1C2D4E6F8G
  async-data-processor dead-letters replay --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return misused(cmd, errors.New("want either ids or --all"))
			}
			at, err := d.open(cmd)
			if err != nil {
				return err
			}
			ids := choose(args)
			n, err := at.Replay(cmd.Context(), ids.chosen)
			return d.conclude(cmd, "replayed", n, ids, err)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "replay all that are there")
	return cmd
}

func (d *deadLetters) purge() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "purge [ID...]",
		Short: "Forget dead letters, for good",
		Long: `purge removes the dead letters with the ids, or all. They are nowhere else: what
was accepted with 201 and is purged here will never be in a file. On a terminal
it asks first, anywhere else it wants --yes.`,
		Example: `  async-data-processor dead-letters purge 01KB0M8Q3Z9X5T7V1C2D4E6F8G
  async-data-processor dead-letters purge --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := d.open(cmd)
			if err != nil {
				return err
			}
			if !yes {
				what := "all dead letters"
				if len(args) > 0 {
					what = "the dead letters " + plain(strings.Join(args, ", "))
				}
				if err := confirm(cmd, fmt.Sprintf("Forget %s at %s, for good?", what, d.broker())); err != nil {
					return err
				}
			}
			ids := choose(args)
			n, err := at.Remove(cmd.Context(), ids.chosen)
			return d.conclude(cmd, "purged", n, ids, err)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirm asks a question on a terminal. Elsewhere there is no one to answer, so
// it refuses.
func confirm(cmd *cobra.Command, question string) error {
	if in, ok := cmd.InOrStdin().(*os.File); !ok || !isatty.IsTerminal(in.Fd()) {
		return misused(cmd, errors.New("what is purged is nowhere else: say --yes if that is meant"))
	}
	fmt.Fprint(cmd.ErrOrStderr(), question, " Type yes: ")
	answer, err := readLine(cmd.Context(), cmd.InOrStdin())
	if err == nil && answer != "yes" {
		err = errors.New("nothing was purged")
	}
	if err != nil {
		return failure{error: err}
	}
	return nil
}

// readLine reads a line, or gives up when ctx is done.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(in).ReadString('\n') // what cannot be read is not "yes"
		lines <- strings.TrimSpace(line)
	}()
	select {
	case line := <-lines:
		return line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// choice is the ids that were asked for, in their order; none means all.
type choice struct {
	ids   []string
	found map[string]bool
}

func choose(ids []string) choice { return choice{ids, map[string]bool{}} }

func (c choice) chosen(l pipeline.DeadLetter) bool {
	for _, id := range c.ids {
		if id == l.Envelope.ID {
			c.found[id] = true
			return true
		}
	}
	return len(c.ids) == 0
}

// conclude prints what was done and returns what was not.
func (d *deadLetters) conclude(cmd *cobra.Command, done string, n int, c choice, err error) error {
	_, printErr := fmt.Fprintln(cmd.OutOrStdout(), done, d.counted(n))
	if err != nil { // not all were seen
		return d.failed(errors.Join(err, printErr))
	}
	errs := []error{printErr}
	for _, id := range c.ids {
		if !c.found[id] {
			errs = append(errs, d.noSuch(id))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return failure{error: err}
	}
	return nil
}
