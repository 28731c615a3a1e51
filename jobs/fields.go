package jobs

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"async-data-processor/jobs/frame"
	"async-data-processor/yamldoc"
)

// Defaults of a job.
const (
	defaultTimeout  = 10 * time.Minute
	defaultGrace    = 10 * time.Second
	defaultBackoff  = 10 * time.Second
	defaultKeep     = 1000
	manualAttempts  = 1 // a person sees that it failed
	fileAttempts    = 5 // of these it is seen later
	defaultParallel = 1
)

// Bounds of a job.
const (
	maxName      = 64
	maxLabels    = 16
	maxImage     = 255
	maxArguments = 128
	maxVariables = 64
	maxText      = 8 << 10 // of an argument, or the value of a variable
)

// fieldNames are those of fields, for people.
const fieldNames = "name, image, command, on, labels, timeout, grace, concurrency, attempts, backoff, env, secrets, keep"

// fields read the members of a job.
var fields = map[string]func(*frame.Definition, *yaml.Node) error{
	"name":    func(d *frame.Definition, n *yaml.Node) (err error) { d.Name, err = scalar(n); return err },
	"image":   func(d *frame.Definition, n *yaml.Node) (err error) { d.Image, err = readImage(n); return err },
	"command": func(d *frame.Definition, n *yaml.Node) (err error) { d.Command, err = readCommand(n); return err },
	"on":      func(d *frame.Definition, n *yaml.Node) (err error) { d.On, err = readOn(n); return err },
	"labels": func(d *frame.Definition, n *yaml.Node) (err error) {
		d.Labels, err = names(n, maxLabels, checkName)
		return err
	},
	"timeout": func(d *frame.Definition, n *yaml.Node) (err error) {
		d.Timeout, err = span(n, time.Second, 7*24*time.Hour)
		return err
	},
	"grace": func(d *frame.Definition, n *yaml.Node) (err error) {
		d.Grace, err = span(n, 0, 5*time.Minute)
		return err
	},
	"concurrency": func(d *frame.Definition, n *yaml.Node) (err error) {
		d.Concurrency, err = number(n, 1, 1000)
		return err
	},
	"attempts": func(d *frame.Definition, n *yaml.Node) (err error) { d.Attempts, err = number(n, 1, 100); return err },
	"backoff": func(d *frame.Definition, n *yaml.Node) (err error) {
		d.Backoff, err = span(n, time.Second, time.Hour)
		return err
	},
	"env": func(d *frame.Definition, n *yaml.Node) (err error) { d.Env, err = readEnv(n); return err },
	"secrets": func(d *frame.Definition, n *yaml.Node) (err error) {
		d.Secrets, err = names(n, maxVariables, checkVariable)
		return err
	},
	"keep": func(d *frame.Definition, n *yaml.Node) (err error) { d.Keep, err = number(n, 1, 100_000); return err },
}

// complete gives a job its defaults. given are its members.
func complete(d *frame.Definition, given map[string]*yaml.Node) error {
	if err := checkName(d.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if strings.Trim(d.Name, "0123456789") == "" {
		return fmt.Errorf("name: %q is a number, as runs have one; want a letter in it", d.Name)
	}
	if d.Image == "" && len(d.Command) == 0 {
		return fmt.Errorf("the job %q needs an image, a command, or both", d.Name)
	}
	for _, name := range d.Secrets {
		if _, twice := d.Env[name]; twice {
			return fmt.Errorf("the job %q has %s in env and in secrets", d.Name, name)
		}
	}
	attempts := manualAttempts
	if d.On == frame.File {
		attempts = fileAttempts
	}
	for name, set := range map[string]func(){
		"timeout":     func() { d.Timeout = frame.Seconds(defaultTimeout) },
		"grace":       func() { d.Grace = frame.Seconds(defaultGrace) },
		"backoff":     func() { d.Backoff = frame.Seconds(defaultBackoff) },
		"concurrency": func() { d.Concurrency = defaultParallel },
		"attempts":    func() { d.Attempts = attempts },
		"keep":        func() { d.Keep = defaultKeep },
	} {
		if given[name] == nil {
			set()
		}
	}
	return nil
}

// checkName says why a text cannot be the name of a job, a label or a runner.
func checkName(name string) error {
	ok := name != "" && len(name) <= maxName
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._-", c) >= 0)
	}
	if !ok || name == "." || name == ".." {
		return fmt.Errorf("%q: want 1 to %d letters, digits, '.', '_' and '-'", shorten(name), maxName)
	}
	return nil
}

// checkVariable says why a text cannot be the name of a variable. Those that begin with
// ADP_ are the runner's.
func checkVariable(name string) error {
	ok := name != "" && len(name) <= maxName && (name[0] < '0' || name[0] > '9')
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_')
	}
	switch {
	case !ok:
		return fmt.Errorf("%q: want the name of a variable, 1 to %d letters, digits and '_'", shorten(name), maxName)
	case strings.HasPrefix(name, "ADP_"):
		return fmt.Errorf("%q: what begins with ADP_ is set by the runner", name)
	}
	return nil
}

