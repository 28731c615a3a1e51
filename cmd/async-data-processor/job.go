package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

const (
	// jobInterval is the time between two looks at a run, or its log.
	jobInterval = 500 * time.Millisecond
	// maxJobAnswer bounds an answer, in bytes.
	maxJobAnswer = 16 << 20
)

// job is what the commands below ctl job have in common.
type job struct {
	*ctl
	asJSON bool

	aside io.Writer // what is no result goes there
	told  string    // the last line of waiting
}

func (c *ctl) job() *cobra.Command {
	j := &job{ctl: c}
	cmd := &cobra.Command{
		Use:   "job",
		Short: "Run jobs, show them, their logs and their runners",
		Example: `  async-data-processor ctl job run hello-world --args '{"name":"Ada"}' --wait
  async-data-processor ctl job list --state running
  async-data-processor ctl job log 17 -f
  async-data-processor ctl job cancel 17 --reason "the wrong file"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().BoolVar(&j.asJSON, "json", false, "print JSON, an object a line, instead of text")
	cmd.AddCommand(j.list(), j.run(), j.show(), j.change("cancel", "End a run"),
		j.change("retry", "Queue a run again that has ended without success"), j.log(), j.runners())
	return cmd
}

// command returns a command that asks the process.
func (j *job) command(use, short string, args cobra.PositionalArgs, do func(ctx context.Context, args []string, out io.Writer) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := j.aim(); err != nil {
				return misused(cmd, err)
			}
			j.aside = cmd.ErrOrStderr()
			err := do(cmd.Context(), args, cmd.OutOrStdout())
			if wrong, ok := errors.AsType[misuse](err); ok {
				return misused(cmd, wrong)
			}
			if _, understood := errors.AsType[failure](err); err != nil && !understood {
				err = failure{error: fmt.Errorf("job: %w", err)}
			}
			return err
		},
	}
}

// misuse is an error of the command line.
type misuse struct{ error }

// one takes a single argument, and says what it has to be.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return misused(cmd, fmt.Errorf("want %s, got %s", what, counted(len(args), "argument")))
	}
}

// waiting tells aside where a run is, once for each state and reason, while somebody
// waits for it.
func (j *job) waiting(r *pipeline.JobRun) {
	if line := runLine(r); line != j.told && !r.State.Ended() {
		j.told = line
		fmt.Fprintln(j.aside, line)
	}
}

// call sends a request, and reads the answer into a value. Its errors say what to do.
func (j *job) call(ctx context.Context, method, path string, header http.Header, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, j.timeout)
	defer cancel()
	resp, text, err := j.ask(ctx, method, path, header, body, maxJobAnswer)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return j.refused(method, resp, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return errors.Join(fmt.Errorf("%s answers no JSON of this version at %s", j.who(), path), err)
	}
	return nil
}

// refused is the error of an answer.
func (j *job) refused(method string, resp *http.Response, text []byte) error {
	var problem struct{ Detail string }
	_ = json.Unmarshal(text, &problem) // what is no answer of ours is told by its status
	switch {
	case resp.StatusCode == http.StatusUnauthorized && method == http.MethodGet:
		problem.Detail = needsToken("VIEW_TOKENS")
	case resp.StatusCode == http.StatusUnauthorized:
		problem.Detail = needsToken("ADMIN_TOKENS")
	case problem.Detail == "":
		problem.Detail = "no answer of this program"
	}
	return fmt.Errorf("%s answers %s: %s", j.who(), resp.Status, plain(problem.Detail))
}

func (j *job) list() *cobra.Command {
	query := make(map[string]*string)
	limit := 20
	cmd := j.command("list", "Print the last runs, the newest first", cobra.NoArgs, func(ctx context.Context, _ []string, out io.Writer) error {
		q := url.Values{"limit": {strconv.Itoa(limit)}}
		for name, value := range query {
			if *value != "" {
				q.Set(name, *value)
			}
		}
		var runs []pipeline.JobRun
		if err := j.call(ctx, http.MethodGet, "/api/jobs?"+q.Encode(), nil, nil, &runs); err != nil {
			return err
		}
		if j.asJSON {
			return printLines(out, runs)
		}
		return printRuns(out, runs)
	})
	query["name"] = cmd.Flags().String("job", "", "only runs of this job")
	query["state"] = cmd.Flags().String("state", "", "only runs in this state: queued, leased, running, succeeded, cancelled, timed-out or dead")
	query["before"] = cmd.Flags().String("before", "", "only runs that are older than the one with this id")
	numberVar(cmd.Flags(), &limit, "limit", limit, "how many at most, 1 to 1000")
	return cmd
}

func (j *job) run() *cobra.Command {
	var args, key string
	var wait bool
	cmd := j.command("run NAME", "Run a job", one("the name of a job"), func(ctx context.Context, names []string, out io.Writer) error {
		if args != "" && !json.Valid([]byte(args)) {
			return misuse{fmt.Errorf("--args %s: want a JSON text", plain(args))}
		}
		header := make(http.Header)
		if key != "" {
			header.Set("Idempotency-Key", key)
		}
		var r pipeline.JobRun
		if err := j.call(ctx, http.MethodPost, "/api/jobs/"+url.PathEscape(names[0]), header, []byte(args), &r); err != nil {
			return err
		}
		if !wait {
			return j.print(out, &r)
		}
		return j.await(ctx, r.ID, out)
	})
	cmd.Long = `run queues a run of a job, and prints it. With --wait it ends when the run has ended: with
the exit code of the job's process; or with 1 if that has none, or the run has ended
otherwise. Meanwhile it tells on stderr what the run waits for.`
	cmd.Flags().StringVar(&args, "args", "", "arguments, a JSON text, which the job gets as ADP_ARGS")
	cmd.Flags().StringVar(&key, "key", "", "a word of your choice; asked again with it, the run that there is is printed, and none is added")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the run has ended")
	return cmd
}

// await waits until a run has ended, and prints it. What does not answer is asked again.
func (j *job) await(ctx context.Context, id int64, out io.Writer) error {
	for {
		var d pipeline.JobRunDetail
		err := j.call(ctx, http.MethodGet, runPath(id), nil, nil, &d)
		switch r := &d.RunView; {
		case err == nil && r.State.Ended():
			if err := j.print(out, r); err != nil || r.Success {
				return err
			}
			f := failure{error: fmt.Errorf("run %d is %s", r.ID, r.State), logged: true} // as was printed
			if r.Outcome == "exited" && r.Exit != nil {
				f.code = *r.Exit
			}
			return f
		case ctx.Err() != nil:
			return fmt.Errorf("run %d goes on; see ctl job show %[1]d", id)
		case err == nil:
			j.waiting(r)
		}
		select {
		case <-time.After(jobInterval):
		case <-ctx.Done():
		}
	}
}

func (j *job) show() *cobra.Command {
	return j.command("show ID", "Print a run, and its attempts", one("the id of a run"), func(ctx context.Context, args []string, out io.Writer) error {
		id, err := runID(args[0])
		if err != nil {
			return err
		}
		var d pipeline.JobRunDetail
		if err := j.call(ctx, http.MethodGet, runPath(id), nil, nil, &d); err != nil {
			return err
		}
		if j.asJSON {
			return printLines(out, []pipeline.JobRunDetail{d})
		}
		return printRun(out, &d)
	})
}

// change returns the command of a verb for a run.
func (j *job) change(verb, short string) *cobra.Command {
	cmd := j.command(verb+" ID", short, one("the id of a run"), func(ctx context.Context, args []string, out io.Writer) error {
		id, err := runID(args[0])
		if err != nil {
			return err
		}
		body, err := json.Marshal(map[string]string{"reason": j.reason})
		if err != nil {
			return err
		}
		var r pipeline.JobRun
		if err := j.call(ctx, http.MethodPost, runPath(id)+"/"+verb, nil, body, &r); err != nil {
			return err
		}
		return j.print(out, &r)
	})
	j.reasonFlag(cmd)
	return cmd
}

func (j *job) runners() *cobra.Command {
	return j.command("runners", "Print the runners that are connected", cobra.NoArgs, func(ctx context.Context, _ []string, out io.Writer) error {
		var runners []pipeline.JobRunner
		if err := j.call(ctx, http.MethodGet, "/api/workers", nil, nil, &runners); err != nil {
			return err
		}
		if j.asJSON {
			return printLines(out, runners)
		}
		return printRunners(out, runners)
	})
}

func (j *job) log() *cobra.Command {
	var follow bool
	var attempt int
	cmd := j.command("log ID", "Print the log of a run", one("the id of a run"), func(ctx context.Context, args []string, out io.Writer) error {
		id, err := runID(args[0])
		if err != nil {
			return err
		}
		return j.printLog(ctx, id, attempt, follow, out)
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print what comes, until the attempt has ended")
	numberVar(cmd.Flags(), &attempt, "attempt", 0, "which attempt; 0: the last one")
	return cmd
}

// printLog prints the log of an attempt: what there is, or until its end. It goes on
// after an answer that does not come.
func (j *job) printLog(ctx context.Context, id int64, attempt int, follow bool, out io.Writer) error {
	terminal, next := isTerminal(out), int64(0)
	for {
		var d pipeline.JobRunDetail // as it is before its log is read
		err := j.call(ctx, http.MethodGet, runPath(id), nil, nil, &d)
		if err == nil && attempt == 0 {
			attempt = d.Attempt
		}
		for more := err == nil && attempt > 0; more && hasMore(&d, attempt, next); {
			more, err = j.printPart(ctx, id, attempt, &next, terminal, out)
		}
		if err == nil && attempt == 0 {
			j.waiting(&d.RunView)
		}
		over := err == nil && (attempt < d.Attempt || d.State.Ended() || attempt == 0 && !follow)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !follow, errors.Is(err, errNoLog):
			return err
		case over, !follow:
			return nil
		}
		select {
		case <-time.After(jobInterval):
		case <-ctx.Done():
			return nil
		}
	}
}

// hasMore tells whether the log of an attempt has more than next bytes, as far as the run knows.
func hasMore(d *pipeline.JobRunDetail, attempt int, next int64) bool {
	for _, a := range d.History {
		if a.Attempt == attempt {
			return a.Log > next
		}
	}
	return true
}

// errNoLog is a failure that does not pass.
var errNoLog = errors.New("there is no such log")

var contentRange = regexp.MustCompile(`^bytes (\d+)-`)

// printPart prints a part of a log from next on, and returns whether there was one.
func (j *job) printPart(ctx context.Context, id int64, attempt int, next *int64, terminal bool, out io.Writer) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, j.timeout)
	defer cancel()
	path := fmt.Sprintf("%s/log?attempt=%d", runPath(id), attempt)
	resp, text, err := j.ask(ctx, http.MethodGet, path, http.Header{"Range": {fmt.Sprintf("bytes=%d-", *next)}}, nil, maxJobAnswer)
	switch {
	case err != nil:
		return false, err
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return false, nil
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return false, fmt.Errorf("%w: %w", errNoLog, j.refused(http.MethodGet, resp, text))
	case resp.StatusCode != http.StatusPartialContent:
		return false, j.refused(http.MethodGet, resp, text)
	}
	found := contentRange.FindStringSubmatch(resp.Header.Get("Content-Range"))
	if found == nil {
		return false, fmt.Errorf("%s answers without the place of the part at %s", j.who(), path)
	}
	from, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		return false, err
	}
	if cut := from - *next; cut > 0 {
		fmt.Fprintf(out, "\n[%d bytes of the log were thrown away here]\n", cut)
	}
	*next = from + int64(len(text))
	if terminal {
		text = logOnTerminal(text)
	}
	if _, err := out.Write(text); err != nil {
		return false, errors.Join(errNoLog, err)
	}
	return true, nil
}

func runPath(id int64) string { return "/api/jobs/" + strconv.FormatInt(id, 10) }

// runID reads the id of a run.
func runID(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, misuse{fmt.Errorf("%q is no id of a run, want a number", strings.TrimSpace(text))}
	}
	return id, nil
}
