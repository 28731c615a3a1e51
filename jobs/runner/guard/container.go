package guard

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// cliTimeout bounds a command of a container engine.
	cliTimeout = 10 * time.Second
	// removeFor is how long a container is tried to be removed, while its engine fails.
	removeFor = 30 * time.Second
	cliAgain  = 500 * time.Millisecond
)

// forget removes the container if there is one.
func (c *Container) forget() { _, _ = c.cli(append(c.rm(), c.Name)...) } // most often there is none

// Remove removes the container, running or not. It returns why it may be left, or "".
func (c *Container) Remove() (left string) {
	for end := Now() + int64(removeFor); ; time.Sleep(cliAgain) {
		c.forget()
		out, err := c.cli("ps", "--all", "--quiet", "--filter", "name=^"+strings.ReplaceAll(c.Name, ".", `\.`)+"$")
		if err == nil && out == "" {
			return ""
		}
		if err == nil {
			err = fmt.Errorf("the container %s is still there", c.Name)
		}
		if Now() > end {
			return err.Error()
		}
	}
}

// rm is the command that ends a container at once, and removes it.
func (c *Container) rm() []string {
	if filepath.Base(c.Engine) == "podman" { // which would wait for the container's grace
		return []string{"rm", "--force", "--time", "0"}
	}
	return []string{"rm", "--force"}
}

// Sweep removes the containers with a label but those with the names of keep.
func Sweep(engine, label string, keep func(name string) bool) (removed []string, err error) {
	c := Container{Engine: engine}
	out, err := c.cli("ps", "--all", "--filter", "label="+label, "--format", "{{.Names}}")
	if err != nil {
		return nil, err
	}
	for c.Name = range strings.FieldsSeq(out) {
		if keep(c.Name) {
			continue
		}
		if _, err := c.cli(append(c.rm(), c.Name)...); err != nil {
			return removed, err
		}
		removed = append(removed, c.Name)
	}
	return removed, nil
}

// cli runs a command of the engine.
func (c *Container) cli(args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), cliTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Engine, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = os.Environ()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(c.Engine), args[0], err, bytes.TrimSpace(errs.Bytes()[:min(errs.Len(), 500)]))
	}
	return strings.TrimSpace(string(text)), err
}
