package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Node is a folder of scripts/rabbitmq, which makes it a private RabbitMQ node.
// One that is started ends with this process.
type Node string

// Run runs scripts/rabbitmq on the node and returns what it prints.
func (n Node) Run(args ...string) (string, error) {
	return script("rabbitmq", "RABBITMQ", string(n), args)
}

// script runs a script of the repository on the server of a folder, whose owner is this
// process. The script's variables begin with prefix.
func script(name, prefix, dir string, args []string) (string, error) {
	root, err := Repository()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(filepath.Join(root, "scripts", name), args...)
	cmd.Env = append(os.Environ(), prefix+"_DIR="+dir, fmt.Sprint(prefix+"_OWNER=", os.Getpid()))
	return output(cmd)
}

// output runs a command and returns what it prints.
func output(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// Repository is the folder of go.mod, at or above the working directory.
func Repository() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod at or above the working directory: %w", os.ErrNotExist)
		}
	}
	return "", err
}
