package main

import (
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

// lookupEnv is os.LookupEnv or a test's.
type lookupEnv func(name string) (value string, ok bool)

// groups are the parts of the program that a setting is for.
type groups uint8

const (
	forServer groups = 1 << iota
	forConsumer
	forAdmin   // a process without a server has its health endpoints elsewhere
	forLetters // who looks after dead letters needs the broker only

	forBoth   = forServer | forConsumer
	forBroker = forBoth | forLetters
	forAny    = forBroker | forAdmin
)

// Annotations of a flag.
const (
	annEnv    = "env"    // the variables that set it, the strongest first
	annSecret = "secret" // "url" or "value": how it is redacted; the variables have _FILE twins
)

// settings adds flags that fill a configuration.
type settings struct {
	flags  *pflag.FlagSet
	wanted groups
}

// addSettings defines the flags of the wanted groups; what is in cfg is their
// default.
func addSettings(flags *pflag.FlagSet, cfg *pipeline.Config, wanted groups) {
	s := settings{flags, wanted}
	str, strs, num := (*pflag.FlagSet).StringVar, (*pflag.FlagSet).StringSliceVar, (*pflag.FlagSet).IntVar
	dur, yes := (*pflag.FlagSet).DurationVar, (*pflag.FlagSet).BoolVar

	add(s, forBroker, str, &cfg.BrokerURL, "broker-url", "BROKER_URL RABBITMQ_URL", "url", "the broker: amqp[s]://…, nats://…, tls://…, or embedded:<folder>")
	add(s, forBoth, num, &cfg.Shards, "shards", "SHARDS_COUNT", "", "number of shards, the same for every process of a broker")

	add(s, forBoth, sizeVar, &cfg.EmbeddedMinFree, "embedded-min-free", "EMBEDDED_MIN_FREE", "", "bytes of disk that an embedded broker keeps free; below it, 503")
	add(s, forBroker, num, &cfg.Replicas, "jetstream-replicas", "JETSTREAM_REPLICAS", "", "copies that a JetStream cluster keeps of a stream made by us")
	add(s, forBroker, str, &cfg.NATSCreds, "nats-creds", "NATS_CREDS", "", "credentials file for a NATS server")
	add(s, forBroker, str, &cfg.NATSCA, "nats-ca", "NATS_CA", "", "file of the authorities that a NATS server's certificate may come from")
	add(s, forBroker, str, &cfg.NATSCert, "nats-cert", "NATS_CERT", "", "client certificate file for a NATS server")
	add(s, forBroker, str, &cfg.NATSKey, "nats-key", "NATS_KEY", "", "key file of that certificate")

	add(s, forServer, str, &cfg.Listen, "listen", "LISTEN_ADDR", "", "address to serve HTTP on; the variable PORT sets its port alone")
	add(s, forServer, strs, &cfg.AuthTokens, "auth-tokens", "AUTH_TOKENS", "value", "bearer tokens that may submit, comma-separated; without any, everybody may")
	add(s, forServer, sizeVar, &cfg.MaxInFlight, "max-in-flight-bytes", "MAX_IN_FLIGHT_BYTES", "", "bytes of request bodies held at a time; beyond it, 429")

	add(s, forConsumer, str, &cfg.OutputDir, "output-dir", "DATA_OUTPUT_DIR", "", "folder of the files, made if missing")
	add(s, forConsumer, sizeVar, &cfg.OutputMinFree, "output-min-free", "OUTPUT_MIN_FREE", "", "bytes of its disk kept free; below it, not ready, and 503 of standalone")
	add(s, forConsumer, dur, &cfg.OutputErrorTimeout, "output-error-timeout", "OUTPUT_ERROR_TIMEOUT", "", "how long it may fail before the process ends; a full disk may for ever")
	add(s, forConsumer, num, &cfg.DedupeIDs, "dedupe-ids", "DEDUPE_IDS", "", "ids that a shard remembers as written; one that comes again is not written again")
	add(s, forConsumer, dur, &cfg.DedupeWindow, "dedupe-window", "DEDUPE_WINDOW", "", "how long it remembers them")
	add(s, forConsumer, num, &cfg.BatchSize, "batch-size", "BATCH_SIZE", "", "messages of a full batch, which is a file unless files roll")
	add(s, forConsumer, sizeVar, &cfg.RollBytes, "roll-bytes", "ROLL_BYTES", "", "append batches to one file a shard, published when it is so large; 0: a file per batch")
	add(s, forConsumer, dur, &cfg.RollInterval, "roll-interval", "ROLL_INTERVAL", "", "or when it is so old, 1m if only the size is set; 0: a file per batch")
	add(s, forConsumer, dur, &cfg.BatchLinger, "batch-linger", "BATCH_LINGER", "", "how long an incomplete batch waits, from its first message")
	add(s, forConsumer, num, &cfg.WorkersMin, "workers-min", "WORKERS_MIN", "", "workers of a shard at rest")
	add(s, forConsumer, num, &cfg.WorkersMax, "workers-max", "WORKERS_MAX", "", "workers of a shard while batches wait")
	add(s, forConsumer, dur, &cfg.WorkerTimeout, "worker-timeout", "WORKER_TIMEOUT", "", "how long writing what a worker took at once may take before the worker is given up")
	add(s, forConsumer, dur, &cfg.HistoryInterval, "history-interval", "HISTORY_INTERVAL", "", "how often changed worker histories are logged")
	add(s, forAdmin, str, &cfg.AdminListen, "admin-listen", "ADMIN_LISTEN_ADDR", "", "address of /livez, /readyz and /health")

	add(s, forBoth, yes, &cfg.Pprof, "pprof", "PPROF", "", "serve the profiles of the process at /debug/pprof/ beside the health endpoints")
	add(s, forBoth, yes, &cfg.InsecureNoAuth, "insecure-no-auth", "INSECURE_NO_AUTH", "", "listen beyond loopback although no token protects it")
	add(s, forBoth, dur, &cfg.DrainTimeout, "drain-timeout", "DRAIN_TIMEOUT", "", "how long the orderly stop may take; then exit 3")
	add(s, forBoth, str, &cfg.LogLevel, "log-level", "LOG_LEVEL", "", "trace, debug, info, warn or error")
	add(s, forBoth, str, &cfg.LogFormat, "log-format", "LOG_FORMAT", "", "json, console, or auto: console on a terminal")
}

// add defines one flag, if its group is wanted.
func add[T any](s settings, g groups, define func(fs *pflag.FlagSet, p *T, name string, value T, usage string),
	field *T, name, env, secret, usage string,
) {
	if g&s.wanted == 0 {
		return
	}
	variables := strings.Fields(env)
	define(s.flags, field, name, *field, fmt.Sprintf("%s (%s)", usage, strings.Join(variables, ", ")))
	f := s.flags.Lookup(name)
	f.Annotations = map[string][]string{annEnv: variables}
	if secret != "" {
		f.Annotations[annSecret] = []string{secret}
	}
}

// resolve fills the flags that the command line left out, from the environment
// or else from the file. It returns where each set one came from.
func resolve(flags *pflag.FlagSet, lookup lookupEnv, file string) (sources map[string]string, err error) {
	if file == "" {
		file, _ = lookup("CONFIG_FILE")
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
		value, source, err := fromEnv(f, lookup)
		if source == "" && err == nil {
			if v, ok := inFile[f.Name]; ok {
				value, source = v, file
			}
		}
		if err == nil && source != "" {
			sources[f.Name] = source
			err = set(flags, f, value, source)
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
	return set(flags, f, net.JoinHostPort(host, port), variable)
}

// set is flags.Set with an error that tells the source and keeps secrets.
func set(flags *pflag.FlagSet, f *pflag.Flag, value, source string) error {
	err := flags.Set(f.Name, value)
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		err = errors.Unwrap(invalid) // without the value and the flag, which stand here already
	}
	if f.Annotations[annSecret] != nil {
		return fmt.Errorf("--%s, from %s: the value cannot be read", f.Name, source)
	}
	return fmt.Errorf("--%s, from %s: %q: %w", f.Name, source, value, err)
}

// fromEnv returns the value of the strongest variable of f that is set to
// something, and its name.
func fromEnv(f *pflag.Flag, lookup lookupEnv) (value, source string, err error) {
	for _, name := range f.Annotations[annEnv] {
		value, _ := lookup(name)
		var path string
		if f.Annotations[annSecret] != nil {
			path, _ = lookup(name + "_FILE")
		}
		switch {
		case value != "" && path != "":
			return "", "", fmt.Errorf("both %s and %s_FILE are set, unset one of them", name, name)
		case value != "":
			return value, name, nil
		case path != "":
			secret, err := os.ReadFile(path)
			if err != nil {
				return "", "", fmt.Errorf("%s_FILE: %w", name, err)
			}
			// One token a line; neither URLs nor tokens hold white space.
			return strings.Join(strings.Fields(string(secret)), ","), name + "_FILE", nil
		}
	}
	return "", "", nil
}

// readConfigFile returns the settings in a YAML file by the names of their
// flags; none if there is no file.
func readConfigFile(path string) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	var nodes map[string]yaml.Node
	if err := yaml.Unmarshal(text, &nodes); err != nil {
		return nil, fmt.Errorf("--config %s: %w", path, err)
	}
	// A file may be shared by both commands, so it may hold settings of either.
	known := pflag.NewFlagSet("", pflag.ContinueOnError)
	addSettings(known, &pipeline.Config{}, forAny)
	values := make(map[string]string, len(nodes))
	var errs []error
	for key, node := range nodes {
		value, ok := scalar(node)
		switch {
		case known.Lookup(key) == nil:
			errs = append(errs, fmt.Errorf("--config %s, line %d: there is no setting %q; they are named as the flags", path, node.Line, key))
		case !ok:
			errs = append(errs, fmt.Errorf("--config %s, line %d: %s must be a plain value or a list of them", path, node.Line, key))
		}
		values[key] = value
	}
	return values, errors.Join(errs...)
}

// scalar returns the text of a plain value, or of a list of plain values.
func scalar(node yaml.Node) (text string, ok bool) {
	switch node.Kind {
	case yaml.ScalarNode:
		return node.Value, true
	case yaml.SequenceNode:
		var parts []string
		for _, n := range node.Content {
			if n.Kind != yaml.ScalarNode {
				return "", false
			}
			parts = append(parts, n.Value)
		}
		return strings.Join(parts, ","), true
	}
	return "", false
}

// printConfig prints the settings as a file that --config would take, but for
// the secrets.
func printConfig(w io.Writer, flags *pflag.FlagSet, sources map[string]string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Annotations[annEnv] == nil {
			return
		}
		source := sources[f.Name]
		if source == "" {
			source = "default"
		}
		fmt.Fprintf(w, "%s: %s # %s\n", f.Name, display(f), source)
	})
}

// display returns a flag's value as YAML, without secrets.
func display(f *pflag.Flag) string {
	text := f.Value.String()
	switch secret := f.Annotations[annSecret]; {
	case f.Value.Type() == "stringSlice" && text == "[]":
		return text
	case len(secret) > 0 && secret[0] == "url":
		text = pipeline.RedactURL(text)
	case len(secret) > 0 && text != "":
		text = "(redacted)"
	case f.Value.Type() != "string":
		return text // numbers, durations and booleans need no quotes
	}
	quoted, err := yaml.Marshal(text)
	if err != nil {
		return text // cannot happen with a string
	}
	return strings.TrimSpace(string(quoted))
}
