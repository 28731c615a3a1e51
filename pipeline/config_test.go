package pipeline

import (
	"strings"
	"testing"
	"time"

	"async-data-processor/output"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

// TestPrefetchFits: AMQP counts the prefetch in 16 bits.
func TestPrefetchFits(t *testing.T) {
	if most := (Config{BatchSize: MaxBatchSize, WorkersMax: MaxWorkers}).prefetch(); most > 1<<16-1 {
		t.Errorf("a valid configuration has a prefetch of %d", most)
	}
}

// TestPrefetchFills: envelopes of one message fill the batches of all workers,
// the one that waits, and the one that fills.
func TestPrefetchFills(t *testing.T) {
	for _, c := range []Config{{BatchSize: 1, WorkersMax: 1}, {BatchSize: 5, WorkersMax: 4}, {BatchSize: 5, WorkersMax: MaxWorkers}} {
		if least := c.BatchSize * (c.WorkersMax + 2); c.prefetch() < least {
			t.Errorf("batches of %d and %d workers: a prefetch of %d, want at least %d", c.BatchSize, c.WorkersMax, c.prefetch(), least)
		}
	}
}

// TestRoll: files roll if one of the settings is there, and none stays unseen
// for ever.
func TestRoll(t *testing.T) {
	for _, tt := range []struct {
		bytes    int64
		interval time.Duration
		want     output.Roll
		together int
	}{
		{0, 0, output.Roll{}, 40},
		{1 << 20, 0, output.Roll{Bytes: 1 << 20, Interval: time.Minute}, 4096},
		{0, time.Hour, output.Roll{Interval: time.Hour}, 4096},
		{1 << 20, time.Hour, output.Roll{Bytes: 1 << 20, Interval: time.Hour}, 4096},
	} {
		cfg := DefaultConfig()
		cfg.RollBytes, cfg.RollInterval = tt.bytes, tt.interval
		if got := cfg.roll(); got != tt.want || cfg.together() != tt.together {
			t.Errorf("%d bytes and %v roll at %+v, %d messages together, want %+v, %d",
				tt.bytes, tt.interval, got, cfg.together(), tt.want, tt.together)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string // in the error; "" for none
	}{
		"amqps":               {func(c *Config) { c.BrokerURL = "amqps://u:p@h/v" }, ""},
		"nats":                {func(c *Config) { c.BrokerURL = "nats://token@a:4222,b:4222" }, ""},
		"embedded, absolute":  {func(c *Config) { c.BrokerURL = "embedded:///var/lib/x" }, ""},
		"embedded, relative":  {func(c *Config) { c.BrokerURL = EmbeddedURL }, ""},
		"embedded, no folder": {func(c *Config) { c.BrokerURL = "embedded:" }, "names no folder"},
		"embedded, host":      {func(c *Config) { c.BrokerURL = "embedded://data/broker" }, "embedded:relative/folder"},
		"unknown broker":      {func(c *Config) { c.BrokerURL = "kafka://secret@h" }, `there is no broker for "kafka://"`},
		"no URL":              {func(c *Config) { c.BrokerURL = "amqp://u:secret@h o/" }, "not a URL"},
		"shards":              {func(c *Config) { c.Shards = MaxShards + 1 }, "--shards is 1025"},
		"batch size":          {func(c *Config) { c.BatchSize = 0 }, "--batch-size is 0"},
		"reserve":             {func(c *Config) { c.OutputMinFree = -1 }, "--output-min-free is -1"},
		"no reserve":          {func(c *Config) { c.OutputMinFree = 0 }, ""},
		"output errors":       {func(c *Config) { c.OutputErrorTimeout = 0 }, "--output-error-timeout is 0s"},
		"dedupe ids":          {func(c *Config) { c.DedupeIDs = 0 }, "--dedupe-ids is 0"},
		"dedupe window":       {func(c *Config) { c.DedupeWindow = 0 }, "--dedupe-window is 0s"},
		"rolling":             {func(c *Config) { c.RollBytes, c.RollInterval = 64<<20, time.Minute }, ""},
		"rolling by size":     {func(c *Config) { c.RollBytes = MinRollBytes }, ""},
		"rolling by age":      {func(c *Config) { c.RollInterval = MinRollInterval }, ""},
		"small files":         {func(c *Config) { c.RollBytes = 4095 }, "--roll-bytes is 4095, want 0 or at least 4096"},
		"negative files":      {func(c *Config) { c.RollBytes = -1 }, "--roll-bytes is -1"},
		"young files":         {func(c *Config) { c.RollInterval = time.Millisecond }, "--roll-interval is 1ms, want 0 or 100ms to 24h0m0s"},
		"old files":           {func(c *Config) { c.RollInterval = 25 * time.Hour }, "--roll-interval is 25h0m0s"},
		"linger":              {func(c *Config) { c.BatchLinger = -1 }, "--batch-linger is -1ns"},
		"long linger":         {func(c *Config) { c.BatchLinger = time.Hour }, "want 0 to 10m0s"},
		"no linger":           {func(c *Config) { c.BatchLinger = 0 }, ""},
		"workers":             {func(c *Config) { c.WorkersMin = 5 }, "more than --workers-max"},
		"address":             {func(c *Config) { c.Listen = "8080" }, `--listen "8080": want host:port`},
		"exposed":             {func(c *Config) { c.Listen = ":8080" }, "nothing protects it"},
		"exposed, token":      {func(c *Config) { c.Listen, c.AuthTokens = ":8080", []string{"t"} }, ""},
		"exposed, accepted":   {func(c *Config) { c.Listen, c.InsecureNoAuth = "0.0.0.0:8080", true }, ""},
		"exposed admin":       {func(c *Config) { c.AdminListen = "192.168.0.1:1" }, "--admin-listen"},
		"profiles":            {func(c *Config) { c.Pprof = true }, ""},
		"exposed profiles":    {func(c *Config) { c.Pprof, c.Listen, c.AuthTokens = true, ":8080", []string{"t"} }, "--pprof"},
		"profiles, accepted":  {func(c *Config) { c.Pprof, c.Listen, c.InsecureNoAuth = true, ":8080", true }, ""},
		"IPv6 loopback":       {func(c *Config) { c.Listen = "[::1]:8080" }, ""},
		"empty token":         {func(c *Config) { c.AuthTokens = []string{"a", ""} }, "empty token"},
		"in flight":           {func(c *Config) { c.MaxInFlight = 100 }, "--max-in-flight-bytes is 100, want at least"},
		"certificate alone":   {func(c *Config) { c.NATSCert = "cert.pem" }, "go together"},
		"log level":           {func(c *Config) { c.LogLevel = "loud" }, "--log-level"},
		"log format":          {func(c *Config) { c.LogFormat = "xml" }, "--log-format"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			tc.change(&cfg)
			err := cfg.Validate()
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want %q", err, tc.want)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("a secret is in the error: %v", err)
			}
		})
	}
}

func TestRedactURL(t *testing.T) {
	for raw, want := range map[string]string{
		"amqp://u:p@h/v":                     "amqp://u:xxxxx@h/v",
		"amqp://h/v?password=p":              "amqp://h/v",
		"amqp://u:p@ss@h/v":                  "amqp://u:xxxxx@h/v",
		"nats://token@h":                     "nats://xxxxx@h",
		"nats://u:p@a:4222,nats://u:p@b":     "nats://u:xxxxx@a:4222,nats://u:xxxxx@b",
		"nats://u:p@a:4222,b:4222":           "nats://u:xxxxx@a:4222,b:4222",
		"amqp://u:p w@h o st/":               "amqp://u:xxxxx@h o st/",
		EmbeddedURL:                          EmbeddedURL,
		"embedded:///var/lib/adp":            "embedded:///var/lib/adp",
		"amqp://guest:guest@localhost:5672/": "amqp://guest:xxxxx@localhost:5672/",
	} {
		if got := RedactURL(raw); got != want {
			t.Errorf("RedactURL(%q) = %q, want %q", raw, got, want)
		}
	}
}
