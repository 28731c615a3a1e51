package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"async-data-processor/jobs/runner"
	"async-data-processor/pipeline"
)

// jobRunner runs jobs for an engine.
type jobRunner struct {
	remote
	cfg    runner.Config
	log    pipeline.Config // of which the log and the drain are used
	engine string
}

// The variables of a runner's token, which no job gets.
const runnerToken, runnerTokenFile = "RUNNER_TOKEN", "RUNNER_TOKEN_FILE"

func newRunner(lookup lookupEnv, told *messages) *cobra.Command {
	r := &jobRunner{log: pipeline.DefaultConfig()}
	cmd := &cobra.Command{
		Use:   "runner [URL]",
		Short: "Run jobs for a server that has --jobs, as processes or containers",
		Long: `runner connects to an engine of jobs, a server or standalone that has --jobs, and runs
what that offers: processes of this machine, and containers by podman or docker.

It connects again by itself. Jobs go on meanwhile, and their logs and ends are kept
until an engine has them. A job that cannot renew its lease in time is ended with all
that it has started, whatever becomes of the runner: so no job runs twice at a time.

A job gets the variables of its definition, PATH, HOME and the like, and those
that it names as secrets; nothing else of this process.

SIGTERM drains: the runner takes no more jobs, lets those that run end within
--drain-timeout, and gives back the others. A second signal ends it at once.

Unless there is a URL, it is ` + remoteURL + `. The token is that of --token-file, of
` + runnerToken + `, or of the file that ` + runnerTokenFile + ` names.`,
		Example: `  async-data-processor runner http://localhost:8080
  async-data-processor runner https://host:8080 --token-file token --slots 4 --label gpu
  async-data-processor runner wss://host/adp --engine podman --output-dir /srv/data`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := resolve(cmd.Flags(), lookup, "")
			if err == nil {
				err = r.prepare(args, lookup)
			}
			if err != nil {
				return misused(cmd, err)
			}
			return r.run(cmd.Context(), told)
		},
	}
	flags := cmd.Flags()
	numberVar(flags, &r.cfg.Slots, "slots", 1, "how many jobs run at a time, at most 64")
	flags.StringSliceVar(&r.cfg.Labels, "label", nil, "what jobs may ask for, for example gpu; may be repeated")
	s := settings{flags, forBoth}
	add(s, forBoth, textVar, &r.cfg.Name, "name", "NODE_NAME", "", "name among all runners; default: the host's, with -2, -3 … for others of this machine")
	wordVar(flags, &r.engine, "engine", "auto", "what runs containers: podman or docker; auto: the first that is there; none: no containers")
	add(s, forBoth, pathVar, &r.cfg.OutputDir, "output-dir", "DATA_OUTPUT_DIR", "", "folder of the published files, if this machine has it: containers see it, too, and ADP_FILE is an absolute path")
	r.flags(flags, aServer, "RUNNER_TOKENS")
	add(s, forBoth, spanVar, &r.log.DrainTimeout, "drain-timeout", "DRAIN_TIMEOUT", "", "how long jobs may take to end when the runner has to")
	add(s, forBoth, wordVar, &r.log.LogLevel, "log-level", "LOG_LEVEL", "", "trace, debug, info, warn or error")
	add(s, forBoth, wordVar, &r.log.LogFormat, "log-format", "LOG_FORMAT", "", "json, console, or auto: console on a terminal")
	flags.SortFlags = false
	return cmd
}

// prepare checks the command line and the variables.
func (r *jobRunner) prepare(args []string, lookup lookupEnv) (err error) {
	if err := r.name(args); err != nil {
		return err
	}
	r.url = cmp.Or(r.url, remoteURL)
	r.takeSocketURL()
	token, _ := lookup(runnerToken)
	path, _ := lookup(runnerTokenFile)
	token, path = strings.TrimSpace(token), strings.TrimSpace(path)
	switch {
	case token != "" && path != "":
		return fmt.Errorf("both %s and %s are set, unset one of them", runnerToken, runnerTokenFile)
	case r.tokenFile == "":
		r.tokenFile = path
	}
	if err := r.aim(); err != nil {
		return err
	}
	r.token = cmp.Or(r.token, token)
	if r.engine != "none" {
		name := r.engine
		if name == "auto" {
			name = ""
		}
		if r.cfg.Containers, err = runner.FindEngine(name); err != nil {
			return fmt.Errorf("--engine: %w", err)
		}
	}
	if r.cfg.OutputDir != "" {
		if info, err := os.Stat(r.cfg.OutputDir); err != nil || !info.IsDir() {
			return errors.Join(fmt.Errorf("--output-dir: %s is no folder here; the process that writes the files makes it when it starts", plain(r.cfg.OutputDir)), err)
		}
	}
	if _, err := zerolog.ParseLevel(r.log.LogLevel); err != nil {
		return fmt.Errorf("--log-level is %q, want trace, debug, info, warn or error", r.log.LogLevel)
	}
	if !slices.Contains([]string{"json", "console", "auto"}, r.log.LogFormat) {
		return fmt.Errorf("--log-format is %q, want json, console or auto", r.log.LogFormat)
	}
	r.cfg.URL, r.cfg.HTTP, r.cfg.Token, r.cfg.Drain = r.url, &r.client, r.token, r.log.DrainTimeout
	r.cfg.Version = buildVersion()
	r.cfg.Private = []string{runnerToken, runnerTokenFile}
	_, err = runner.New(r.cfg) // what it refuses is of the command line
	return err
}

func (r *jobRunner) run(ctx context.Context, told *messages) error {
	name, held, err := runner.Claim(r.cfg.Name)
	if err != nil {
		return failure{error: fmt.Errorf("runner: %w", err)}
	}
	defer held.Close()
	r.cfg.Name = name
	log := told.logTo(r.log)
	r.cfg.Tell = func(n runner.Notice) { tellOf(log, n) }
	job, err := runner.New(r.cfg)
	if err == nil {
		log.Info().Str("name", name).Str("url", r.url).Int("slots", r.cfg.Slots).Strs("labels", r.cfg.Labels).Str("containers", r.cfg.Containers).
			Str("version", r.cfg.Version).Msg("runner started")
		err = job.Run(ctx)
	}
	if err != nil {
		log.Error().Err(err).Msg("stopped")
		return failure{error: err, logged: true}
	}
	log.Info().Msg("stopped")
	return nil
}

// tellOf writes a notice as a line of the log.
func tellOf(log zerolog.Logger, n runner.Notice) {
	line := log.Info()
	if n.Problem {
		line = log.Warn()
	}
	if n.Run != 0 {
		line = line.Int64("run", n.Run).Int("attempt", n.Attempt).Str("job", n.Job)
	}
	if n.Outcome != "" {
		line = line.Str("outcome", string(n.Outcome)).Int("exit", n.Exit).Str("took", n.Took.Round(time.Millisecond).String())
	}
	if n.Why != "" {
		line = line.Str("why", n.Why)
	}
	if n.Node != "" {
		line = line.Str("engine", n.Node)
	}
	if n.Pause != 0 {
		line = line.Str("again_in", n.Pause.Round(time.Millisecond).String())
	}
	line.AnErr("error", n.Err).Msg(n.Text)
}
