package main

import (
	"fmt"
	"io"
	"maps"
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
		meant := nearest(name, guesses)
		// With the right one there, the other may be another program's.
		if right, _ := lookup(meant); meant != "" && strings.TrimSpace(right) == "" {
			found = append(found, warning{name, "the variable is not read; is " + meant + " meant?"})
		}
	}
	return found
}

// variables returns those that the program reads, and which of them is meant by what a
// user may write instead, as the plain form of it: the name of a flag, for example.
func variables() (known []string, guesses map[string]string) {
	known = []string{"PORT", "CONFIG_FILE"}
	guesses = map[string]string{plainName("CONFIG_FILE"): "CONFIG_FILE", plainName("DATA_DIR"): "DATA_OUTPUT_DIR"}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addSettings(flags, &pipeline.Config{}, forAny)
	flags.VisitAll(func(f *pflag.Flag) {
		guesses[plainName(f.Name)] = f.Annotations[annEnv][0]
	})
	flags.VisitAll(func(f *pflag.Flag) { // these are stronger
		for _, name := range f.Annotations[annEnv] {
			known = append(known, name)
			if f.Annotations[annSecret] != nil {
				known = append(known, name+"_FILE")
			}
		}
	})
	for _, name := range known[1:] { // PORT has too many neighbours
		guesses[plainName(name)] = name
	}
	return known, guesses
}

// plainForm removes what people write one way or another.
var plainForm = strings.NewReplacer("_", "", "-", "", "ADDRESS", "ADDR", "CERTIFICATE", "CERT", "DIRECTORY", "DIR", "SIZE", "BYTES")

// plainName returns the name of a variable in a form to compare: without separators, and
// without the name of the program before it.
func plainName(name string) string {
	name = strings.ToUpper(name)
	for _, program := range []string{"ADP_", "ASYNC_DATA_PROCESSOR_"} {
		name = strings.TrimPrefix(name, program)
	}
	return plainForm.Replace(name)
}

// nearest returns the variable whose plain name differs from that of name in at most two
// letters; or "". Short names have too many neighbours, so they must be equal.
func nearest(name string, guesses map[string]string) string {
	const (
		most     = 2
		shortest = 6
	)
	if ofService(name) {
		return ""
	}
	name = plainName(name)
	if meant := guesses[name]; meant != "" || len(name) < shortest {
		return meant
	}
	best, least := "", most+1
	for _, plain := range slices.Sorted(maps.Keys(guesses)) {
		if len(plain) >= shortest && max(len(plain)-len(name), len(name)-len(plain)) < least {
			if d := distance(name, plain); d < least {
				best, least = guesses[plain], d
			}
		}
	}
	return best
}

// ofService tells whether Kubernetes gives a variable of this form to every container of
// a namespace: where one of its services is. NATS_PORT is two letters from NATS_CERT.
func ofService(name string) bool {
	return strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_PORT_") || strings.Contains(name, "_SERVICE_")
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
