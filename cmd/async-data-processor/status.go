package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

// status asks a running process about its system.
type status struct {
	remote
	asJSON, watch bool
}

const (
	// statusInterval is the time between two looks.
	statusInterval = time.Second
	// statusTimeout bounds an answer. The process waits a second for the others.
	statusTimeout = 5 * time.Second
	// maxStatus bounds an answer, in bytes.
	maxStatus = 64 << 20
)

func newStatus() *cobra.Command {
	s := new(status)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the processes of a system, and its shards",
		Long: `status asks one process, which answers for all: who owns which shard, what waits in
the queues, what is written. A process that does not answer is unknown.

` + remoteHelp,
		Example: `  async-data-processor status --watch
  async-data-processor status --url http://consumer-1:8081 --token-file view-token
  async-data-processor status --json | jq -r '.shards[] | select(.state != "running") | .shard'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.aim(); err != nil {
				return misused(cmd, err)
			}
			return s.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	s.flags(flags, anyProcess, "VIEW_TOKENS")
	flags.BoolVar(&s.asJSON, "json", false, "print a JSON object instead, and with --watch one each second")
	flags.BoolVar(&s.watch, "watch", false, "look again every second")
	flags.SortFlags = false
	return cmd
}

// run prints what it sees, once or until ctx ends. A table shows rates, so it takes two
// looks.
func (s *status) run(ctx context.Context, out io.Writer) error {
	var before *view
	for {
		v, err := s.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return failure{error: fmt.Errorf("status: %w", err)}
		case s.asJSON:
			err = printLines(out, []*view{v})
		case before != nil:
			err = v.print(out, before, s.watch && isTerminal(out))
		}
		if err != nil {
			return failure{error: fmt.Errorf("print the status: %w", err)}
		}
		if !s.watch && (s.asJSON || before != nil) {
			return nil
		}
		before = v
		select {
		case <-time.After(statusInterval):
		case <-ctx.Done():
			return nil
		}
	}
}

// look asks the process.
func (s *status) look(ctx context.Context) (*view, error) {
	v := &view{at: time.Now()}
	for path, into := range map[string]any{
		"overview": &v.Overview, "nodes": &struct{ Nodes *[]pipeline.NodeView }{&v.Nodes}, "shards": &struct{ Shards *[]pipeline.ShardView }{&v.Shards},
	} {
		if err := s.get(ctx, "/api/v1/"+path, into); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (s *status) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	resp, text, err := s.ask(ctx, http.MethodGet, path, nil, nil, maxStatus)
	if err != nil {
		return err
	}
	if err := s.hidden(resp); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", s.who(), resp.Status)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return errors.Join(fmt.Errorf("%s answers no JSON of this version at %s", s.who(), path), err)
	}
	return nil
}
