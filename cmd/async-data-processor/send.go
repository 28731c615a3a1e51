package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"async-data-processor/client"
	"async-data-processor/pipeline"
)

// send sends lines to a server.
type send struct {
	remote
	want, dead string
	stamp      bool
	every      time.Duration
	local      bool // the server is the one that has the store in this folder

	told *messages
}

// sendGrace is how long a signal lets what was read wait for its answers.
const sendGrace = 5 * time.Second

func newSend(told *messages) *cobra.Command {
	s := &send{told: told}
	cmd := &cobra.Command{
		Use:   "send [URL]",
		Short: "Send lines of standard input as entries, so that each is written once",
		Long: `send reads entries, a JSON object a line, and sends them over a WebSocket. Lines that
are there leave together, and a lone one leaves at once. It reads no further than the
server keeps up.

It reconnects until it has its answers. What has none it sends again, and the server
knows it again: so each line is written once. A rejected line is told by its number;
the lines beside it are accepted.

The file of --dead gets the lines in the order of the answers, which may not be that
of the input.

It exits with 0 if every line to the end of the input was accepted, and with 1 if one
was not. A signal stops the reading, and waits ` + sendGrace.String() + ` for the answers.

` + strings.Replace(remoteHelp, "--url", "the URL", 1),
		Example: `  async-data-processor send <entries.ndjson
  tail -F app.log | async-data-processor send https://host:8080 --token-file token --dead bad.ndjson
  async-data-processor send --timestamp-now --want written <readings.ndjson
  async-data-processor send --every 5s`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.prepare(cmd.Flags(), args); err != nil {
				return misused(cmd, err)
			}
			return s.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	s.flags(flags, aServer, "AUTH_TOKENS")
	flags.StringVar(&s.want, "want", "accepted", "what to wait for: accepted, or written for entries that are in files")
	flags.StringVar(&s.dead, "dead", "", "file to append the rejected lines to, as they were read, in the order of the answers")
	flags.BoolVar(&s.stamp, "timestamp-now", false, "add the present time as timestamp to entries without one")
	spanVar(flags, &s.every, "every", 0, "send an entry of its own so often instead of reading, and print the answers")
	flags.SortFlags = false
	return cmd
}

// prepare checks the command line.
func (s *send) prepare(flags *pflag.FlagSet, args []string) error {
	if err := s.name(args); err != nil {
		return err
	}
	if info, err := os.Stat(s.url); len(args) > 0 && err == nil && !info.IsDir() {
		return fmt.Errorf("%s is a file, and send reads standard input; use: send <%[1]s", plain(s.url))
	}
	s.takeSocketURL()
	if s.want != "accepted" && s.want != "written" {
		return fmt.Errorf("--want is %q, want accepted or written", s.want)
	}
	if s.every < 0 || s.every == 0 && flags.Changed("every") {
		return fmt.Errorf("--every is %v, want more than 0", s.every)
	}
	s.local = s.url == "" && pipeline.StoreHere()
	return s.aim()
}

// find asks the process that has the store where its server listens. The socket that
// it answers at is for short questions.
func (s *send) find(ctx context.Context) error {
	var system struct{ Nodes []pipeline.NodeView }
	if err := (&status{remote: s.remote}).get(ctx, "/api/v1/nodes", &system); err != nil {
		return err
	}
	for _, node := range system.Nodes {
		if slices.Contains(node.Info.Roles, "server") && node.Info.Address != "" {
			s.url, s.client.Transport = node.Info.Address, nil
			return nil
		}
	}
	return errors.New("the process that has the store in this folder has no server, name one")
}

func (s *send) run(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	if s.local {
		if err := s.find(ctx); err != nil {
			return failure{error: fmt.Errorf("send: %w", err)}
		}
	}
	screen := &sendScreen{out: s.told, terminal: s.told.terminal, wanted: s.want == "written", began: time.Now()}
	cfg := client.LinesConfig{
		Config: client.Config{URL: s.url, HTTP: &s.client, Token: s.token, Want: screen.wanted, Connected: screen.connected, Lost: screen.lost, Refused: screen.refused},
		Stamp:  s.stamp, Grace: sendGrace, Rejected: screen.rejected,
	}
	if s.dead != "" {
		file, err := os.OpenFile(s.dead, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return failure{error: fmt.Errorf("--dead: %w", err)}
		}
		cfg.Bad = file
		defer func() {
			if closing := errors.Join(file.Sync(), file.Close()); closing != nil {
				err = failure{error: errors.Join(err, fmt.Errorf("--dead: %w", closing))}
			}
		}()
	}
	if s.every > 0 {
		in = &beeps{every: s.every}
		cfg.Told = func(a client.Answer, lines []client.Range) { screen.answer(out, a, lines) }
	}
	lines := client.NewLines(cfg)
	done := screen.watch(lines)
	report, err := lines.Run(ctx, in)
	done()
	screen.summary(report)
	return s.outcome(report, err)
}

// outcome is the command's own: an error unless all is as wanted.
func (s *send) outcome(r client.Report, err error) error {
	switch {
	case s.every > 0 && errors.Is(err, errStop):
		err = nil // there is no other end
	case errors.Is(err, errStop):
		err = errors.New("stopped by a signal, before the end of the input")
	case errors.Is(err, client.ErrRefused):
		err = fmt.Errorf("%s: %w", s.url, err)
	case err != nil:
		err = fmt.Errorf("not all was read and sent: %w", err)
	}
	if err == nil && !r.OK(s.want == "written") {
		err = fmt.Errorf("not every line was %s", s.want)
	}
	if err == nil {
		return nil
	}
	return failure{error: fmt.Errorf("send: %s", plain(err.Error()))}
}

// beeps is lines for a debugging eye, one each interval.
type beeps struct {
	every time.Duration
	n     int
}

func (b *beeps) Read(p []byte) (int, error) {
	if b.n > 0 {
		time.Sleep(b.every)
	}
	b.n++
	return copy(p, fmt.Appendf(nil, "{\"timestamp\":%q,\"value\":\"beep %d\"}\n", time.Now().UTC().Format(time.RFC3339Nano), b.n)), nil
}
