package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"async-data-processor/pipeline"
)

// TestHead: six lines, which hold what this process does, and no secret.
func TestHead(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	any4, any6 := net.IPv4zero, net.IPv6unspecified
	for name, tc := range map[string]struct {
		change func(*pipeline.Config)
		ip     net.IP
		want   []string
	}{
		"as it comes": {
			func(*pipeline.Config) {}, net.IPv4(127, 0, 0, 1),
			[]string{
				"  address  http://localhost:8080, every program on this machine may post\n",
				"  queue    " + dir + "/data/broker/, fsynced before the answer 201; it survives kill -9 and loss of power\n",
				"  files    " + dir + "/data/shard-*/, each of 5 entries, or fewer 1s after the first\n",
				"  look at  http://localhost:8080/ in a browser, and async-data-processor dead-letters list\n",
				`  try      curl -sS http://localhost:8080/message -H 'Content-Type: application/json' -d '[{"timestamp":"2019-10-12T07:20:50.52Z","value":"A"}]'` + "\n",
			},
		},
		"IPv6, a store elsewhere": {
			func(c *pipeline.Config) { c.Listen, c.BrokerURL = "[::1]:8080", "embedded:///srv/my%20broker" }, net.IPv6loopback,
			[]string{
				"http://[::1]:8080, every program", "/srv/my broker/, fsynced",
				"dead-letters list --broker-url embedded:///srv/my%20broker\n", "curl -sS 'http://[::1]:8080/message' -H ",
			},
		},
		"open, with tokens": {
			func(c *pipeline.Config) { c.Listen, c.AuthTokens = ":8080", []string{"hunter2"} }, any6,
			[]string{"http://localhost:8080, clients with a token may post", `curl -sS -H "Authorization: Bearer $TOKEN" http://localhost:8080/message `},
		},
		"over TLS": {
			func(c *pipeline.Config) { c.TLSCert, c.TLSKey = "cert.pem", "key.pem" }, net.IPv4(127, 0, 0, 1),
			[]string{"  address  https://localhost:8080,", "  look at  https://localhost:8080/ in", "curl -sS --cacert " + dir + "/cert.pem https://localhost:8080/message "},
		},
		"below a path": {
			func(c *pipeline.Config) { c.BasePath = "/adp" }, net.IPv4(127, 0, 0, 1),
			[]string{"  look at  http://localhost:8080/adp/ in", "curl -sS http://localhost:8080/adp/message "},
		},
		"over TLS, with tokens": {
			func(c *pipeline.Config) { c.TLSCert, c.AuthTokens = "/my keys/cert.pem", []string{"hunter2"} }, net.IPv4(127, 0, 0, 1),
			[]string{`curl -sS --cacert '/my keys/cert.pem' -H "Authorization: Bearer $TOKEN" https://localhost:8080/message `},
		},
		"a timestamp of another name": {
			func(c *pipeline.Config) { c.TimestampField, c.TimestampDefault = "time", "arrival" }, net.IPv4(127, 0, 0, 1),
			[]string{` -d '[{"time":"2019-10-12T07:20:50.52Z","value":"A"}]'` + "\n"},
		},
		"a timestamp further in": {
			func(c *pipeline.Config) { c.TimestampField = "/it's/time" }, net.IPv4(127, 0, 0, 1),
			[]string{` -d '[{"it'\''s":{"time":"2019-10-12T07:20:50.52Z"},"value":"A"}]'` + "\n"},
		},
		"open to all": {
			func(c *pipeline.Config) { c.Listen, c.InsecureNoAuth = "0.0.0.0:8080", true }, any4,
			[]string{"http://localhost:8080, every client that reaches it may post, there is no token\n"},
		},
		"another broker, files that roll": {
			func(c *pipeline.Config) { c.BrokerURL, c.RollBytes = "amqp://guest:hunter2@rabbit/", 64<<20 }, net.IPv4(127, 0, 0, 1),
			[]string{"amqp://guest@rabbit:5672/, which confirms before", "each visible when it has 64MiB or is a minute old\n", "dead-letters list --broker-url amqp://guest@rabbit:5672/\n"},
		},
		"files of an age": {
			func(c *pipeline.Config) { c.RollInterval = 5 * time.Minute }, net.IPv4(127, 0, 0, 1),
			[]string{"each visible when it is 5m0s old\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := pipeline.DefaultConfig()
			cfg.BrokerURL = pipeline.EmbeddedURL
			tc.change(&cfg)
			got := head(cfg, &net.TCPAddr{IP: tc.ip, Port: 8080})
			if strings.Count(got, "\n") != 6 || !strings.HasPrefix(got, "async-data-processor") || strings.Contains(got, "hunter2") {
				t.Errorf("got\n%s", got)
			}
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("it lacks %q:\n%s", want, got)
				}
			}
		})
	}
}

func TestShellWord(t *testing.T) {
	for word, want := range map[string]string{
		"http://localhost:8080/message": "http://localhost:8080/message",
		"http://[::1]:80/":              "'http://[::1]:80/'",
		"it's":                          `'it'\''s'`,
		"a b":                           "'a b'",
		"$x?*&;`":                       "'$x?*&;`'",
		"é":                             "'é'",
	} {
		if got := shellWord(word); got != want {
			t.Errorf("%s: got %s, want %s", word, got, want)
		}
	}
}
