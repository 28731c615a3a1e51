package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"async-data-processor/pipeline"
)

// variablesSet returns the names of the variables that the process has.
func variablesSet() (names []string) {
	for _, line := range os.Environ() {
		if name, _, ok := strings.Cut(line, "="); ok {
			names = append(names, name)
		}
	}
	return names
}

// removed are variables that earlier versions read.
var removed = map[string]string{
	"EMBEDDED_LISTEN":      embeddedAlone,
	"EMBEDDED_TOKEN":       embeddedAlone,
	"EMBEDDED_TOKEN_FILE":  embeddedAlone,
	"EMBEDDED_ACCEPT_LOSS": "a damaged store is never opened; see 'store salvage'",
}

const embeddedAlone = "an embedded broker belongs to one process; several processes need RabbitMQ or a nats-server"

// warning is about a variable that looks as if it were meant for this program, which
// does not read it.
type warning struct{ variable, text string }

// warn prints the warnings, for a command without a log.
func warn(out io.Writer, lookup lookupEnv) {
	for _, w := range warnings(variablesSet(), lookup) {
		fmt.Fprintf(out, "Warning: %s: %s\n", w.variable, w.text)
	}
}

// warnings returns what to warn of, sorted by the variables. Values never appear.
func warnings(names []string, lookup lookupEnv) (found []warning) {
	known, guesses := variables()
	for _, name := range slices.Sorted(slices.Values(names)) {
		if slices.Contains(known, name) {
			continue
		}
		if why, ok := removed[name]; ok {
			found = append(found, warning{name, "the variable is not read any more: " + why})
			continue
		}
		meant := guesses[name]
		if meant == "" {
			meant = nearest(name, known)
		}
		// With the right one there, the other may be another program's.
		if right, _ := lookup(meant); meant != "" && strings.TrimSpace(right) == "" {
			found = append(found, warning{name, "the variable is not read; is " + meant + " meant?"})
		}
	}
	return found
}

// variables returns those that the program reads, and what is meant by a name that
// is a flag's, as OUTPUT_DIR is.
func variables() (known []string, guesses map[string]string) {
	known, guesses = []string{"CONFIG_FILE", "PORT"}, map[string]string{}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addSettings(flags, &pipeline.Config{}, forAny)
	flags.VisitAll(func(f *pflag.Flag) {
		for _, name := range f.Annotations[annEnv] {
			known = append(known, name)
			if f.Annotations[annSecret] != nil {
				known = append(known, name+"_FILE")
			}
		}
		guesses[strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))] = f.Annotations[annEnv][0]
	})
	return known, guesses
}

// nearest returns the known name that differs from name in few characters, one in six
// at most; or "". Short names have too many neighbours.
func nearest(name string, known []string) string {
	const shortest = 8
	best, least := "", len(name)/6+1
	if len(name) < shortest {
		return ""
	}
	for _, k := range known {
		if len(k) >= shortest && max(len(k)-len(name), len(name)-len(k)) < least {
			if d := distance(strings.ToUpper(name), k); d < least {
				best, least = k, d
			}
		}
	}
	return best
}

// distance is Levenshtein's: the fewest insertions, deletions and changes of a byte
// that make b of a. A module for these lines would be more to keep than they are.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
