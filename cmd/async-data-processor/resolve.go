package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"async-data-processor/pipeline"
)

// given is what a setting is given by something other than its flag.
type given struct {
	values []string // none: it is not set
	list   bool     // each of the values is an element, as it stands
	source string   // the variable or the file
	at     string   // the source for an error, with the line if there is one
}

// resolve fills the flags that the command line left out, from the environment
// or else from the file. It returns where each set one came from.
func resolve(flags *pflag.FlagSet, lookup lookupEnv, file string) (sources map[string]string, err error) {
	if file == "" {
		file, _ = lookup("CONFIG_FILE")
		file, _ = parsePath(file) // without blanks
	}
	inFile, err := readConfigFile(file)
	if err != nil {
		return nil, err
	}
	sources = make(map[string]string)
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Annotations[annEnv] == nil {
			return // not a setting
		}
		if f.Changed {
			sources[f.Name] = "flag"
			return
		}
		g, err := fromEnv(f, lookup)
		if err == nil && len(g.values) == 0 {
			g = inFile[f.Name]
		}
		if err == nil && len(g.values) > 0 {
			sources[f.Name] = g.source
			err = set(flags, f, g)
		}
		if err != nil {
			errs = append(errs, err)
		}
	})
	errs = append(errs, setPort(flags, lookup, sources))
	return sources, errors.Join(errs...)
}

// setPort lets the variable PORT, which many platforms set, change the port of
// the address to listen on, unless something stronger gave the whole address.
func setPort(flags *pflag.FlagSet, lookup lookupEnv, sources map[string]string) error {
	const name, variable = "listen", "PORT"
	f := flags.Lookup(name)
	port, _ := lookup(variable)
	port = strings.TrimSpace(port)
	if f == nil || port == "" || sources[name] == "flag" || slices.Contains(f.Annotations[annEnv], sources[name]) {
		return nil
	}
	host, _, err := net.SplitHostPort(f.Value.String())
	if err != nil {
		return nil // Validate will say so
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("--%s, from %s: %q: want the number of a port", name, variable, port)
	}
	sources[name] = variable
	return set(flags, f, given{values: []string{net.JoinHostPort(host, port)}, at: variable})
}

// set is flags.Set with an error that tells the source and keeps secrets.
func set(flags *pflag.FlagSet, f *pflag.Flag, g given) error {
	list, ok := f.Value.(pflag.SliceValue)
	var err error
	switch {
	case ok && g.list:
		if err = list.Replace(g.values); err == nil {
			f.Changed = true
		}
	case len(g.values) > 1:
		err = errors.New("want one value")
	default:
		err = flags.Set(f.Name, g.values[0])
	}
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		err = errors.Unwrap(invalid) // without the value and the flag, which stand here already
	}
	if f.Annotations[annSecret] != nil { // whose own errors hold no value
		return fmt.Errorf("--%s, from %s: %w", f.Name, g.at, err)
	}
	return fmt.Errorf("--%s, from %s: %q: %w", f.Name, g.at, g.values[0], err)
}

// fromEnv returns what the strongest variable of f says. One that is blank says
// nothing; but that of a list of secrets is an error then, because without it the
// program would be open to everybody.
func fromEnv(f *pflag.Flag, lookup lookupEnv) (given, error) {
	for _, name := range f.Annotations[annEnv] {
		value, named := lookup(name)
		path, filed := "", false
		if f.Annotations[annSecret] != nil {
			path, filed = lookup(name + "_FILE")
		}
		isSet, isFile := strings.TrimSpace(value) != "", strings.TrimSpace(path) != ""
		switch {
		case isSet && isFile:
			return given{}, fmt.Errorf("both %s and %s_FILE are set, unset one of them", name, name)
		case isSecretList(f) && named && !isSet:
			return given{}, fmt.Errorf("%s: %w", name, errEmpty)
		case isSecretList(f) && filed && !isFile:
			return given{}, fmt.Errorf("%s_FILE: %w", name, errEmpty)
		case isSet:
			return given{values: []string{value}, source: name, at: name}, nil
		case isFile:
			lines, err := secretLines(path)
			if err != nil {
				return given{}, fmt.Errorf("%s_FILE: %w", name, err)
			}
			return given{values: lines, list: true, source: name + "_FILE", at: name + "_FILE"}, nil
		}
	}
	return given{}, nil
}

// secretLines reads a file of secrets, one a line. Blank lines, and comments that
// begin with #, do not count, nor do blanks around a secret and a byte order mark.
func secretLines(path string) (lines []string, err error) {
	path, _ = parsePath(path)
	if err := pipeline.CheckPath(path); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s: %w", path, errEmpty)
	}
	return lines, nil
}

// printConfig prints the settings as a file that --config would take, but for
// the secrets.
func printConfig(w io.Writer, flags *pflag.FlagSet, sources map[string]string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Annotations[annEnv] == nil {
			return
		}
		if isSecretList(f) {
			fmt.Fprint(w, "# ") // "(redacted)" would be read as a secret that is known to all
		}
		fmt.Fprintf(w, "%s: %s # %s\n", f.Name, display(f), cmp.Or(sources[f.Name], "default"))
	})
}

// shown returns the settings as the process shows them, in the order of the help.
func shown(flags *pflag.FlagSet) (all []pipeline.Setting) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Annotations[annEnv] == nil {
			return
		}
		s := pipeline.Setting{Name: f.Name, Variable: f.Annotations[annEnv][0], Value: redacted(f), Default: f.Value.String() == f.DefValue}
		if isSecretList(f) && !s.Default {
			s.Value = "(set)"
		}
		all = append(all, s)
	})
	return all
}

// redacted returns a flag's value without secrets; nothing of a list of them.
func redacted(f *pflag.Flag) string {
	text := f.Value.String()
	switch {
	case isSecretList(f):
		return ""
	case slices.Contains(f.Annotations[annSecret], "management"):
		return pipeline.RedactManagementURL(text)
	case slices.Contains(f.Annotations[annSecret], "state"):
		return pipeline.RedactStateURL(text)
	case f.Annotations[annSecret] != nil:
		return pipeline.RedactURL(text)
	}
	return text
}

// display returns a flag's value as YAML, without secrets.
func display(f *pflag.Flag) string {
	text := redacted(f)
	switch {
	case isSecretList(f) && f.Value.String() == "":
		return "none"
	case isSecretList(f):
		return "(redacted)"
	case f.Annotations[annSecret] == nil && f.Value.Type() != "string":
		return text // numbers, durations and booleans need no quotes
	}
	quoted, err := yaml.Marshal(text)
	if err != nil {
		return text // cannot happen with a string
	}
	return strings.TrimSpace(string(quoted))
}
