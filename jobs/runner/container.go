package runner

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/runner/guard"
)

// Engines are what may run containers, the first that is there for choice.
var Engines = []string{"podman", "docker"}

// FindEngine returns the path of a container engine: of the first that is there, if name is
// empty, or "" if none is.
func FindEngine(name string) (path string, err error) {
	if name != "" {
		if !slices.Contains(Engines, name) {
			return "", fmt.Errorf("the engine is %q, want %s, auto or none", name, strings.Join(Engines, ", "))
		}
		return exec.LookPath(name)
	}
	for _, name := range Engines {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", nil
}

// label marks the containers of a runner.
func (c *Config) label() string { return "adp.runner=" + c.Name }

func (c *Config) containerName(run int64, attempt int) string {
	return fmt.Sprintf("adp-%s-%d-%d", c.Name, run, attempt)
}

// container writes the variables into a file for the engine.
func (c *Config) container(a *attempt, variables map[string]string) (*guard.Container, error) {
	f, err := os.CreateTemp("", c.filePattern()) // with mode 0600
	if err != nil {
		return nil, fmt.Errorf("write the variables of the container: %w", err)
	}
	var text strings.Builder
	for name, value := range variables {
		fmt.Fprintf(&text, "%s=%s\n", name, value)
	}
	_, err = f.WriteString(text.String())
	if err = cmp.Or(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return nil, fmt.Errorf("write the variables of the container: %w", err)
	}
	return &guard.Container{Engine: c.Containers, Name: c.containerName(a.run, a.number), EnvFile: f.Name()}, nil
}

// containerArgs is the command line of the engine. It has no secret.
func (c *Config) containerArgs(a *attempt, box *guard.Container) []string {
	args := []string{box.Engine, "run", "--rm", "--init", "--name", box.Name, "--label", c.label(), "--env-file", box.EnvFile}
	if a.file != nil && c.OutputDir != "" {
		args = append(args, "--volume", c.OutputDir+":"+c.OutputDir+":ro")
	}
	return append(append(args, a.def.Image), a.def.Command...)
}

// sweepInterval is how often containers that are left are looked for.
const sweepInterval = time.Minute

// keepSwept removes containers that are left, while there is a job with an image.
func (r *Runner) keepSwept(ctx context.Context) {
	for backoff.Sleep(ctx, sweepInterval) {
		r.mu.Lock()
		images := false
		for _, d := range r.jobs {
			images = images || d.Image != ""
		}
		r.mu.Unlock()
		if images {
			r.sweep()
		}
	}
}

// sweep removes the containers of this runner that no attempt of it has.
func (r *Runner) sweep() {
	r.children.beside(func() {
		removed, err := guard.Sweep(r.cfg.Containers, r.cfg.label(), func(name string) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.ContainsFunc(r.attempts, func(a *attempt) bool {
				return a.state != over && r.cfg.containerName(a.run, a.number) == name
			})
		})
		for _, name := range removed {
			r.cfg.Tell(Notice{Text: "removed the container " + name + ", which was left", Problem: true})
		}
		if err != nil {
			r.cfg.Tell(Notice{Text: "cannot look for containers that are left", Problem: true, Err: err})
		}
	})
}

// admit returns why a job cannot run here, or "".
func (c *Config) admit(d frame.Definition) (why string) {
	for _, name := range d.Secrets {
		if _, ok := os.LookupEnv(name); !ok || slices.Contains(c.Private, name) {
			return "the runner has no variable " + name
		}
	}
	switch {
	case d.Image == "" && (len(d.Command) == 0 || d.Command[0] == ""):
		return "the job has no command"
	case d.Image == "":
		return ""
	case c.Containers == "":
		return "the runner takes no containers: it found neither podman nor docker, or has --engine none"
	case strings.HasPrefix(d.Image, "-"):
		return "the image is an option"
	}
	for name, value := range d.Env {
		if strings.ContainsAny(name+value, "\r\n") {
			return "the variable " + name + " has a line break, which no container can get"
		}
	}
	for _, name := range d.Secrets {
		if strings.ContainsAny(os.Getenv(name), "\r\n") {
			return "the variable " + name + " has a line break, which no container can get"
		}
	}
	return ""
}
