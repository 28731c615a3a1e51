package main

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"async-data-processor/pipeline"
)

// environment is the variables of a test.
type environment map[string]string

func (e environment) lookup(name string) (value string, ok bool) {
	value, ok = e[name]
	return value, ok
}

func (e environment) warnings() []warning { return warnings(slices.Collect(maps.Keys(e)), e.lookup) }

// TestNumber: digits are decimal, for every number of the program.
func TestNumber(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "010": 10, "08": 8, "-1": -1, "+7": 7, " 5\n": 5, "5\r\n": 5} {
		if n, err := parseNumber(text); err != nil || n != want {
			t.Errorf("%q is %d, %v, want %d", text, n, err, want)
		}
	}
	for _, text := range []string{"", " ", "0x10", "0b1", "0o7", "1_000", "1e3", "1.0", "five", "٥", "9223372036854775808"} {
		if n, err := parseNumber(text); err == nil {
			t.Errorf("%q is %d, want a refusal", text, n)
		}
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addSettings(flags, &pipeline.Config{}, forAny)
	flags.VisitAll(func(f *pflag.Flag) {
		switch f.Value.Type() {
		case "int", "size":
			if err := f.Value.Set("010"); err != nil || f.Value.String() != "10" {
				t.Errorf("--%s: 010 is %s, %v", f.Name, f.Value, err)
			}
		case "duration":
			if err := f.Value.Set("010s"); err != nil || f.Value.String() != "10s" {
				t.Errorf("--%s: 010s is %s, %v", f.Name, f.Value, err)
			}
		case "string", "strings", "bool":
		default:
			t.Errorf("--%s is of the type %q, which this test does not know", f.Name, f.Value.Type())
		}
	})
}

// TestSpan: durations may have days.
func TestSpan(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "30s": 30 * time.Second, "7d": 7 * day, "1d12h": 36 * time.Hour, " 2d ": 2 * day, "010d": 10 * day,
		"-1s": -time.Second, "1.5h": 90 * time.Minute, "106751d23h": 106751*day + 23*time.Hour,
	} {
		if d, err := parseSpan(text); err != nil || d != want {
			t.Errorf("%q is %v, %v, want %v", text, d, err, want)
		}
	}
	for _, text := range []string{"", "30", "d", "1.5d", "-1d", "1d-1h", "1h1d", "7 d", "106751d24h", "106752d", "9999999999999999999d", "1w"} {
		if d, err := parseSpan(text); err == nil {
			t.Errorf("%q is %v, want a refusal", text, d)
		}
	}
}

// TestYes: a switch has the words that people use.
func TestYes(t *testing.T) {
	for want, texts := range map[bool][]string{true: {"true", "TRUE", "yes", "On", "1", " y "}, false: {"false", "NO", "off", "0", "n\n"}} {
		for _, text := range texts {
			if got, err := parseYes(text); err != nil || got != want {
				t.Errorf("%q is %v, %v", text, got, err)
			}
		}
	}
	for _, text := range []string{"", "2", "enabled", "ja"} {
		if got, err := parseYes(text); err == nil {
			t.Errorf("%q is %v, want a refusal", text, got)
		}
	}
}

