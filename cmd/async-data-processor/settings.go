package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

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
	annSecret = "secret" // "url", "management", "state" or "value": how it is redacted; the variables have _FILE twins
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
	str, path, word, strs := textVar, pathVar, wordVar, wordsVar
	num, dur, yes := numberVar, spanVar, yesVar

	add(s, forBroker, str, &cfg.BrokerURL, "broker-url", "BROKER_URL RABBITMQ_URL", "url", "the broker: amqp[s]://…, nats://…, tls://…, or embedded:<folder>")
	add(s, forBoth, num, &cfg.Shards, "shards", "SHARDS_COUNT", "", "number of shards, the same for every process of a broker")

	add(s, forBoth, str, &cfg.NodeName, "node-name", "NODE_NAME", "", "name of this process among the others of its system; default: the host's")
	add(s, forBroker, str, &cfg.RabbitMQManagement, "rabbitmq-management-url", "RABBITMQ_MANAGEMENT_URL", "management", "http[s]://user:password@host:15672 of RabbitMQ, to look for policies that throw messages away")
	add(s, forBoth, sizeVar, &cfg.EmbeddedMinFree, "embedded-min-free", "EMBEDDED_MIN_FREE", "", "bytes of disk that an embedded broker keeps free; below it, 503")
	add(s, forServer, yes, &cfg.IntakeOnly, "intake-only", "INTAKE_ONLY", "", "let server run over an embedded broker, although nothing consumes beside it")
	add(s, forBroker, num, &cfg.Replicas, "jetstream-replicas", "JETSTREAM_REPLICAS", "", "copies that a JetStream cluster keeps of a stream made by us")
	add(s, forBroker, path, &cfg.NATSCreds, "nats-creds", "NATS_CREDS", "", "credentials file for a NATS server")
	add(s, forBroker, path, &cfg.NATSCA, "nats-ca", "NATS_CA", "", "file of the authorities that a NATS server's certificate may come from")
	add(s, forBroker, path, &cfg.NATSCert, "nats-cert", "NATS_CERT", "", "client certificate file for a NATS server")
	add(s, forBroker, path, &cfg.NATSKey, "nats-key", "NATS_KEY", "", "key file of that certificate")

	add(s, forServer, str, &cfg.Listen, "listen", "LISTEN_ADDR", "", "address to serve HTTP on; the variable PORT sets its port alone")
	add(s, forServer, strs, &cfg.CORSOrigins, "cors-origins", "CORS_ORIGINS", "", "origins whose pages may post, comma-separated, for example https://app.example.com")
	add(s, forServer, sizeVar, &cfg.MaxInFlight, "max-in-flight-bytes", "MAX_IN_FLIGHT_BYTES", "", "bytes of request bodies held at a time; beyond it, 429")
	add(s, forServer, sizeVar, &cfg.MaxInFlightPerClient, "max-in-flight-per-client", "MAX_IN_FLIGHT_PER_CLIENT", "", "bytes of request bodies held at a time for one token or, without tokens, one address; 0: half of the above")
	add(s, forServer, num, &cfg.MaxConnections, "max-connections", "MAX_CONNECTIONS", "", "open connections, half of them for one address; 0: what the limit of open files leaves")
	add(s, forBoth, dur, &cfg.IdleTimeout, "idle-timeout", "IDLE_TIMEOUT", "", "how long a connection may wait for its next request; more than that of a balancer")
	add(s, forBoth, str, &cfg.TimestampField, "timestamp-field", "TIMESTAMP_FIELD", "", "where an entry has its timestamp: a member's name, or a JSON pointer")
	add(s, forBoth, word, &cfg.TimestampDefault, "timestamp-default", "TIMESTAMP_DEFAULT", "", "arrival: take entries without a timestamp")
	add(s, forBoth, yes, &cfg.AnyValue, "any-value", "ANY_VALUE", "", "take any JSON value for value, not only a string")

	add(s, forBoth, word, &cfg.Live, "live", "LIVE", "", "on, or off to show no messages to viewers")
	add(s, forBoth, strs, &cfg.LiveRedact, "live-redact", "LIVE_REDACT", "", "JSON pointers, comma-separated: viewers see a mask in place of the values there")
	add(s, forBoth, word, &cfg.LivePayload, "live-payload", "LIVE_PAYLOAD", "", "full, or none to show viewers nothing of entries")

	add(s, forConsumer, path, &cfg.OutputDir, "output-dir", "DATA_OUTPUT_DIR", "", "folder of the files, made if missing")
	add(s, forConsumer, sizeVar, &cfg.OutputMinFree, "output-min-free", "OUTPUT_MIN_FREE", "", "bytes of its disk kept free; below it, not ready, and 503 of standalone")
	add(s, forConsumer, dur, &cfg.OutputErrorTimeout, "output-error-timeout", "OUTPUT_ERROR_TIMEOUT", "", "how long it may fail before the process ends; a full disk may for ever")
	add(s, forConsumer, num, &cfg.DedupeIDs, "dedupe-ids", "DEDUPE_IDS", "", "ids that a shard remembers as written; one that comes again is not written again")
	add(s, forConsumer, dur, &cfg.DedupeWindow, "dedupe-window", "DEDUPE_WINDOW", "", "how long a shard remembers written ids beyond the newest, which it keeps at any age")
	add(s, forConsumer, num, &cfg.BatchSize, "batch-size", "BATCH_SIZE", "", "messages of a full batch, which is a file unless files roll")
	add(s, forConsumer, sizeVar, &cfg.RollBytes, "roll-bytes", "ROLL_BYTES", "", "append batches to one file a shard, published when it is so large; 0: a file per batch")
	add(s, forConsumer, dur, &cfg.RollInterval, "roll-interval", "ROLL_INTERVAL", "", "or when it is so old, 1m if only the size is set; 0: a file per batch")
	add(s, forConsumer, dur, &cfg.BatchLinger, "batch-linger", "BATCH_LINGER", "", "how long an incomplete batch waits, from its first message")
	add(s, forConsumer, num, &cfg.WorkersMin, "workers-min", "WORKERS_MIN", "", "workers of a shard at rest")
	add(s, forConsumer, num, &cfg.WorkersMax, "workers-max", "WORKERS_MAX", "", "workers of a shard while batches wait")
	add(s, forConsumer, dur, &cfg.WorkerTimeout, "worker-timeout", "WORKER_TIMEOUT", "", "how long writing what a worker took at once may take before the worker is given up")
	add(s, forConsumer, dur, &cfg.HistoryInterval, "history-interval", "HISTORY_INTERVAL", "", "how often changed worker histories are logged")
	add(s, forServer, path, &cfg.Jobs, "jobs", "JOBS", "", "YAML file of jobs that runners run; read again when it changes")
	add(s, forBoth, str, &cfg.StateURL, "state-url", "STATE_URL", "state", "the database of jobs: sqlite:<file> or postgres://…; "+pipeline.DefaultStateURL+" with --jobs")
	add(s, forAdmin, str, &cfg.AdminListen, "admin-listen", "ADMIN_LISTEN_ADDR", "", "address of /livez, /readyz and /health")

	add(s, forBoth, strs, &cfg.AllowedHosts, "allowed-hosts", "ALLOWED_HOSTS", "", "names of this process in requests, beside localhost, IP addresses and the name it listens at")
	add(s, forBoth, str, &cfg.BasePath, "base-path", "BASE_PATH", "", "path below which everything is served, for example /adp; health endpoints also answer without it")
	add(s, forBoth, path, &cfg.TLSCert, "tls-cert", "TLS_CERT", "", "certificate file, to serve HTTPS and HTTP/2; read again when it changes")
	add(s, forBoth, path, &cfg.TLSKey, "tls-key", "TLS_KEY", "", "key file of that certificate")
	add(s, forBoth, strs, &cfg.AuthTokens, "auth-tokens", "AUTH_TOKENS", "value", "bearer tokens that may submit and follow it, comma-separated, each token or name:token; without any, everybody may submit")
	add(s, forBoth, strs, &cfg.ViewTokens, "view-tokens", "VIEW_TOKENS", "value", "bearer tokens that may see why a check fails, metrics and profiles; each token or name:token")
	add(s, forBoth, strs, &cfg.AdminTokens, "admin-tokens", "ADMIN_TOKENS", "value", "bearer tokens that may do all, also send commands; each token or name:token")
	add(s, forServer, strs, &cfg.RunnerTokens, "runner-tokens", "RUNNER_TOKENS", "value", "bearer tokens of runners of jobs, each token or name:token; without any, they need one that may do all")
	add(s, forBoth, yes, &cfg.ReadOnly, "read-only", "READ_ONLY", "", "refuse every command")
	add(s, forBoth, yes, &cfg.Pprof, "pprof", "PPROF", "", "serve the profiles of the process at /debug/pprof/ beside the health endpoints")
	add(s, forBoth, yes, &cfg.InsecureNoAuth, "insecure-no-auth", "INSECURE_NO_AUTH", "", "listen beyond loopback although no token protects it")
	add(s, forBoth, dur, &cfg.DrainTimeout, "drain-timeout", "DRAIN_TIMEOUT", "", "how long the orderly stop may take; then exit 3")
	add(s, forBoth, word, &cfg.LogLevel, "log-level", "LOG_LEVEL", "", "trace, debug, info, warn or error")
	add(s, forBoth, word, &cfg.LogFormat, "log-format", "LOG_FORMAT", "", "json, console, or auto: console on a terminal")
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

// isSecretList tells of secrets that protect the program. Without them it is open.
func isSecretList(f *pflag.Flag) bool {
	secret := f.Annotations[annSecret]
	return len(secret) > 0 && secret[0] == "value"
}
