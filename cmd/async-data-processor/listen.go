package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"async-data-processor/client"
)

// listen shows entries as they pass.
type listen struct {
	remote
	frames bool
	query  url.Values
}

func newListen(told *messages) *cobra.Command {
	l := new(listen)
	cmd := &cobra.Command{
		Use:   "listen [URL]",
		Short: "Print the entries of the whole system as they are written",
		Long: `listen asks one process, which shows what all of them write, and prints each entry
as a line. It connects again by itself, and goes on behind the last entry. It tells on
standard error how many were missed meanwhile, if some were. It ends with Ctrl-C, or
when its reader does.

` + strings.Replace(remoteHelp, "--url", "the URL", 1),
		Example: `  async-data-processor listen
  async-data-processor listen http://consumer-1:8081 --token-file token --last 10
  async-data-processor listen --where /user/id=42 | jq .value
  async-data-processor listen --stage dead --frames | jq -r .reason`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := l.prepare(cmd.Flags(), args); err != nil {
				return misused(cmd, err)
			}
			return l.run(cmd.Context(), cmd.OutOrStdout(), told)
		},
	}
	flags := cmd.Flags()
	flags.String("stage", "written", "what to show: messages that are written, dead, or accepted")
	numberVar(flags, new(int), "last", 0, "show so many of the latest messages first, at most 1000")
	flags.StringArray("where", nil, "only entries with this value at this JSON pointer, for example /user/id=42; may be repeated, all must hold")
	flags.String("contains", "", "only entries whose line contains this text")
	flags.String("shard", "", "only these shards, for example 0,3")
	flags.String("submission", "", "only the entries of this submission")
	numberVar(flags, new(int), "rate", 1000, "show so many messages a second at most, 0 for all")
	numberVar(flags, new(int), "limit", 0, "end after so many messages")
	flags.String("payload", "full", "how much of an entry to show: full, head or none")
	flags.BoolVar(&l.frames, "frames", false, "print all that the process tells, as JSON, and not the entries alone")
	l.flags(flags, anyProcess, "VIEW_TOKENS")
	flags.SortFlags = false
	return cmd
}

// listenParameters are the flags that are parameters of the query.
var listenParameters = []string{"stage", "last", "where", "contains", "shard", "submission", "rate", "limit", "payload"}

// prepare checks the command line. What is wrong with a parameter, the process says.
func (l *listen) prepare(flags *pflag.FlagSet, args []string) error {
	if err := l.name(args); err != nil {
		return err
	}
	l.query = make(url.Values)
	for _, name := range listenParameters {
		f := flags.Lookup(name)
		if !f.Changed {
			continue
		}
		l.query[name] = []string{f.Value.String()}
		if several, ok := f.Value.(pflag.SliceValue); ok {
			l.query[name] = several.GetSlice()
		}
	}
	if id, _, message := strings.Cut(l.query.Get("submission"), "."); message {
		return fmt.Errorf("--submission is the id of a message, want that of its submission, %s", plain(id))
	}
	return l.aim()
}

// run prints until ctx ends, the reader of out has gone, or the limit is reached.
func (l *listen) run(ctx context.Context, out io.Writer, told *messages) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		if readerGone(ctx, out) {
			end(errReaderGone)
		}
	}()
	s := &listenScreen{out: out, told: told, frames: l.frames, terminal: isTerminal(out)}
	err := client.Listen(ctx, client.ListenConfig{
		URL: l.url, HTTP: &l.client, Token: l.token, Query: l.query, Frame: s.frame, Lost: s.lost,
	})
	switch {
	case err == nil, errors.Is(err, errStop), errors.Is(err, errReaderGone):
		return nil
	}
	return failure{error: fmt.Errorf("listen: %s", plain(err.Error()))}
}

// listenScreen prints what a process shows.
type listenScreen struct {
	out              io.Writer
	told             *messages
	frames, terminal bool

	problem   string // the last that was told, while it lasts
	problemAt time.Time
	sampled   bool // it was told that some are left out
}

// problemInterval is how often the same problem is told.
const problemInterval = time.Minute

func (s *listenScreen) lost(err error, _ time.Duration) {
	text := err.Error()
	if text == s.problem && time.Since(s.problemAt) < problemInterval {
		return
	}
	s.problem, s.problemAt = text, time.Now()
	s.say("no stream, trying again: %s", plain(text))
}

func (s *listenScreen) say(format string, args ...any) {
	fmt.Fprintf(s.told, "listen: "+format+"\n", args...)
}

// shownFrame is what is read of a frame.
type shownFrame struct {
	ID      string          `json:"id"`
	Entry   json.RawMessage `json:"entry"`
	Node    string          `json:"node"`
	Missed  uint64          `json:"missed"`
	AtLeast bool            `json:"at_least"`
	Why     string          `json:"why"`
}

func (s *listenScreen) frame(f client.Frame) error {
	var shown shownFrame
	if err := json.Unmarshal(f.JSON, &shown); err != nil {
		return fmt.Errorf("a frame of the process is no JSON: %w", err)
	}
	switch f.Type {
	case "hello":
		if s.problem != "" {
			s.say("connected to %s", plain(shown.Node))
			s.problem = ""
		}
	case "gap":
		s.say("%s", shown.text())
	case "reset":
		s.say("the process has started anew, or has forgotten this listener: what passed meanwhile is not shown")
	case "sample":
		if !s.sampled {
			s.sampled = true
			s.say("more messages pass than are shown: --rate 0 shows all")
		}
	}
	var line []byte
	switch {
	case s.frames:
		line = withEventID(f)
	case f.Type != "message":
		return nil
	case shown.Entry != nil:
		line = shown.Entry
	default: // with --payload none
		line = []byte(shown.ID)
	}
	if s.terminal {
		line = printable(line)
	}
	_, err := s.out.Write(append(line, '\n'))
	return err
}

// text says what is not shown, of a gap.
func (f *shownFrame) text() string {
	number := fmt.Sprintf("%d messages are", f.Missed)
	switch {
	case f.AtLeast && f.Missed == 0:
		number = "an unknown number of messages is"
	case f.AtLeast:
		number = "at least " + number
	case f.Missed == 1:
		number = "1 message is"
	}
	why := plain(f.Why)
	switch why {
	case "slow":
		why = "they came faster than this program, or the connection, took them"
	case "ring":
		why = "the connection was lost for too long"
	case "node":
		why = "a process could not tell them"
	}
	return fmt.Sprintf("%s not shown: %s", number, why)
}
