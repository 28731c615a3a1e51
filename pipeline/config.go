package pipeline

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"async-data-processor/broker/local"
	"async-data-processor/broker/rabbitmq"
	"async-data-processor/live"
	"async-data-processor/message"
	"async-data-processor/output"
	"async-data-processor/server"
)

// Config is every setting of the program. Start from DefaultConfig.
type Config struct {
	// BrokerURL chooses the engine by its scheme and says where it is.
	BrokerURL string
	// NodeName is the beginning of the name of this process among the others of its
	// system; empty for the host's.
	NodeName string
	// Shards is the number of shards, 1 to MaxShards. Every process that
	// shares the broker must agree on it.
	Shards int

	// RabbitMQManagement is the URL of RabbitMQ's management API, which tells of its
	// policies; empty if they are not to be looked at.
	RabbitMQManagement string
	// EmbeddedMinFree is how many bytes of its disk an embedded broker keeps free.
	EmbeddedMinFree int64
	// IntakeOnly lets a server run alone over an embedded broker.
	IntakeOnly bool
	// Replicas is how many copies a JetStream cluster keeps of a stream that
	// does not exist yet, 1 to 5.
	Replicas int
	// NATSCreds, NATSCA, NATSCert and NATSKey are files for connections to a
	// NATS server; each may be empty.
	NATSCreds, NATSCA, NATSCert, NATSKey string

	// Listen is the server's address, host:port.
	Listen string
	// AdminListen is the address of the message-consumer's health endpoints.
	AdminListen string
	// AuthTokens are the bearer tokens that may submit, and see what became of a
	// submission, each "name:token" or a token alone; none lets everybody submit.
	AuthTokens []string
	// ViewTokens are the bearer tokens, written as AuthTokens, that may see why a
	// check fails, and profiles. None lets everybody on loopback, unless there are
	// AuthTokens.
	ViewTokens []string
	// AdminTokens are the bearer tokens, written as AuthTokens, that may do all: send
	// commands, submit and view. None lets everybody send commands on loopback, unless
	// there are other tokens.
	AdminTokens []string
	// RunnerTokens are the bearer tokens, written as AuthTokens, of runners of jobs. None
	// has runners send one of AdminTokens.
	RunnerTokens []string
	// ReadOnly refuses every command.
	ReadOnly bool
	// AllowedHosts are the names that requests may be sent to, beside localhost, IP
	// addresses and the names in Listen and AdminListen.
	AllowedHosts []string
	// CORSOrigins are the origins whose pages may post.
	CORSOrigins []string
	// BasePath is the path below which everything is served, for example "/adp"; empty for
	// the root. See server.CheckBase.
	BasePath string
	// TLSCert and TLSKey are the files of the certificate of Listen and AdminListen;
	// both empty for plain HTTP.
	TLSCert, TLSKey string
	// InsecureNoAuth allows listening beyond loopback without a token.
	InsecureNoAuth bool
	// MaxInFlight bounds the bytes of bodies in the server at a time, and
	// MaxInFlightPerClient those of one client: 0 is half of that.
	MaxInFlight, MaxInFlightPerClient int64
	// MaxConnections bounds the server's open connections; 0 is what the limit of
	// open files leaves.
	MaxConnections int
	// IdleTimeout is how long a connection may wait for its next request.
	IdleTimeout time.Duration

	// TimestampField is where an entry has its timestamp, a name or a JSON pointer.
	// TimestampDefault is empty, or "arrival" to take entries without one. AnyValue
	// takes any JSON value for value. See message.NewRules.
	TimestampField, TimestampDefault string
	AnyValue                         bool

	// Live is "on", or "off" for a process that shows no messages to viewers. LiveRedact
	// are JSON pointers (RFC 6901): viewers see a mask in place of the values there.
	// LivePayload is "full", or "none" to show nothing of entries.
	Live        string
	LiveRedact  []string
	LivePayload string

	// OutputDir is the folder of the files; it is made if missing.
	OutputDir string
	// OutputMinFree is how many bytes of its disk are kept free: below it intake
	// ends, until an eighth more is free. 0 keeps none.
	OutputMinFree int64
	// OutputErrorTimeout is how long the output of a shard may fail, other than
	// for lack of space, before the process ends.
	OutputErrorTimeout time.Duration
	// DedupeIDs is how many written ids a shard remembers, 1 to MaxDedupeIDs,
	// and DedupeWindow for how long.
	DedupeIDs    int
	DedupeWindow time.Duration
	// RollBytes and RollInterval have batches appended to one file a shard, which
	// is published when it is so large or so old. Without RollBytes its size does
	// not matter, without RollInterval that is a minute, and without both every
	// batch is a file.
	RollBytes    int64
	RollInterval time.Duration
	// BatchSize is the most messages of a batch, 1 to MaxBatchSize.
	BatchSize int
	// BatchLinger is how long an incomplete batch may wait.
	BatchLinger time.Duration
	// WorkersMin and WorkersMax bound the workers of a shard, 1 to MaxWorkers.
	WorkersMin, WorkersMax int
	// WorkerTimeout bounds one attempt to write a batch, or those that left together.
	WorkerTimeout time.Duration
	// HistoryInterval is how often changed worker histories are logged.
	HistoryInterval time.Duration

	// Jobs is the file of the jobs that this process gives to runners; empty for none.
	Jobs string
	// StateURL is that of the database of jobs, see store.Check; empty for DefaultStateURL in
	// a process that has Jobs, and for none in others.
	StateURL string

	// DrainTimeout bounds the orderly stop.
	DrainTimeout time.Duration
	// Pprof serves the profiles of the process beside its health endpoints, to those
	// who may see them.
	Pprof bool
	// Shown is what the process shows of these settings, and no setting.
	Shown []Setting
	// Version is that of the program, and LostLines returns how many lines of the log did
	// not get to its output, nil for 0. Both are for metrics, and no settings.
	Version   string
	LostLines func() uint64
	// LogLevel is trace, debug, info, warn or error.
	LogLevel string
	// LogFormat is json, console, or auto: console on a terminal.
	LogFormat string
}