// TestSecretSources: what is a secret depends on where it stands. A text has commas and
// lines, a file has lines, and a list of YAML has elements.
func TestSecretSources(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	yaml := file("list.yaml", "auth-tokens: [one, \" two\", 'a,b']\n")
	alias := file("alias.yaml", "log-level: &x one\nauth-tokens: [*x, 017]\n")
	block := file("block.yaml", "auth-tokens: |\n  one\n  two, a\n")
	for name, tt := range map[string]struct {
		env    environment
		args   []string
		config string
		want   []string
	}{
		"variable":         {env: environment{"AUTH_TOKENS": " one, two ,a"}, want: []string{"one", "two", "a"}},
		"lines":            {env: environment{"AUTH_TOKENS": "one\r\n\n two,a\n"}, want: []string{"one", "two", "a"}},
		"flags":            {args: []string{"--auth-tokens", "one,two", "--auth-tokens=a"}, want: []string{"one", "two", "a"}},
		"flag before all":  {env: environment{"AUTH_TOKENS": "x"}, args: []string{"--auth-tokens=one"}, want: []string{"one"}},
		"file":             {env: environment{"AUTH_TOKENS_FILE": file("a", "one\ntwo\n")}, want: []string{"one", "two"}},
		"file of Windows":  {env: environment{"AUTH_TOKENS_FILE": file("b", "\ufeffone\r\n two \r\n")}, want: []string{"one", "two"}},
		"comments":         {env: environment{"AUTH_TOKENS_FILE": file("c", "# mine\n\n  # theirs\none#1\n\t\n")}, want: []string{"one#1"}},
		"words of a line":  {env: environment{"AUTH_TOKENS_FILE": file("d", "one two\n")}, want: []string{"one two"}},
		"commas of a line": {env: environment{"AUTH_TOKENS_FILE": file("e", "one,two")}, want: []string{"one,two"}},
		"YAML":             {config: yaml, want: []string{"one", "two", "a,b"}},
		"YAML, aliases":    {config: alias, want: []string{"one", "017"}},
		"YAML, block":      {config: block, want: []string{"one", "two", "a"}},
	} {
		cfg := pipeline.DefaultConfig()
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		addSettings(flags, &cfg, forServer)
		if err := flags.Parse(tt.args); err != nil {
			t.Fatal(err)
		}
		if _, err := resolve(flags, tt.env.lookup, tt.config); err != nil || !slices.Equal(cfg.AuthTokens, tt.want) {
			t.Errorf("%s: %q, %v, want %q", name, cfg.AuthTokens, err, tt.want)
		}
	}
}

