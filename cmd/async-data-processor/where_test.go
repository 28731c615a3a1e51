package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"async-data-processor/faults/rig"
	"async-data-processor/pipeline"
)

// TestWhere asks a process by its address, with a token, and by the socket of its store: for
// a message in a file, for one that waits, and for one that is not known.
func TestWhere(t *testing.T) {
	t.Chdir(t.TempDir())
	p := rig.Start(t, "standalone", "BROKER_URL=embedded:data/broker", "DATA_OUTPUT_DIR=data", "EMBEDDED_MIN_FREE=1048576", "OUTPUT_MIN_FREE=0",
		"BATCH_LINGER=10m", "VIEW_TOKENS=ann:views", "AUTH_TOKENS=submits")
	p.AwaitShards(5)
	if err := os.WriteFile("token", []byte("ann:views\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	where := func(want int, args ...string) (out, told string) {
		t.Helper()
		return runs(t, want, append([]string{"where"}, args...)...)
	}
	// Five of one timestamp are a batch, and the sixth waits for others.
	entry := `{"timestamp":"2019-10-12T08:10:54Z","value":"a"}`
	_, r, _ := p.Post("["+strings.Repeat(entry+",", 5)+entry+"]", "Authorization", "Bearer submits")
	ids := r.IDs()
	if len(ids) != 6 {
		t.Fatalf("%+v", r)
	}
	p.Await("a file", func(l rig.Line) bool { return l.Message == "batch written" })
	url := "--url=http://" + p.Addr
	out, _ := where(exitClean, ids[4], url, "--token-file=token")
	if !strings.HasPrefix(out, ids[4]+": written since ") || !strings.Contains(out, "\n  line        5\n") || !strings.Contains(out, "\n  file        shard-") {
		t.Errorf("it printed\n%s", out)
	}
	out, _ = where(exitClean, ids[5])
	if !strings.HasPrefix(out, ids[5]+": in hand\n") || !strings.Contains(out, "\n  because     no worker has it yet: its batch gathers") {
		t.Errorf("by the socket it printed\n%s", out)
	}
	out, _ = where(exitClean, ids[0], "--json")
	var l pipeline.Location
	if err := json.Unmarshal([]byte(out), &l); err != nil || l.File == nil || *l.Line != 1 || *l.Submission != r.ID {
		t.Errorf("%s, %v", out, err)
	}
	out, told := where(exitFailure, "order-1")
	if !strings.HasPrefix(out, "order-1: not known\n  because  ") || told != "" {
		t.Errorf("it printed\n%s%s", out, told)
	}
	if _, told := where(exitFailure, ids[0], url); !strings.Contains(told, "VIEW_TOKENS, name a file with --token-file") {
		t.Errorf("without a token: %q", told)
	}
	if _, told := where(exitFailure, "a b"); !strings.Contains(told, "visible ASCII") {
		t.Errorf("a bad id: %q", told)
	}
	where(exitUsage)
	where(exitUsage, "a", "b")
	if code := p.Stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestWhereOfAnother: what is no answer of this program is an error, and nothing of an
// answer reaches the terminal as it is.
func TestWhereOfAnother(t *testing.T) {
	answer := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath() != pipeline.MessagePath+"a%2Fb%3Fc%25" {
			t.Errorf("it asked for %s", r.URL.EscapedPath())
		}
		_, _ = w.Write([]byte(answer))
	}))
	defer s.Close()
	for answer = range map[string]bool{"<html>": true, "{}": true, `{"id":"a\u001b[2J","state":"x\u001b[2J","owner":"\u001b","file":"\u001b","why":"\n\u001b"}`: true} {
		var stdout, stderr bytes.Buffer
		code := run([]string{"where", "a/b?c%", "--url", s.URL}, environment{}.lookup, &stdout, &stderr, nil)
		if strings.ContainsRune(stdout.String()+stderr.String(), 0x1b) || code == exitClean != strings.Contains(answer, "state") {
			t.Errorf("%s: exit %d, %q%q", answer, code, &stdout, &stderr)
		}
	}
}

