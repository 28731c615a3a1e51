package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"async-data-processor/pipeline"
)

func newStandalone(lookup lookupEnv, told *messages) *cobra.Command {
	var demo bool
	defaults := pipeline.DefaultConfig()
	defaults.BrokerURL = pipeline.EmbeddedURL
	cmd := stage{
		use:   "standalone",
		short: "Run server and message-consumer in one process, over an embedded broker",
		long: `standalone is server, message-consumer and, unless --broker-url names another, a
durable broker of its own, in one process: there is nothing else to install.
Everything accepted is fsynced in the broker's folder before the 201, and leaves
it when it is fsynced in a file.

When one machine is no longer enough, run server and message-consumer on their
own against RabbitMQ or a JetStream cluster: only --broker-url changes.`,
		example: `  async-data-processor standalone
  async-data-processor standalone --demo
  async-data-processor standalone --broker-url embedded:///var/lib/adp/broker --output-dir /srv/data`,
		groups:   forBoth,
		defaults: defaults,
		validate: pipeline.Config.Validate,
		run: func(ctx context.Context, cfg pipeline.Config, log zerolog.Logger) error {
			people := told.people(cfg)
			return pipeline.Standalone(ctx, cfg, log, pipeline.Show{Demo: demo, People: people}, func(addr net.Addr) {
				if people {
					_, _ = io.WriteString(told, head(cfg, addr)) // told counts what it loses
				}
			})
		},
	}.command(lookup, told)
	cmd.Flags().BoolVar(&demo, "demo", false, "post a few generated entries every second")
	return cmd
}

// head is what a person sees when the process has become ready: six lines.
func head(cfg pipeline.Config, addr net.Addr) string {
	at, trust := url.URL{Scheme: "http", Host: addressOf(cfg.Listen, addr), Path: cfg.BasePath}, ""
	if cfg.TLSCert != "" {
		at.Scheme, trust = "https", " --cacert "+shellWord(absolute(cfg.TLSCert))
	}
	who, token := "every program on this machine may post", ""
	switch {
	case len(cfg.AuthTokens) > 0: // which are not shown
		who, token = "clients with a token may post, $TOKEN in the last line", ` -H "Authorization: Bearer $TOKEN"`
	case !isLoopback(addr):
		who = "every client that reaches it may post, there is no token"
	}
	queue, store := pipeline.RedactURL(cfg.BrokerURL)+", which confirms before the answer 201", ""
	if cfg.BrokerURL != pipeline.EmbeddedURL {
		store = " --broker-url " + shellWord(pipeline.RedactURL(cfg.BrokerURL))
	}
	if dir, err := pipeline.StoreFolder(cfg.BrokerURL); err == nil {
		queue = absolute(dir) + "/, fsynced before the answer 201; it survives kill -9 and loss of power"
	}
	target, body := *at.JoinPath("message"), ""
	if rules, err := cfg.Rules(); err == nil { // Validate has made them
		body = " -d " + shellWord("["+string(rules.Sample("2019-10-12T07:20:50.52Z", "value", `"A"`))+"]")
	}
	return fmt.Sprintf(`%s
  address  %s, %s
  queue    %s
  files    %s/shard-*/, %s
  look at  %s in a browser, and async-data-processor dead-letters list%s
  try      curl -sS%s %s -H 'Content-Type: application/json'%s
`,
		strings.TrimSpace("async-data-processor "+buildVersion()), at.String(), who, queue, absolute(cfg.OutputDir), sizeOfFiles(cfg),
		at.String()+"/", store, trust+token, shellWord(target.String()), body)
}

// sizeOfFiles says how large a file becomes, or how old.
func sizeOfFiles(cfg pipeline.Config) string {
	full, age := showSize(cfg.RollBytes), cfg.RollInterval
	switch {
	case cfg.RollBytes > 0 && age > 0:
		return fmt.Sprintf("each visible when it has %s or is %v old", full, age)
	case cfg.RollBytes > 0:
		return fmt.Sprintf("each visible when it has %s or is a minute old", full)
	case age > 0:
		return fmt.Sprintf("each visible when it is %v old", age)
	}
	return fmt.Sprintf("each of %d entries, or fewer %v after the first", cfg.BatchSize, cfg.BatchLinger)
}

// addressOf returns host and port for clients on this machine.
func addressOf(listen string, addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	wanted, _, _ := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); wanted == "localhost" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

func isLoopback(addr net.Addr) bool {
	a, ok := addr.(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// shellWord returns a word that a shell takes as it is: brackets and question marks are
// patterns in a shell.
func shellWord(word string) string {
	if strings.ContainsFunc(word, func(r rune) bool {
		return !strings.ContainsRune("-_./:@%+=,", r) && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}) {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}
