package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

// ctl is what the commands below ctl have in common.
type ctl struct {
	remote
	timeout    time.Duration
	id, reason string
}

func newCtl() *cobra.Command {
	c := new(ctl)
	cmd := &cobra.Command{
		Use:   "ctl",
		Short: "Pause, resume, resize or flush a running shard; pause the intake; run jobs",
		Long: `ctl sends a command to a running process, which passes it on to the owner of the
shard, or to all servers. It ends with 0 when they have done it, not before.

  pause   nothing of the shard is written; its messages wait at the broker.
          Of the intake: every server answers submissions with 503
  resume  ends a pause
  resize  sets the number of workers, or takes it from the settings again
  flush   has what was received visible now
  job     runs jobs, shows them, their logs and their runners

` + remoteHelp,
		Example: `  async-data-processor ctl pause shard 3 --reason "moving the files" --until 2h
  async-data-processor ctl resize shard 3 --min 3 --max 8
  async-data-processor ctl flush shard all --url https://host:8081
  async-data-processor ctl pause intake --reason "the disk is being replaced"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	c.flags(flags, anyProcess, "ADMIN_TOKENS")
	spanVar(flags, &c.timeout, "timeout", 10*time.Second, "how long to wait for the answer")
	flags.SortFlags = false
	cmd.AddCommand(
		c.pause(), c.verb("resume", shardOrIntake, "End a pause"),
		c.resize(), c.verb("flush", shardOnly, "Have what was received visible now"), c.job(),
	)
	return cmd
}

// order is a command as the process takes it.
type order struct {
	ID     string         `json:"id"`
	Verb   string         `json:"verb"`
	Target string         `json:"target"`
	Args   map[string]int `json:"args,omitempty"`
	Reason string         `json:"reason,omitempty"`
	Until  time.Time      `json:"until,omitzero"`
}

// What a command is for.
const (
	shardOnly     = "shard N|all"
	shardOrIntake = "shard N|all | intake"
)

// verb returns the command of a verb without flags of its own.
func (c *ctl) verb(verb, target, short string) *cobra.Command {
	return c.command(verb, target, short, func(*order) error { return nil })
}

func (c *ctl) command(verb, target, short string, fill func(*order) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " " + target, Short: short, Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			aim, err := targetOf(args, target == shardOrIntake)
			o := order{ID: cmp.Or(c.id, pipeline.NewCommandID()), Verb: verb, Target: aim, Reason: c.reason}
			if err == nil {
				err = errors.Join(fill(&o), c.aim())
			}
			if err != nil {
				return misused(cmd, err)
			}
			return c.send(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	c.reasonFlag(cmd)
	cmd.Flags().StringVar(&c.id, "id", "", "id of the command; with the one of an earlier try, a retry is safe")
	return cmd
}

func (c *ctl) reasonFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.reason, "reason", "", "why, for the log and for people who ask")
}

func (c *ctl) pause() *cobra.Command {
	var until string
	cmd := c.command("pause", shardOrIntake, "End the consuming of a shard, or the intake of all servers, until it is resumed", func(o *order) (err error) {
		if until != "" {
			o.Until, err = untilOf(until, time.Now())
		}
		return err
	})
	cmd.Flags().StringVar(&until, "until", "", "when it ends by itself: a time, 2026-12-24T18:00:00Z, or how long from now, 2h")
	return cmd
}

func (c *ctl) resize() *cobra.Command {
	var lowest, highest int
	cmd := c.command("resize", shardOnly, "Set the number of workers of a shard; without flags, as the settings say", func(o *order) error {
		if lowest != 0 || highest != 0 {
			o.Args = map[string]int{"min": lowest, "max": highest}
		}
		return nil
	})
	cmd.Flags().IntVar(&lowest, "min", 0, "workers at rest, at least 1")
	cmd.Flags().IntVar(&highest, "max", 0, "workers while batches wait, at most 32")
	return cmd
}

// targetOf reads "shard 3", "shard all", or "intake".
func targetOf(args []string, intake bool) (string, error) {
	switch {
	case args[0] == "intake" && intake && len(args) == 1:
		return "intake", nil
	case args[0] != "shard" && intake:
		return "", fmt.Errorf("%q is no target, want shard or intake", args[0])
	case args[0] != "shard":
		return "", fmt.Errorf("%q is no target, want shard", args[0])
	case len(args) == 1:
		return "", errors.New("which shard is missing: a number or all")
	}
	if args[1] == "all" {
		return "shard:*", nil
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 0 {
		return "", fmt.Errorf("shard %q, want a number or all", args[1])
	}
	return fmt.Sprint("shard:", n), nil
}

// untilOf reads a time, or a duration from now.
func untilOf(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(d).UTC().Truncate(time.Second), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("--until %q, want a time such as 2026-12-24T18:00:00Z or a duration such as 2h", text)
	}
	return at, nil
}

// sendPause is the pause before a command is sent again.
const sendPause = 200 * time.Millisecond

// send sends the command until its owner has done it, or the time is over. Its id makes
// that safe.
func (c *ctl) send(ctx context.Context, o order, out io.Writer) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for {
		done, err := c.post(ctx, body, out)
		switch {
		case err != nil && ctx.Err() != nil, !done && err == nil && ctx.Err() != nil:
			return failure{error: fmt.Errorf("the owner has not answered within %v, and may still do it; ask again with --id %s", c.timeout, o.ID)}
		case err != nil:
			return failure{error: err}
		case done:
			return nil
		}
		select {
		case <-time.After(sendPause):
		case <-ctx.Done():
		}
	}
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// post sends the command once. done is false if its owner has not answered yet.
func (c *ctl) post(ctx context.Context, body []byte, out io.Writer) (done bool, err error) {
	resp, text, err := c.ask(ctx, http.MethodPost, "/api/v1/commands", nil, body, maxAnswer)
	if err != nil {
		return false, err
	}
	var a struct {
		State, Detail string
		Shards        map[string]outcome
		Servers       map[string]outcome
		Error         string
	}
	_ = json.Unmarshal(text, &a) // what is no answer of ours is told by its status
	switch resp.StatusCode {
	case http.StatusAccepted:
		return false, nil
	case http.StatusUnauthorized:
		a.Detail = needsToken("ADMIN_TOKENS")
	case http.StatusOK, http.StatusServiceUnavailable:
		if a.Error != "" {
			err = errors.New(a.Error)
		}
		err = errors.Join(err, printOutcomes(out, "shard", a.Shards), printOutcomes(out, "intake at", a.Servers))
		if resp.StatusCode == http.StatusOK && a.State == "done" || err != nil {
			return true, err
		}
	}
	return false, fmt.Errorf("%s answers %s: %s", c.who(), resp.Status, cmp.Or(a.Detail, "no answer of this program"))
}

// outcome is what became of a command at one of those that it is for.
type outcome struct{ Node, Before, After, Error string }

// printOutcomes prints what was done, in the order of the names, which may be numbers. It
// returns what was refused.
func printOutcomes(out io.Writer, what string, outcomes map[string]outcome) (err error) {
	for _, name := range slices.SortedFunc(maps.Keys(outcomes), func(x, y string) int { return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)) }) {
		o := outcomes[name]
		if o.Error != "" {
			err = errors.Join(err, fmt.Errorf("%s %s: %s", what, plain(name), o.Error))
		} else if _, printing := fmt.Fprintf(out, "%s %s: %s (was: %s)\n", what, plain(name), o.After, o.Before); printing != nil {
			return errors.Join(err, printing)
		}
	}
	return err
}
