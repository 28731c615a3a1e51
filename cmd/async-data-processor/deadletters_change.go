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
	var filter lettersFilter
	cmd := &cobra.Command{
		Use:   "replay ID... | --all",
		Short: "Put dead letters back into the queues they came from",
		Long: `replay publishes dead letters to the queues they came from and then removes them
here. All ids stay, so a message that is in a file already, and is still remembered
(--dedupe-ids, --dedupe-window of the consumer), is not written again.
--all means those that are there at the start: what dies again meanwhile stays.
The other flags leave out those that they do not mean.`,
		Example: `  async-data-processor dead-letters replay 01KB0M8Q3Z9X5T7V1C2D4E6F8G
  async-data-processor dead-letters replay --all --shard 3
  async-data-processor dead-letters replay --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return misused(cmd, errors.New("want either ids or --all"))
			}
			at, err := d.open(cmd, &filter)
			if err != nil {
				return err
			}
			ids := choice{args, map[string]bool{}, &filter}
			n, err := at.Replay(cmd.Context(), ids.chosen)
			return d.conclude(cmd, "replayed", n, ids, err)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "replay all that are there")
	filter.add(cmd.Flags())
	return cmd
}

func (d *deadLetters) purge() *cobra.Command {
	var yes bool
	var filter lettersFilter
	cmd := &cobra.Command{
		Use:   "purge [ID...]",
		Short: "Forget dead letters, for good",
		Long: `purge removes the dead letters with the ids, or all; the flags leave out those that
they do not mean. They are nowhere else: what was accepted with 201 and is purged here
will never be in a file. On a terminal it shows how many there are and some of them,
asks, and then removes these and no others. Anywhere else it wants --yes.`,
		Example: `  async-data-processor dead-letters purge 01KB0M8Q3Z9X5T7V1C2D4E6F8G
  async-data-processor dead-letters purge --foreign true --before 720h
  async-data-processor dead-letters purge --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := d.open(cmd, &filter)
			if err != nil {
				return err
			}
			ids := choice{args, map[string]bool{}, &filter}
			chosen := ids.chosen
			if !yes {
				if chosen, err = d.preview(cmd, at, ids); err != nil {
					return err
				}
			}
			n, err := at.Remove(cmd.Context(), chosen)
			return d.conclude(cmd, "purged", n, ids, err)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	filter.add(cmd.Flags())
	return cmd
}

// previewed is how many dead letters a preview shows.
const previewed = 5

// preview shows what is to be purged, and asks. It returns what chooses those that it
// has counted, and no others.
func (d *deadLetters) preview(cmd *cobra.Command, at pipeline.DeadLetters, ids choice) (func(pipeline.DeadLetter) bool, error) {
	if err := answerable(cmd); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	var examples []letter
	err := at.Each(cmd.Context(), func(l pipeline.DeadLetter) {
		if !ids.chosen(l) {
			return
		}
		seen[pipeline.DeadLetterKey(&l)] = true
		if len(examples) < previewed {
			examples = append(examples, d.letterOf(l))
		}
	})
	if err != nil {
		return nil, d.failed(err)
	}
	if len(seen) == 0 {
		return func(pipeline.DeadLetter) bool { return false }, nil
	}
	if err := printLetters(cmd.ErrOrStderr(), examples, true); err != nil {
		return nil, printed(err)
	}
	if more := len(seen) - len(examples); more > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "and %d more\n", more)
	}
	if err := confirm(cmd, fmt.Sprintf("Forget %s, for good?", d.counted(len(seen)))); err != nil {
		return nil, err
	}
	return func(l pipeline.DeadLetter) bool { return seen[pipeline.DeadLetterKey(&l)] }, nil
}

// answerable tells whether there is a terminal that can answer a question.
func answerable(cmd *cobra.Command) error {
	if in, ok := cmd.InOrStdin().(*os.File); !ok || !isatty.IsTerminal(in.Fd()) {
		return misused(cmd, errors.New("what is purged is nowhere else: say --yes if that is meant"))
	}
	return nil
}

// confirm asks a question on a terminal.
func confirm(cmd *cobra.Command, question string) error {
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

// choice is the ids that were asked for, in their order; none means all. Of these the
// filter leaves some out.
type choice struct {
	ids    []string
	found  map[string]bool
	filter *lettersFilter
}

func (c choice) chosen(l pipeline.DeadLetter) bool {
	if !c.filter.meant(l) {
		return false
	}
	for _, id := range c.ids {
		if pipeline.HasDeadLetterID(&l, id) {
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