// Upper bounds of settings.
const (
	MaxShards    = 1024
	MaxBatchSize = 1000
	MaxWorkers   = 32
	// MaxLinger is well under the half hour after which RabbitMQ takes an
	// unacknowledged delivery back.
	MaxLinger    = 10 * time.Minute
	MaxDedupeIDs = 100_000_000 // 5 GB per shard
	// MinRollBytes and MinRollInterval keep what publishing a file costs well
	// under what it is for.
	MinRollBytes    = 4096
	MinRollInterval = 100 * time.Millisecond
	MaxRollInterval = 24 * time.Hour
	MaxConnections  = 1_000_000
	MaxNodeName     = 100
)

// DefaultConfig is the one place of the defaults.
func DefaultConfig() Config {
	return Config{
		BrokerURL:       "amqp://guest:guest@localhost:5672/", // RabbitMQ as installed
		Shards:          5,
		Replicas:        1, // more need a cluster
		EmbeddedMinFree: local.DefaultMinFree,

		// Loopback, because nothing protects a server without a token.
		Listen:      "localhost:8080",
		AdminListen: "localhost:8081",
		MaxInFlight: server.DefaultMaxInFlight,
		IdleTimeout: server.DefaultIdleTimeout,

		TimestampField: message.TimestampField,

		Live:        "on", // without a viewer it costs an atomic load a batch
		LivePayload: string(live.PayloadFull),

		OutputDir: "./data",
		// Room for what is queued when intake ends, and for the other
		// users of the disk to notice.
		OutputMinFree: 256 << 20,
		// Longer than what passes by itself, and then in time to have another
		// process, or a person, see to it.
		OutputErrorTimeout: time.Minute,
		// More than a shard can have unsettled, which is 194,000. So whatever a
		// broker delivers again after a crash or an outage is known. 9 MB per shard
		// at most, read back from 40,000 full files at a start.
		DedupeIDs: 200_000,
		// As long as clients go on with retries. It counts only for ids beyond
		// those that a shard can have unsettled.
		DedupeWindow: 24 * time.Hour,

		BatchSize:   5,
		BatchLinger: time.Second,
		WorkersMin:  3,
		WorkersMax:  4,
		// Long for a file of five messages, short against the half hour after
		// which RabbitMQ takes an unacknowledged delivery back.
		WorkerTimeout:   30 * time.Second,
		HistoryInterval: 30 * time.Second,

		// Under the 30 s after which Docker Compose and Kubernetes kill.
		DrainTimeout: 25 * time.Second,
		LogLevel:     "info",
		LogFormat:    "auto",
	}
}

