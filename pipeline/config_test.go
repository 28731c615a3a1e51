package pipeline

import (
	"strings"
	"testing"
	"time"

	"async-data-processor/message"
	"async-data-processor/output"
)

func TestDefaultsAreValid(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

// TestUnsettledIsRemembered: by default a shard remembers whatever it can have
// unsettled, however old that is.
func TestUnsettledIsRemembered(t *testing.T) {
	w := DefaultConfig().window()
	if want := 30 * message.MaxEnvelopeMessages; w.Unsettled != want || w.IDs < want {
		t.Errorf("the window is %+v, want %d unsettled", w, want)
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
	checkValidate(t, map[string]validated{
		"amqps":                {func(c *Config) { c.BrokerURL = "amqps://u:p@h/v" }, ""},
		"nats":                 {func(c *Config) { c.BrokerURL = "nats://token@a:4222,b:4222" }, ""},
		"embedded, absolute":   {func(c *Config) { c.BrokerURL = "embedded:///var/lib/x" }, ""},
		"embedded, relative":   {func(c *Config) { c.BrokerURL = EmbeddedURL }, ""},
		"embedded, no folder":  {func(c *Config) { c.BrokerURL = "embedded:" }, "names no folder"},
		"embedded, host":       {func(c *Config) { c.BrokerURL = "embedded://data/broker" }, "embedded:relative/folder"},
		"embedded, ~":          {func(c *Config) { c.BrokerURL = "embedded:~/broker" }, "write the whole path"},
		"embedded, variable":   {func(c *Config) { c.BrokerURL = "embedded:${HOME}/broker" }, "the variable in"},
		"embedded, quotes":     {func(c *Config) { c.BrokerURL = `embedded:"data/broker"` }, "quotes around it"},
		"embedded, escaped":    {func(c *Config) { c.BrokerURL = "embedded:data%0d" }, "control character"},
		"empty broker":         {func(c *Config) { c.BrokerURL = "" }, "--broker-url: it is empty, want amqp://"},
		"broker, no scheme":    {func(c *Config) { c.BrokerURL = "secret:5672" }, "does not begin with a scheme, want amqp://"},
		"broker, a folder":     {func(c *Config) { c.BrokerURL = "data/broker" }, "does not begin with a scheme, want amqp://"},
		"broker, web":          {func(c *Config) { c.BrokerURL = "https://u:secret@h" }, `there is no broker for "https://"`},
		"broker, capitals":     {func(c *Config) { c.BrokerURL = "AMQP://u:secret@h" }, ""},
		"broker, no slashes":   {func(c *Config) { c.BrokerURL = "nats:secret" }, "does not parse"},
		"password, a comma":    {func(c *Config) { c.BrokerURL = "nats://u:secret,1@h" }, "percent-encoded"},
		"password, a slash":    {func(c *Config) { c.BrokerURL = "amqp://u:12/secret@h/" }, "percent-encoded"},
		"unknown broker":       {func(c *Config) { c.BrokerURL = "kafka://secret@h" }, `there is no broker for "kafka://"`},
		"no URL":               {func(c *Config) { c.BrokerURL = "amqp://u:secret@h o/" }, "does not parse"},
		"shards":               {func(c *Config) { c.Shards = MaxShards + 1 }, "--shards is 1025"},
		"batch size":           {func(c *Config) { c.BatchSize = 0 }, "--batch-size is 0"},
		"tail":                 {func(c *Config) { c.Live = "yes" }, `--live is "yes", want on or off`},
		"no tail":              {func(c *Config) { c.Live = "off" }, ""},
		"tail, payload":        {func(c *Config) { c.LivePayload = "head" }, `--live-payload is "head", want full or none`},
		"tail, redact":         {func(c *Config) { c.LiveRedact = []string{"/a/b", "email"} }, `--live-redact: "email" is no JSON pointer`},
		"reserve":              {func(c *Config) { c.OutputMinFree = -1 }, "--output-min-free is -1"},
		"no reserve":           {func(c *Config) { c.OutputMinFree = 0 }, ""},
		"output errors":        {func(c *Config) { c.OutputErrorTimeout = 0 }, "--output-error-timeout is 0s"},
		"dedupe ids":           {func(c *Config) { c.DedupeIDs = 0 }, "--dedupe-ids is 0"},
		"dedupe window":        {func(c *Config) { c.DedupeWindow = 0 }, "--dedupe-window is 0s"},
		"rolling":              {func(c *Config) { c.RollBytes, c.RollInterval = 64<<20, time.Minute }, ""},
		"rolling by size":      {func(c *Config) { c.RollBytes = MinRollBytes }, ""},
		"rolling by age":       {func(c *Config) { c.RollInterval = MinRollInterval }, ""},
		"small files":          {func(c *Config) { c.RollBytes = 4095 }, "--roll-bytes is 4095, want 0 or at least 4096"},
		"negative files":       {func(c *Config) { c.RollBytes = -1 }, "--roll-bytes is -1"},
		"young files":          {func(c *Config) { c.RollInterval = time.Millisecond }, "--roll-interval is 1ms, want 0 or 100ms to 24h0m0s"},
		"old files":            {func(c *Config) { c.RollInterval = 25 * time.Hour }, "--roll-interval is 25h0m0s"},
		"linger":               {func(c *Config) { c.BatchLinger = -1 }, "--batch-linger is -1ns"},
		"long linger":          {func(c *Config) { c.BatchLinger = time.Hour }, "want 0 to 10m0s"},
		"no linger":            {func(c *Config) { c.BatchLinger = 0 }, ""},
		"workers":              {func(c *Config) { c.WorkersMin = 5 }, "more than --workers-max"},
		"output ~":             {func(c *Config) { c.OutputDir = "~/data" }, "--output-dir: nothing replaces the ~ of ~/data here"},
		"output in quotes":     {func(c *Config) { c.OutputDir = `"/srv/data"` }, "quotes around it"},
		"half a quote":         {func(c *Config) { c.OutputDir = `/srv/data'` }, "quotes around it"},
		"output, variable":     {func(c *Config) { c.OutputDir = "${HOME}/data" }, "nothing replaces the variable"},
		"output, $HOME":        {func(c *Config) { c.OutputDir = "/srv/$HOME" }, "nothing replaces the variable"},
		"output, a dollar":     {func(c *Config) { c.OutputDir = "/srv/a$/it's/~b" }, ""},
		"output, Windows":      {func(c *Config) { c.OutputDir = "/srv/data\r" }, "Windows line ends"},
		"output, two lines":    {func(c *Config) { c.OutputDir = "/srv\n/data" }, "control character"},
		"key ~":                {func(c *Config) { c.NATSCert, c.NATSKey = "cert", "~/key" }, "--nats-key: "},
		"address":              {func(c *Config) { c.Listen = "8080" }, `--listen "8080": want host:port`},
		"exposed":              {func(c *Config) { c.Listen = ":8080" }, "nothing protects it"},
		"exposed, token":       {func(c *Config) { c.Listen, c.AuthTokens = ":8080", []string{"t"} }, ""},
		"exposed, accepted":    {func(c *Config) { c.Listen, c.InsecureNoAuth = "0.0.0.0:8080", true }, ""},
		"exposed admin":        {func(c *Config) { c.AdminListen = "192.168.0.1:1" }, "--admin-listen"},
		"profiles":             {func(c *Config) { c.Pprof = true }, ""},
		"exposed profiles":     {func(c *Config) { c.Pprof, c.Listen, c.AuthTokens = true, ":8080", []string{"t"} }, "--pprof"},
		"IPv6 loopback":        {func(c *Config) { c.Listen = "[::1]:8080" }, ""},
		"empty token":          {func(c *Config) { c.AuthTokens = []string{"a", ""} }, "--auth-tokens, number 2: an empty token"},
		"a token of two words": {func(c *Config) { c.AuthTokens = []string{"secret one"} }, "--auth-tokens, number 1: it holds white space"},
		"a token in quotes":    {func(c *Config) { c.AuthTokens = []string{`"secret"`} }, "--auth-tokens, number 1: it has quotes"},
		"a token with a comma": {func(c *Config) { c.AuthTokens = []string{"a,b"} }, "--auth-tokens, number 1: it holds a comma"},
		"in flight":            {func(c *Config) { c.MaxInFlight = 100 }, "--max-in-flight-bytes is 100, want at least"},
		"share":                {func(c *Config) { c.MaxInFlightPerClient = c.MaxInFlight }, ""},
		"small share":          {func(c *Config) { c.MaxInFlightPerClient = 100 }, "--max-in-flight-per-client is 100, want 0, or"},
		"large share":          {func(c *Config) { c.MaxInFlightPerClient = c.MaxInFlight + 1 }, "to --max-in-flight-bytes"},
		"connections":          {func(c *Config) { c.MaxConnections = -1 }, "--max-connections is -1"},
		"idle":                 {func(c *Config) { c.IdleTimeout = 0 }, "--idle-timeout is 0s"},
		"pointer":              {func(c *Config) { c.TimestampField = "/event/time" }, ""},
		"bad pointer":          {func(c *Config) { c.TimestampField = "/event~2" }, `--timestamp-field is "/event~2": want the name of a member, or a JSON pointer`},
		"our own field":        {func(c *Config) { c.TimestampField = "message_id" }, "--timestamp-field"},
		"arrival":              {func(c *Config) { c.TimestampDefault = "arrival" }, ""},
		"another default":      {func(c *Config) { c.TimestampDefault = "now" }, `--timestamp-default is "now", want "arrival" or nothing`},
		"certificate alone":    {func(c *Config) { c.NATSCert = "cert.pem" }, "go together"},
		"log level":            {func(c *Config) { c.LogLevel = "loud" }, "--log-level"},
		"log format":           {func(c *Config) { c.LogFormat = "xml" }, "--log-format"},
	})
}

// validated is a change of the defaults, and what Validate says of it.
type validated struct {
	change func(*Config)
	want   string // in the error; "" for none
}

func checkValidate(t *testing.T, cases map[string]validated) {
	for name, tc := range cases {
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

// TestOneErrorACause: what follows from an error is not another one.
func TestOneErrorACause(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no port":          func(c *Config) { c.Listen = "localhost" },
		"no host":          func(c *Config) { c.Listen = "8080" },
		"bad port":         func(c *Config) { c.Listen = "0.0.0.0:http-8080" },
		"admin, no port":   func(c *Config) { c.AdminListen = "localhost" },
		"profiles":         func(c *Config) { c.Listen, c.Pprof = "localhost", true },
		"many workers":     func(c *Config) { c.WorkersMin = 99 },
		"no workers":       func(c *Config) { c.WorkersMax = 0 },
		"tokens":           func(c *Config) { c.AuthTokens = []string{"a", ""} },
		"broker":           func(c *Config) { c.BrokerURL = "" },
		"output in quotes": func(c *Config) { c.OutputDir = "\"~/${a}\r\"" },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one error", name, err)
		}
	}
}

// TestRedactURL: what is shown of a URL holds no password, token or parameter,
// however the URL is wrong.
func TestRedactURL(t *testing.T) {
	const hidden = "(a broker URL that does not parse)"
	for raw, want := range map[string]string{
		"amqp://u:secret@h/v":                      "amqp://u@h:5672/v",
		"amqp://h/v?password=secret":               "amqp://guest@h:5672/v",
		"amqp://u:s@secret@h/v":                    "amqp://u@h:5672/v",
		"amqp://u:secret,1@h/v":                    "amqp://u@h:5672/v",
		"amqp://u:12,secret@h/v":                   "amqp://u@h:5672/v",
		"amqp://u:12/secret@h/v":                   hidden,
		"amqp://u:12?secret@h/v":                   hidden,
		"amqp://u:12#secret@h/v":                   hidden,
		"amqp://u:secret w@h o st/":                hidden,
		"amqp://u:%zzsecret@h/":                    hidden,
		"nats://secret@h":                          "nats://h:4222",
		"nats://u:secret@a:4222,nats://u:secret@b": "nats://u@a:4222,b:4222",
		"nats://u:secret@a:4222,b:4222,c:4222":     "nats://u@a:4222,b:4222,c:4222",
		"nats://u:1,secret@h":                      hidden,
		"nats://u:secret,1@h":                      hidden,
		"nats://u:1@x,secret@h":                    hidden,
		"tls://u:secret@h/path":                    hidden,
		"kafka://u:secret@h":                       hidden,
		"secret":                                   hidden,
		"":                                         hidden,
		EmbeddedURL:                                EmbeddedURL,
		"embedded:///var/lib/adp":                  "embedded:///var/lib/adp",
		DefaultConfig().BrokerURL:                  "amqp://guest@localhost:5672/",
	} {
		got := RedactURL(raw)
		if got != want {
			t.Errorf("RedactURL(%q) = %q, want %q", raw, got, want)
		}
	}
}