// TestShownSettings: each setting is shown, and no secret of any.
func TestShownSettings(t *testing.T) {
	const secret = "s3cr3t"
	secrets := map[string][]string{
		"broker-url": {
			"amqp://ann:" + secret + "@h:5672/", "amqp://h/?auth_token=" + secret, "amqps://a:" + secret + "@h/,amqps://b:" + secret + "@i/",
			"nats://" + secret + "@h:4222", "nats://ann:" + secret + "@h:4222?token=" + secret, "x://" + secret, secret,
		},
		"rabbitmq-management-url": {"http://ann:" + secret + "@h:15672", "http://h:15672/?p=" + secret, secret},
		"auth-tokens":             {secret, "ann:" + secret, "a,b:" + secret},
		"view-tokens":             {secret, "ann:" + secret},
		"admin-tokens":            {secret, "ann:" + secret},
		"runner-tokens":           {secret, "ann:" + secret},
		"state-url":               {"postgres://ann:" + secret + "@h/db", "postgres://h/db?password=" + secret, "postgres://ann:" + secret + "@h:x/db", secret},
	}
	show := func(name, value string) (all []pipeline.Setting, flags *pflag.FlagSet) {
		t.Helper()
		flags = pflag.NewFlagSet("", pflag.ContinueOnError)
		cfg := pipeline.DefaultConfig()
		addSettings(flags, &cfg, forAny)
		if name != "" {
			if err := flags.Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
		return shown(flags), flags
	}
	all, flags := show("", "")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Annotations[annSecret] != nil && secrets[f.Name] == nil {
			t.Errorf("--%s is not tried", f.Name)
		}
		for _, s := range all {
			if s.Name == f.Name {
				if !s.Default || s.Variable != f.Annotations[annEnv][0] || f.Annotations[annSecret] == nil && s.Value != f.DefValue {
					t.Errorf("%+v", s)
				}
				return
			}
		}
		t.Errorf("--%s is not shown", f.Name)
	})
	for name, values := range secrets {
		for _, value := range values {
			all, _ := show(name, value)
			text, err := json.Marshal(all)
			if err != nil || strings.Contains(string(text), secret) {
				t.Errorf("--%s %s is shown in %s, %v", name, value, text, err)
			}
			for _, s := range all {
				if s.Name == name && (s.Default || s.Value == "") || s.Name != name && !s.Default {
					t.Errorf("--%s %s: %+v", name, value, s)
				}
			}
		}
	}
	all, _ = show("output-min-free", "1GiB")
	for _, s := range all {
		if s.Name == "output-min-free" && (s.Value != "1GiB" || s.Default) {
			t.Errorf("%+v", s)
		}
	}
}

// TestSettingsOfAProcess: it shows what is in force, wherever that comes from, but for
// secrets and what is in files.
func TestSettingsOfAProcess(t *testing.T) {
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte("ann:s3cr3t-in-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := rig.Start(t, "message-consumer", "BROKER_URL=amqp://ann:s3cr3t@127.0.0.1:1/", "DATA_OUTPUT_DIR="+dir, "BATCH_LINGER=2s", "ADMIN_LISTEN_ADDR=127.0.0.1:0",
		"ADMIN_TOKENS_FILE="+tokens)
	r, err := http.NewRequest(http.MethodGet, "http://"+p.Addr+"/api/v1/settings", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer s3cr3t-in-a-file")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK || strings.Contains(b.String(), "s3cr3t") {
		t.Fatalf("%s: %s, %v", resp.Status, &b, err)
	}
	for _, want := range []string{
		`{"name":"batch-linger","variable":"BATCH_LINGER","value":"2s","default":false}`, `{"name":"batch-size","variable":"BATCH_SIZE","value":"5","default":true}`,
		`{"name":"admin-tokens","variable":"ADMIN_TOKENS","value":"(set)","default":false}`, `{"name":"auth-tokens","variable":"AUTH_TOKENS","value":"","default":true}`,
		`{"name":"broker-url","variable":"BROKER_URL","value":"amqp://ann@127.0.0.1:1/","default":false}`, `"as_of":"`, `"complete":true`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s", want, &b)
		}
	}
	if strings.Contains(b.String(), `"listen"`) {
		t.Error("a setting of the server is shown")
	}
}
