package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"async-data-processor/broker/local"
	"async-data-processor/pipeline"
)

func newStore(lookup lookupEnv) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Check the store of an embedded broker, or copy what can be read of it",
		Long: `store looks at the folder of an embedded broker, which no process may be using. It
never changes that folder.

  check    reads all of it: exit 0 if it is whole, 1 if it is damaged
  salvage  copies what can be read into a new store; exit 1 if something could not

Both exit 2 if nothing was looked at: there is no store, it is in use, or this user
may not read it. They count envelopes: in one the server sends
entries of a shard that came at the same time, up to 512 KiB of them.`,
		Example: `  async-data-processor store check
  async-data-processor store salvage data/broker data/broker-new`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newStoreCheck(lookup), newStoreSalvage())
	return cmd
}

func newStoreCheck(lookup lookupEnv) *cobra.Command {
	file, brokerURL := "", pipeline.EmbeddedURL
	cmd := &cobra.Command{
		Use:   "check [DIR]",
		Short: "Read all of a store: exit 0 if it is whole, 1 if it is damaged",
		Example: `  async-data-processor store check
  async-data-processor store check /var/lib/adp/broker`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := resolve(cmd.Flags(), lookup, file)
			var dir string
			if len(args) > 0 {
				dir = args[0]
			} else if err == nil {
				dir, err = pipeline.StoreFolder(brokerURL)
			}
			if err != nil {
				return misused(cmd, err)
			}
			return runStore(cmd, dir, func(progress func(done, total int64)) (*local.Report, error) {
				return local.Check(cmd.Context(), dir, progress)
			}, "run '"+cmd.Root().Name()+" store salvage "+plain(dir)+" NEWDIR' to copy what can be read")
		},
	}
	add(settings{cmd.Flags(), forLetters}, forLetters, textVar, &brokerURL,
		"broker-url", "BROKER_URL RABBITMQ_URL", "url", "embedded:<folder>, unless DIR is given")
	configVar(cmd.Flags(), &file)
	return cmd
}

func newStoreSalvage() *cobra.Command {
	return &cobra.Command{
		Use:   "salvage DIR NEWDIR",
		Short: "Copy what can be read of a store into a new one: exit 1 if something could not",
		Long: `salvage copies what can be read of the store in DIR into a new store in NEWDIR,
which must be empty or not exist. What it copies keeps its place in its queue. Start
the program on the new store with --broker-url embedded:NEWDIR, or swap the folders.`,
		Example: `  async-data-processor store salvage data/broker data/broker-new`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runStore(cmd, args[0], func(progress func(done, total int64)) (*local.Report, error) {
				return local.Salvage(cmd.Context(), args[0], args[1], progress)
			}, "copied what can be read to "+plain(args[1]))
		},
	}
}

// runStore prints the report of a look at the store in dir. If the store is damaged, the
// error ends with what next.
func runStore(cmd *cobra.Command, dir string, look func(func(done, total int64)) (*local.Report, error), next string) error {
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return misused(cmd, fmt.Errorf("there is no folder %s", plain(dir)))
	case err == nil && !info.IsDir():
		return misused(cmd, fmt.Errorf("%s is a file; give the folder of the store", plain(dir)))
	}
	type outcome struct {
		report *local.Report
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := look(func(done, total int64) {
			fmt.Fprintf(cmd.ErrOrStderr(), "read %d of %d envelopes\n", done, total)
		})
		done <- outcome{r, err}
	}()
	var o outcome
	select {
	case o = <-done:
	case <-cmd.Context().Done(): // leaving is safe: the old folder is only read, the new one has no store yet
		return failure{error: context.Cause(cmd.Context())}
	}
	if errors.Is(o.err, fs.ErrNotExist) {
		return misused(cmd, o.err) // a damaged store is there
	}
	switch {
	case errors.Is(o.err, local.ErrInUse), errors.Is(o.err, fs.ErrPermission):
		return o.err // nothing was looked at, so this does not say that it is damaged
	case o.report == nil:
		return failure{error: o.err}
	}
	if err := printStore(cmd.OutOrStdout(), o.report); err != nil {
		return failure{error: fmt.Errorf("print the report: %w", err)}
	}
	if o.report.Err() != nil {
		return failure{error: fmt.Errorf("%w: %s; %s", local.ErrDamaged, plain(o.report.Path), next)}
	}
	return nil
}

// printStore prints a table of the queues that hold or lack something, with numbers of
// envelopes, and under it what is wrong.
func printStore(w io.Writer, r *local.Report) error {
	var out, wrong strings.Builder // their writes do not fail
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, depth, want int) {
		expected := strconv.Itoa(want)
		if want < 0 {
			expected = "unknown"
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t\n", name, depth, expected)
	}
	fmt.Fprintln(&out, "envelopes, each of one or more entries:")
	fmt.Fprint(table, "shard\treadable\texpected\t\n")
	for _, damage := range r.Damage {
		fmt.Fprintf(&wrong, "\n%s", damage)
	}
	depth, want := 0, 0
	for _, n := range r.Sorted() {
		q := r.Queues[n]
		depth += q.Depth
		if want >= 0 && q.Want >= 0 {
			want += q.Want
		} else {
			want = -1
		}
		if q.Damage != "" {
			fmt.Fprintf(&wrong, "\n%s: %s", local.QueueText(n), q.Damage)
		}
		name := strconv.Itoa(n)
		if n == local.Dead {
			name = "dead"
		}
		if q.Depth != 0 || q.Want != 0 || q.Damage != "" {
			row(name, q.Depth, q.Want)
		}
	}
	row("total", depth, want)
	table.Flush() // into out
	if wrong.Len() > 0 {
		fmt.Fprintln(&out, wrong.String())
	}
	_, err := io.WriteString(w, out.String())
	return err
}