// TestWarnings: a variable that is nearly one of ours is told of, and its value is not.
func TestWarnings(t *testing.T) {
	for name, want := range map[string]string{
		"SHARD_COUNT": "SHARDS_COUNT", "shards_count": "SHARDS_COUNT", "SHARDS-COUNT": "SHARDS_COUNT", "AUTH_TOKEN": "AUTH_TOKENS",
		"AUTH_TOKEN_FILE": "AUTH_TOKENS_FILE", "RABBITMQ_URI": "RABBITMQ_URL", "OUTPUT_DIR": "DATA_OUTPUT_DIR", "SHARDS": "SHARDS_COUNT",
		"ADMIN_LISTEN": "ADMIN_LISTEN_ADDR", "DATA_OUPTUT_DIR": "DATA_OUTPUT_DIR", "EMBEDDED_TOKEN": "not read any more",
		"EMBEDDED_ACCEPT_LOSS": "store salvage",
		"TLS_CRT":              "TLS_CERT", "TLS_CERTIFICATE": "TLS_CERT", "LISTENADDR": "LISTEN_ADDR", "LISTEN": "LISTEN_ADDR", "listen": "LISTEN_ADDR",
		"LISTEN_ADDRESS": "LISTEN_ADDR", "ADMIN_LISTEN_ADDRESS": "ADMIN_LISTEN_ADDR", "ALLOW_HOSTS": "ALLOWED_HOSTS", "ALLOWEDHOST": "ALLOWED_HOSTS",
		"ADP_AUTH_TOKENS": "AUTH_TOKENS", "ASYNC_DATA_PROCESSOR_BROKER_URL": "BROKER_URL", "ADP_PPROF": "PPROF", "ADP_SHARD_COUNT": "SHARDS_COUNT",
		"ROLL_SIZE": "ROLL_BYTES", "DATA_DIR": "DATA_OUTPUT_DIR", "DATA_DIRECTORY": "DATA_OUTPUT_DIR", "LOGLEVEL": "LOG_LEVEL", "LOG_LVL": "LOG_LEVEL",
		"BATCHSIZE": "BATCH_SIZE", "WORKER_MAX": "WORKERS_MAX", "CONFIGFILE": "CONFIG_FILE", "ANYVALUES": "ANY_VALUE", "TLSKEY": "TLS_KEY",
		// These are other programs'.
		"RABBITMQ_DIR": "", "RABBITMQ_BASE": "", "NATS_URL": "", "HOME": "", "PATH": "", "POST": "", "LOG_FILE": "", "HOST": "", "GOGC": "",
		"PWD": "", "OLDPWD": "", "LISTEN_FDS": "", "LISTEN_PID": "", "LISTEN_FDNAMES": "", "GOMEMLIMIT": "", "TZ": "", "LANG": "", "LANGUAGE": "",
		"USER": "", "LOGNAME": "", "SHELL": "", "TERM": "", "HOSTNAME": "", "TMPDIR": "", "EDITOR": "", "LS_COLORS": "", "MAIL": "", "DISPLAY": "",
		"STATE_DIRECTORY": "", "LOGS_DIRECTORY": "", "RUNTIME_DIRECTORY": "", "CACHE_DIRECTORY": "", "CONFIGURATION_DIRECTORY": "",
		"CREDENTIALS_DIRECTORY": "", "NOTIFY_SOCKET": "", "INVOCATION_ID": "", "JOURNAL_STREAM": "", "SYSTEMD_EXEC_PID": "", "WATCHDOG_USEC": "",
		"KUBERNETES_SERVICE_HOST": "", "KUBERNETES_PORT": "", "KUBERNETES_PORT_443_TCP_ADDR": "", "NATS_PORT": "", "NATS_SERVICE_HOST": "",
		"RABBITMQ_PORT": "", "RABBITMQ_SERVICE_PORT": "", "ADP_PORT": "", "ASYNC_DATA_PROCESSOR_PORT": "", "ASYNC_DATA_PROCESSOR_SERVICE_HOST": "",
		"BROKER_HOST": "", "BROKER_PORT": "", "NATS_HOST": "", "NATS_USER": "", "NATS_URI": "", "RABBITMQ_USER": "", "RABBITMQ_HOST": "",
		"LISTEN_PORT": "", "SSL_CERT_FILE": "", "SSL_CERT_DIR": "", "CONFIG_DIR": "", "LOG_DIR": "", "DATABASE_URL": "", "TLS_CA": "", "port": "",
		"GOPATH": "", "GOROOT": "", "GODEBUG": "", "GOTRACEBACK": "", "GOMAXPROCS": "", "HTTP_PROXY": "", "NO_PROXY": "",
	} {
		got := environment{name: "hunter2"}.warnings()
		switch {
		case want == "" && len(got) > 0:
			t.Errorf("%s: %v, want nothing", name, got)
		case want == "":
		case len(got) != 1 || got[0].variable != name || !strings.Contains(got[0].text, want) || strings.Contains(got[0].text, "hunter2"):
			t.Errorf("%s: %v, want %s", name, got, want)
		}
	}
	if got := (environment{"SHARD_COUNT": "8", "SHARDS_COUNT": "8"}).warnings(); len(got) > 0 {
		t.Errorf("beside the right one: %v", got)
	}
	known, _ := variables()
	all := environment{}
	for _, name := range known {
		all[name] = "x"
		if got := (environment{name: "x"}).warnings(); len(got) > 0 {
			t.Errorf("of ours: %v", got)
		}
	}
	if got := all.warnings(); len(got) > 0 {
		t.Errorf("of ours: %v", got)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "-1": -1, "67108864": 64 << 20, "9223372036854775807": math.MaxInt64,
		"64MiB": 64 << 20, "64mib": 64 << 20, "64 MiB": 64 << 20, "64Mi": 64 << 20,
		"64MB": 64e6, "10MB": 10e6, "10 m": 10e6, "1.5GiB": 3 << 29, "4096B": 4096, "0GB": 0,
		"9007199254740993B": 1<<53 + 1,
	} {
		if n, err := parseSize(text); err != nil || n != want {
			t.Errorf("%q is %d, %v, want %d", text, n, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "many", "64 MiB more", "-1MiB", "1e3", "8EiB", "1MiB1", "1,5GiB", "1,024", "∞"} {
		if n, err := parseSize(text); err == nil {
			t.Errorf("%q is %d, want a refusal", text, n)
		}
	}
}

// TestSizeString: what is printed is read back as it was.
func TestSizeString(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 1: "1", -1: "-1", 1000: "1000", 1023: "1023", 1024: "1KiB", 1025: "1025", 64e6: "62500KiB",
		64 << 20: "64MiB", 1536 << 20: "1536MiB", 5 << 40: "5TiB", 7 << 60: "7EiB", math.MaxInt64: "9223372036854775807",
	} {
		got := showSize(n)
		if got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
		if back, err := parseSize(got); err != nil || back != n {
			t.Errorf("%q is read back as %d, %v", got, back, err)
		}
	}
}
