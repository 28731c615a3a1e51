package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/runner/guard"
)

const (
	// slack is how long a guard may take beyond its time before it is killed.
	slack = 5 * time.Second
	// lastOutput bounds the wait for the end of the output, when nothing runs any more.
	lastOutput = 10 * time.Second
	watchEvery = 500 * time.Millisecond
)

// execute runs an attempt to its end.
func (r *Runner) execute(a *attempt) {
	began := time.Now()
	r.cfg.Tell(Notice{Text: "attempt started", Run: a.run, Attempt: a.number, Job: a.def.Name})
	report, err := r.guarded(a)
	outcome, exit, why := a.judge(report, err)
	a.log.end()
	// Told first: a runner that stops may end as soon as the attempt is over.
	r.cfg.Tell(Notice{
		Text: "attempt ended", Problem: outcome == frame.Fault || outcome == frame.Fenced, Run: a.run, Attempt: a.number, Job: a.def.Name,
		Outcome: outcome, Exit: exit, Why: why, Took: time.Since(began),
	})
	r.mu.Lock()
	a.state, a.outcome, a.exit, a.why = over, outcome, exit, why
	r.tellChange()
	r.mu.Unlock()
}

// errGuard is why nothing is known of how a process has ended.
var errGuard = errors.New("the guard of the process was killed")

// judge says how an attempt has ended.
func (a *attempt) judge(report guard.Report, err error) (outcome frame.Outcome, exit int, why string) {
	var notes []string
	if report.Left != "" {
		notes = append(notes, "the container may be left: "+report.Left)
	}
	switch {
	case err != nil:
		return frame.Fault, 0, err.Error()
	case report.Fault != "":
		why = "cannot start: " + report.Fault
		if a.def.Image == "" && len(a.def.Command) == 1 && strings.ContainsAny(a.def.Command[0], " \t\n") {
			why += "; no shell reads a command: write [a, list, of, words], or [sh, -c, \"…\"]"
		}
		return frame.Fault, 0, why
	case report.Cause != "":
		outcome = frame.Outcome(report.Cause)
		if outcome == frame.TimedOut {
			notes = append(notes, fmt.Sprintf("it took longer than its timeout, %v", time.Duration(a.def.Timeout)))
		}
	case a.def.Image != "" && report.Signal == 0 && report.Exit >= 125 && report.Exit <= 127:
		outcome = frame.Fault
		notes = append(notes, fmt.Sprintf("the container engine ends with %d; the log says why", report.Exit))
	default:
		outcome = frame.Exited
	}
	if report.Signal != 0 {
		notes = append(notes, fmt.Sprintf("killed by signal %d (%v)", int(report.Signal), report.Signal))
	}
	return outcome, report.Exit, strings.Join(notes, "; ")
}

// guarded runs an attempt under a guard. When it returns, nothing of it runs any more.
func (r *Runner) guarded(a *attempt) (report guard.Report, err error) {
	spec, secrets, err := r.spec(a)
	if err != nil {
		return report, err
	}
	var pipes [6]*os.File
	defer func() {
		for _, p := range pipes {
			if p != nil {
				_ = p.Close() // some are closed already
			}
		}
	}()
	for i := 0; i < len(pipes); i += 2 {
		if pipes[i], pipes[i+1], err = os.Pipe(); err != nil {
			return report, err
		}
	}
	orders, give, reports, printed := pipes[0], pipes[1], pipes[2], pipes[4]
	cmd := guard.New(fmt.Sprintf("%d.%d %s", a.run, a.number, a.def.Name), pipes[5], orders, pipes[3])
	cmd.Env = r.cfg.environ(spec.Container != nil)
	if err := r.children.start(cmd); err != nil {
		return report, fmt.Errorf("start the guard of the process: %w", err)
	}
	for _, p := range []*os.File{orders, pipes[3], pipes[5]} {
		_ = p.Close() // the guard has them
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		r.copyLog(a, printed, secrets)
	}()
	reported := make(chan error, 1)
	go func() {
		var err error
		report, err = guard.ReadReport(reports)
		reported <- err
	}()
	r.open(a, give, spec)
	err = a.watch(reported, r.cfg.lease/20, func() { _ = cmd.Process.Kill() }) // it may have ended
	a.shut()
	ended := r.children.wait(cmd)
	if err != nil {
		err = r.clean(spec, fmt.Errorf("%w: %w", errGuard, errors.Join(ended)))
	}
	_ = printed.SetReadDeadline(time.Now().Add(lastOutput)) // pipes have deadlines
	<-copied
	return report, err
}