// Validate returns every setting that cannot work, joined, each named as the
// flag of the command line.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) bool {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
		return ok
	}
	within := func(name string, value, highest int) bool {
		return check(value >= 1 && value <= highest, "--%s is %d, want 1 to %d", name, value, highest)
	}
	positive := func(name string, d time.Duration) {
		check(d > 0, "--%s is %v, want more than 0", name, d)
	}

	_, err := parseBroker(c.BrokerURL)
	check(err == nil, "--broker-url: %w", err)
	management := rabbitmq.CheckManagement(c.RabbitMQManagement)
	check(management == nil, "--rabbitmq-management-url: %w", management)
	within("shards", c.Shards, MaxShards)
	within("jetstream-replicas", c.Replicas, 5)
	check(c.EmbeddedMinFree > 0, "--embedded-min-free is %d, want more than 0", c.EmbeddedMinFree)
	check((c.NATSCert == "") == (c.NATSKey == ""), "--nats-cert and --nats-key go together")
	for _, l := range []struct{ name, addr string }{{"listen", c.Listen}, {"admin-listen", c.AdminListen}} {
		_, port, err := net.SplitHostPort(l.addr)
		check(err == nil, "--%s %q: want host:port", l.name, l.addr)
		if err == nil {
			_, err = net.LookupPort("tcp", port) // it has a number or a name
			check(err == nil, "--%s %q: %w", l.name, l.addr, err)
		}
	}
	check(c.NodeName == "" || server.CheckHost(c.NodeName) == nil && len(c.NodeName) <= MaxNodeName,
		"--node-name is %q, want at most %d letters, digits, '.', '_' and '-'", c.NodeName, MaxNodeName)
	errs = append(errs, c.checkAccess())
	check(c.MaxInFlight >= server.MinInFlight, "--max-in-flight-bytes is %d, want at least %d, what one body of the largest size needs",
		c.MaxInFlight, server.MinInFlight)
	errs = append(errs, c.checkIntake(), c.checkLive())
	check(c.OutputDir != "", "--output-dir is empty, want a folder")
	errs = append(errs, c.checkPaths()...)
	errs = append(errs, c.checkJobs())
	check(c.OutputMinFree >= 0, "--output-min-free is %d, want 0 or more", c.OutputMinFree)
	positive("output-error-timeout", c.OutputErrorTimeout)
	within("dedupe-ids", c.DedupeIDs, MaxDedupeIDs)
	positive("dedupe-window", c.DedupeWindow)
	check(c.RollBytes == 0 || c.RollBytes >= MinRollBytes, "--roll-bytes is %d, want 0 or at least %d", c.RollBytes, MinRollBytes)
	check(c.RollInterval == 0 || c.RollInterval >= MinRollInterval && c.RollInterval <= MaxRollInterval,
		"--roll-interval is %v, want 0 or %v to %v", c.RollInterval, MinRollInterval, MaxRollInterval)
	within("batch-size", c.BatchSize, MaxBatchSize)
	check(c.BatchLinger >= 0 && c.BatchLinger <= MaxLinger, "--batch-linger is %v, want 0 to %v", c.BatchLinger, MaxLinger)
	few, many := within("workers-min", c.WorkersMin, MaxWorkers), within("workers-max", c.WorkersMax, MaxWorkers)
	check(!few || !many || c.WorkersMin <= c.WorkersMax, "--workers-min is %d, more than --workers-max, which is %d", c.WorkersMin, c.WorkersMax)
	positive("worker-timeout", c.WorkerTimeout)
	positive("history-interval", c.HistoryInterval)
	positive("drain-timeout", c.DrainTimeout)
	check(slices.Contains([]string{"trace", "debug", "info", "warn", "error"}, c.LogLevel),
		"--log-level is %q, want trace, debug, info, warn or error", c.LogLevel)
	check(slices.Contains([]string{"auto", "json", "console"}, c.LogFormat),
		"--log-format is %q, want auto, json or console", c.LogFormat)
	return errors.Join(errs...)
}