// scalar returns a plain value as text.
func scalar(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || yamldoc.IsNull(n) {
		return "", errors.New("want a plain value")
	}
	return n.Value, nil
}

// text is scalar for what a process gets.
func text(n *yaml.Node) (string, error) {
	t, err := scalar(n)
	switch {
	case err != nil:
		return "", err
	case len(t) > maxText:
		return "", fmt.Errorf("a text is longer than %d KiB", maxText>>10)
	case strings.ContainsRune(t, 0):
		return "", errors.New("a text has a zero byte")
	}
	return t, nil
}

func number(n *yaml.Node, least, most int) (int, error) {
	t, err := scalar(n)
	if err != nil {
		return 0, err
	}
	v, err := strconv.Atoi(t)
	if err != nil || v < least || v > most {
		return 0, fmt.Errorf("want a whole number from %d to %d", least, most)
	}
	return v, nil
}

func span(n *yaml.Node, least, most time.Duration) (frame.Seconds, error) {
	t, err := scalar(n)
	if err != nil {
		return 0, err
	}
	v, err := time.ParseDuration(t)
	if whole, days := strings.CutSuffix(t, "d"); err != nil && days { // as settings have it
		var d int
		if d, err = strconv.Atoi(whole); err == nil && d >= 0 && d <= math.MaxInt16 {
			v = time.Duration(d) * 24 * time.Hour
		}
	}
	if err != nil || v < least || v > most {
		return 0, fmt.Errorf("want a number with a unit, for example 30s or 10m, from %s to %s", spanText(least), spanText(most))
	}
	return frame.Seconds(v), nil
}

// spanText is a duration as people write it in the file.
func spanText(d time.Duration) string {
	if day := 24 * time.Hour; d > 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	for _, rest := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, rest) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// names reads a list of different names; a plain value is a list of one.
func names(n *yaml.Node, most int, check func(string) error) (list []string, err error) {
	content := n.Content
	if n.Kind == yaml.ScalarNode && !yamldoc.IsNull(n) {
		content = []*yaml.Node{n}
	} else if n.Kind != yaml.SequenceNode {
		return nil, errors.New("want a list of names")
	}
	if len(content) > most {
		return nil, fmt.Errorf("want at most %d names", most)
	}
	for _, item := range content {
		name, err := scalar(yamldoc.Resolved(item))
		if err == nil {
			err = check(name)
		}
		switch {
		case err != nil:
			return nil, err
		case slices.Contains(list, name):
			return nil, fmt.Errorf("%q is here twice", name)
		}
		list = append(list, name)
	}
	return list, nil
}

func readOn(n *yaml.Node) (string, error) {
	t, err := scalar(n)
	if err != nil || t != frame.Manual && t != frame.File {
		return "", errors.New("want manual or file")
	}
	return t, nil
}

// readImage refuses what the command line of docker would take for an option.
func readImage(n *yaml.Node) (string, error) {
	t, err := scalar(n)
	ok := err == nil && t != "" && len(t) <= maxImage && t[0] != '-'
	for _, c := range []byte(t) {
		ok = ok && c > ' ' && c < 0x7f
	}
	if !ok {
		return "", fmt.Errorf("want the name of an image, at most %d bytes without blanks", maxImage)
	}
	return t, nil
}

// readCommand reads the arguments of a process; a plain value is one.
func readCommand(n *yaml.Node) (command []string, err error) {
	content := n.Content
	if n.Kind == yaml.ScalarNode && !yamldoc.IsNull(n) {
		content = []*yaml.Node{n}
	} else if n.Kind != yaml.SequenceNode {
		return nil, errors.New("want a list of arguments, or one")
	}
	if len(content) == 0 || len(content) > maxArguments {
		return nil, fmt.Errorf("want 1 to %d arguments", maxArguments)
	}
	for _, item := range content {
		t, err := text(yamldoc.Resolved(item))
		if err != nil {
			return nil, err
		}
		command = append(command, t)
	}
	if command[0] == "" {
		return nil, errors.New("the first argument is empty")
	}
	return command, nil
}

func readEnv(n *yaml.Node) (map[string]string, error) {
	if n.Kind != yaml.MappingNode {
		return nil, errors.New("want a map of variables")
	}
	if len(n.Content) > 2*maxVariables {
		return nil, fmt.Errorf("want at most %d variables", maxVariables)
	}
	env := make(map[string]string)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, err := scalar(yamldoc.Resolved(n.Content[i]))
		if err == nil {
			err = checkVariable(name)
		}
		if err != nil {
			return nil, err
		}
		if _, twice := env[name]; twice {
			return nil, fmt.Errorf("%s is here twice", name)
		}
		if env[name], err = text(yamldoc.Resolved(n.Content[i+1])); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return env, nil
}
