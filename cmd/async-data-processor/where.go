package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

// where asks a running process where a message is.
type where struct {
	remote
	asJSON bool
}

const (
	// whereTimeout bounds the answer. The process may take ten seconds for it.
	whereTimeout = 15 * time.Second
	// maxLocation bounds the answer, in bytes.
	maxLocation = 64 << 10
)

func newWhere() *cobra.Command {
	w := new(where)
	cmd := &cobra.Command{
		Use:   "where ID",
		Short: "Show where a message is: queued, with a worker, in which file and line, dead",
		Long: `where asks one process, which asks all owners of shards. ID is the id of a message:
that of its submission, a dot and the number of the entry, from 0; or the id that
another program gave its message. It ends with 1 if the message is not known, or if
an owner does not answer and it was not found.

` + remoteHelp,
		Example: `  async-data-processor where 01M8K523VDHDD60X1V378Z7002.1
  async-data-processor where order-4711 --url http://consumer-1:8081 --token-file view-token
  async-data-processor where 01M8K523VDHDD60X1V378Z7002.1 --json | jq -r .file`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := w.aim(); err != nil {
				return misused(cmd, err)
			}
			return w.run(cmd.Context(), args[0], cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	w.flags(flags, anyProcess, "VIEW_TOKENS")
	flags.BoolVar(&w.asJSON, "json", false, "print a JSON object instead")
	flags.SortFlags = false
	return cmd
}

// run asks, and prints the answer.
func (w *where) run(ctx context.Context, id string, out io.Writer) error {
	l, err := w.look(ctx, id)
	switch {
	case err != nil:
		return failure{error: fmt.Errorf("where: %w", err)}
	case w.asJSON:
		err = printLines(out, []*pipeline.Location{l})
	default:
		_, err = out.Write(whereText(l))
	}
	if err != nil {
		return failure{error: fmt.Errorf("print where it is: %w", err)}
	}
	if l.State == pipeline.NotKnown || l.State == pipeline.NotAnswered {
		return failure{error: errors.New("it was not found"), logged: true} // as was printed
	}
	return nil
}

func (w *where) look(ctx context.Context, id string) (*pipeline.Location, error) {
	ctx, cancel := context.WithTimeout(ctx, whereTimeout)
	defer cancel()
	resp, text, err := w.ask(ctx, http.MethodGet, pipeline.MessagePath+url.PathEscape(id), nil, nil, maxLocation)
	if err != nil {
		return nil, err
	}
	if err := w.hidden(resp); err != nil {
		return nil, err
	}
	var l pipeline.Location
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, &l); err != nil || l.State == "" {
			return nil, errors.Join(fmt.Errorf("%s answers no JSON of this version", w.who()), err)
		}
		return &l, nil
	}
	var problem struct{ Detail string }
	if json.Unmarshal(text, &problem) == nil && problem.Detail != "" {
		return nil, fmt.Errorf("%s answers %s: %s", w.who(), resp.Status, plain(problem.Detail))
	}
	return nil, fmt.Errorf("%s answers %s", w.who(), resp.Status)
}

// inWords is a state as people say it.
var inWords = map[string]string{
	"in_hand": "in hand", "not_known": "not known", "unknown": "unknown, an owner does not answer", "dead": "a dead letter",
}

// whereText is a location as people read it.
func whereText(l *pipeline.Location) []byte {
	var b bytes.Buffer
	state := string(l.State)
	fmt.Fprintf(&b, "%s: %s", plain(l.ID), plain(cmp.Or(inWords[state], state)))
	if l.Since != nil {
		fmt.Fprintf(&b, " since %s", l.Since.Local().Format(time.DateTime))
	}
	b.WriteByte('\n')
	line := func(name string, value *string) {
		if value != nil {
			fmt.Fprintf(&b, "  %-10s  %s\n", name, plain(*value))
		}
	}
	if l.Shard != nil {
		fmt.Fprintf(&b, "  %-10s  %d\n", "shard", *l.Shard)
	}
	line("owner", l.Owner)
	line("worker", l.Worker)
	line("file", l.File)
	if l.Line != nil {
		fmt.Fprintf(&b, "  %-10s  %d\n", "line", *l.Line)
	}
	line("reason", l.Reason)
	line("submission", l.Submission)
	line("because", l.Why)
	return b.Bytes()
}