// clean ends what a killed guard has left.
func (r *Runner) clean(spec guard.Spec, err error) error {
	if !r.children.killOrphans() {
		err = fmt.Errorf("%w; some of its processes may run on", err)
	}
	if c := spec.Container; c != nil {
		_ = os.Remove(c.EnvFile) // the guard may have done it
		var left string
		r.children.beside(func() { left = c.Remove() })
		if left != "" {
			err = fmt.Errorf("%w; the container may be left: %s", err, left)
		}
	}
	return err
}

// open tells the guard what to run, and from then on of renewed leases.
func (r *Runner) open(a *attempt, give *os.File, spec guard.Spec) {
	a.pipe.Lock()
	defer a.pipe.Unlock()
	r.mu.Lock()
	spec.Order = a.lease
	r.mu.Unlock()
	spec.End, a.orders = a.asked.End, give
	a.overdue = guard.Now() + int64(spec.Timeout+spec.Grace+slack)
	a.last = spec.Kill
	_ = json.NewEncoder(give).Encode(spec) // a guard that was killed is found out by its report
}

// shut ends the orders.
func (a *attempt) shut() {
	a.pipe.Lock()
	defer a.pipe.Unlock()
	a.orders = nil
}

// watch waits for the report, and kills a guard that does not do its work in time.
func (a *attempt) watch(reported <-chan error, slackOfLease time.Duration, kill func()) error {
	tick := time.NewTicker(min(watchEvery, slackOfLease/4))
	defer tick.Stop()
	for {
		select {
		case err := <-reported:
			return err
		case <-tick.C:
			a.pipe.Lock()
			late := guard.Now() > min(a.overdue, a.last+int64(slackOfLease))
			a.pipe.Unlock()
			if late {
				kill()
			}
		}
	}
}

// copyLog moves what an attempt prints into its log.
func (r *Runner) copyLog(a *attempt, printed io.Reader, secrets []string) {
	m := newMasker(a.log, secrets)
	buffer := make([]byte, 32<<10)
	for {
		n, err := printed.Read(buffer)
		_, _ = m.Write(buffer[:n]) // a spool takes all
		if err != nil {
			break
		}
		r.mu.Lock()
		if r.link != nil {
			r.link.wakeUp()
		}
		r.mu.Unlock()
	}
	_ = m.Close()
}

// kept are the variables of the runner that the process of a job gets, too. The others may
// be secrets.
var kept = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR"}

// spec returns what a guard is to run, and the values that are masked in the log.
func (r *Runner) spec(a *attempt) (spec guard.Spec, secrets []string, err error) {
	spec = guard.Spec{Args: a.def.Command, Timeout: time.Duration(a.def.Timeout), Grace: time.Duration(a.def.Grace)}
	variables := make(map[string]string)
	maps.Copy(variables, a.def.Env)
	for _, name := range a.def.Secrets {
		value := os.Getenv(name) // admit has looked
		variables[name] = value
		secrets = append(secrets, value)
	}
	r.cfg.describe(a, variables)
	if a.def.Image != "" {
		spec.Container, err = r.cfg.container(a, variables)
		if err == nil {
			spec.Args = r.cfg.containerArgs(a, spec.Container)
		}
		return spec, secrets, err
	}
	spec.Env = []string{}
	for _, line := range os.Environ() {
		name, _, _ := strings.Cut(line, "=")
		if _, set := variables[name]; !set && plain(name) {
			spec.Env = append(spec.Env, line)
		}
	}
	for name, value := range variables {
		spec.Env = append(spec.Env, name+"="+value)
	}
	return spec, secrets, nil
}

// describe adds the variables that tell a job what it is about.
func (c *Config) describe(a *attempt, variables map[string]string) {
	variables["ADP_RUN"] = fmt.Sprint(a.run)
	variables["ADP_ATTEMPT"] = fmt.Sprint(a.number)
	variables["ADP_JOB"] = a.def.Name
	variables["ADP_ARGS"] = string(a.args)
	if f := a.file; f != nil {
		variables["ADP_FILE"] = filepath.Join(c.OutputDir, filepath.FromSlash(f.Name))
		variables["ADP_SHARD"] = fmt.Sprint(f.Shard)
		variables["ADP_LINES"] = fmt.Sprint(f.Lines)
		variables["ADP_BYTES"] = fmt.Sprint(f.Bytes)
	}
}

// environ is the environment of a guard, and so of a container engine. A guard alone needs
// next to nothing, and has no secret for the moment before it hides.
func (c *Config) environ(engine bool) []string {
	return slices.DeleteFunc(os.Environ(), func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return slices.Contains(c.Private, name) || !engine && !plain(name) && name != "GOCOVERDIR"
	})
}

// plain tells whether any process may have a variable of the runner.
func plain(name string) bool {
	return slices.Contains(kept, name) || strings.HasPrefix(name, "LC_")
}