// CheckOutputDir fails if the output folder is, or is below, what is no folder. A
// missing one is made later.
func (c Config) CheckOutputDir() error {
	info, err := os.Stat(c.OutputDir)
	if errors.Is(err, syscall.ENOTDIR) || err == nil && !info.IsDir() {
		return fmt.Errorf("--output-dir %s is not a folder, want one that exists or can be made", c.OutputDir)
	}
	return nil
}

// exposed tells whether an address can be reached from other machines. One that
// nothing can listen on cannot, and is an error of its own.
func exposed(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	return err == nil && host != "localhost" && !net.ParseIP(host).IsLoopback()
}

// defaultRollInterval is how old a file gets if only its size is set.
// Without a limit, what comes to a quiet shard would not be visible for days.
const defaultRollInterval = time.Minute

// togetherFiles and togetherRolled bound what a worker takes at a time of a
// backlog: as many files with an fsync of their folder for all, and as many
// messages with one fsync of their file.
const (
	togetherFiles  = 8
	togetherRolled = 4096
)

// roll is when files are published that batches are appended to.
func (c Config) roll() output.Roll {
	r := output.Roll{Bytes: c.RollBytes, Interval: c.RollInterval}
	if r.Bytes > 0 && r.Interval == 0 {
		r.Interval = defaultRollInterval
	}
	return r
}

// together is how many messages full batches may have that leave together.
func (c Config) together() int {
	if c.roll().Rolls() {
		return max(c.BatchSize, togetherRolled)
	}
	return c.BatchSize * togetherFiles
}

// prefetch is how many envelopes of a shard are unsettled at most: enough to fill,
// with one message each, the batches being written, the one that waits and the
// one that fills. Less could starve a batch.
//
// More would let more batches of such envelopes leave together, but this is what
// bounds the bytes in memory, 512 KiB each, and the ids that come again after a
// crash (see DedupeIDs). Under load envelopes are not of one message: the next one
// of a shard fills while the last one is published.
func (c Config) prefetch() int { return c.BatchSize * (c.WorkersMax + 2) }

// window is what a shard remembers of what it has written.
func (c Config) window() output.Window {
	return output.Window{IDs: c.DedupeIDs, Unsettled: c.prefetch() * message.MaxEnvelopeMessages, Age: c.DedupeWindow}
}

// RedactManagementURL returns a RabbitMQManagement without its password.
func RedactManagementURL(raw string) string { return rabbitmq.RedactManagement(raw) }

// RedactURL returns a broker's URL, or a list of them, without passwords,
// tokens and parameters, fit for logs; and nothing of one that does not parse,
// where these may be anywhere.
func RedactURL(raw string) string {
	name, err := parseBroker(raw)
	if err != nil {
		return "(a broker URL that does not parse)"
	}
	return name
}
