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
		Short: "Pause, resume, resize or flush a running shard",
		Long: `ctl sends a command to a running process, which passes it on to the owner of the
shard. It ends with 0 when the owner has done it, not before.

  pause   nothing of the shard is written; its messages wait at the broker
  resume  ends a pause
  resize  sets the number of workers, or takes it from the settings again
  flush   has what was received visible now

` + remoteHelp,
		Example: `  async-data-processor ctl pause shard 3 --reason "moving the files" --until 2h
  async-data-processor ctl resize shard 3 --min 3 --max 8
  async-data-processor ctl flush shard all --url https://host:8081`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	c.flags(flags, "ADMIN_TOKENS")
	flags.StringVar(&c.reason, "reason", "", "why, for the log and for people who ask")
	flags.StringVar(&c.id, "id", "", "id of the command; with the one of an earlier try, a retry is safe")
	spanVar(flags, &c.timeout, "timeout", 10*time.Second, "how long to wait for the owner")
	flags.SortFlags = false
	cmd.AddCommand(c.pause(), c.verb("resume", "End a pause"), c.resize(), c.verb("flush", "Have what was received visible now"))
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

// verb returns the command of a verb without flags of its own.
func (c *ctl) verb(verb, short string) *cobra.Command {
	return c.command(verb, short, func(*order) error { return nil })
}

func (c *ctl) command(verb, short string, fill func(*order) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " shard N|all", Short: short, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := targetOf(args)
			o := order{ID: cmp.Or(c.id, pipeline.NewCommandID()), Verb: verb, Target: target, Reason: c.reason}
			if err == nil {
				err = errors.Join(fill(&o), c.aim())
			}
			if err != nil {
				return misused(cmd, err)
			}
			return c.send(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
}

func (c *ctl) pause() *cobra.Command {
	var until string
	cmd := c.command("pause", "End the consuming of a shard, until it is resumed", func(o *order) (err error) {
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
	cmd := c.command("resize", "Set the number of workers of a shard; without flags, as the settings say", func(o *order) error {
		if lowest != 0 || highest != 0 {
			o.Args = map[string]int{"min": lowest, "max": highest}
		}
		return nil
	})
	cmd.Flags().IntVar(&lowest, "min", 0, "workers at rest, at least 1")
	cmd.Flags().IntVar(&highest, "max", 0, "workers while batches wait, at most 32")
	return cmd
}

// targetOf reads "shard 3", or "shard all".
func targetOf(args []string) (string, error) {
	if args[0] != "shard" {
		return "", fmt.Errorf("%q is no target, want shard", args[0])
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
	resp, text, err := c.ask(ctx, http.MethodPost, "/api/v1/commands", body, maxAnswer)
	if err != nil {
		return false, err
	}
	var a struct {
		State, Detail string
		Shards        map[string]struct{ Node, Before, After, Error string }
	}
	_ = json.Unmarshal(text, &a) // what is no answer of ours is told by its status
	switch resp.StatusCode {
	case http.StatusAccepted:
		return false, nil
	case http.StatusOK, http.StatusServiceUnavailable:
		for _, shard := range slices.SortedFunc(maps.Keys(a.Shards), func(x, y string) int { return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)) }) {
			o := a.Shards[shard]
			if o.Error != "" {
				err = errors.Join(err, fmt.Errorf("shard %s: %s", shard, o.Error))
				continue
			}
			if _, printing := fmt.Fprintf(out, "shard %s: %s (was: %s)\n", shard, o.After, o.Before); printing != nil {
				return true, printing
			}
		}
		if resp.StatusCode == http.StatusOK && a.State == "done" || err != nil {
			return true, err
		}
	}
	return false, fmt.Errorf("%s answers %s: %s", c.url, resp.Status, cmp.Or(a.Detail, "no answer of this program"))
}
