package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"async-data-processor/faults/rig"
)

// TestDoors: each listener of each command refuses what a page could send, and shows
// the inside of the process to those only who may see it.
func TestDoors(t *testing.T) {
	t.Parallel()
	const broker = "BROKER_URL=amqp://alice:secret@127.0.0.1:1/"
	for _, command := range []string{"server", "message-consumer"} {
		p := rig.Start(t, command, broker, "DATA_OUTPUT_DIR="+t.TempDir(), "LISTEN_ADDR=0.0.0.0:0", "ADMIN_LISTEN_ADDR=0.0.0.0:0",
			"AUTH_TOKENS=submits", "VIEW_TOKENS=ann:views", "ALLOWED_HOSTS=inside.example", "PPROF=true")
		_, port, _ := strings.Cut(p.Addr, ":")
		for _, tc := range []struct {
			method, path, host string
			header             [2]string
			status             int
		}{
			{"GET", "/livez", "evil.example", [2]string{}, 421},
			{"GET", "/livez", "inside.example", [2]string{}, 200},
			{"GET", "/", "localhost", [2]string{}, 200},
			{"GET", "/", "evil.example", [2]string{}, 421},
			{"HEAD", "/page/app.js", "localhost", [2]string{}, 200},
			{"GET", "/page/none.js", "localhost", [2]string{}, 404},
			{"POST", "/message", "localhost", [2]string{"Sec-Fetch-Site", "cross-site"}, 403},
			{"OPTIONS", "/readyz", "localhost", [2]string{"Access-Control-Request-Method", "POST"}, 403},
			{"GET", "/readyz", "localhost", [2]string{}, 503},
			{"GET", "/readyz?verbose", "localhost", [2]string{}, 401},
			{"GET", "/readyz?verbose", "localhost", [2]string{"Authorization", "Bearer submits"}, 403},
			{"GET", "/readyz?verbose", "localhost", [2]string{"Authorization", "Bearer views"}, 503},
			{"GET", "/debug/pprof/heap", "localhost", [2]string{}, 401},
			{"POST", "/api/v1/commands", "localhost", [2]string{}, 404},
			{"POST", "/api/v1/commands", "localhost", [2]string{"Authorization", "Bearer views"}, 404},
			{"POST", "/api/v1/commands", "localhost", [2]string{"Sec-Fetch-Site", "cross-site"}, 403},
			{"GET", "/api/v1/commands/x", "localhost", [2]string{}, 401},
			{"GET", "/api/v1/commands/x", "localhost", [2]string{"Authorization", "Bearer views"}, 404},
			{"GET", "/debug/pprof/heap", "localhost", [2]string{"Authorization", "Bearer views"}, 200},
			{"GET", "/api/v1/workers", "localhost", [2]string{}, 401},
			{"GET", "/api/v1/workers", "localhost", [2]string{"Authorization", "Bearer submits"}, 403},
			{"GET", "/api/v1/workers", "localhost", [2]string{"Authorization", "Bearer views"}, 200},
			{"GET", "/api/v1/series", "localhost", [2]string{}, 401},
			{"GET", "/api/v1/series", "localhost", [2]string{"Authorization", "Bearer views"}, 200},
			{"GET", "/api/v1/events?parts=x", "localhost", [2]string{}, 401},
			{"GET", "/api/v1/events?parts=x", "localhost", [2]string{"Authorization", "Bearer submits"}, 403},
			{"GET", "/api/v1/events?parts=x", "localhost", [2]string{"Sec-Fetch-Site", "cross-site"}, 403},
			{"GET", "/api/v1/events?parts=x", "localhost", [2]string{"Authorization", "Bearer views"}, 400},
			{"GET", "/api/v1/workers", "evil.example", [2]string{"Authorization", "Bearer views"}, 421},
			{"GET", "/api/v1/workers", "localhost", [2]string{"Sec-Fetch-Site", "cross-site"}, 403},
		} {
			r, err := http.NewRequest(tc.method, "http://127.0.0.1:"+port+tc.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = tc.host
			if tc.header[0] != "" {
				r.Header.Set(tc.header[0], tc.header[1])
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			shown := strings.Contains(string(body), "127.0.0.1:1")
			if resp.StatusCode != tc.status || shown != (tc.header[1] == "Bearer views" && tc.status == 503) {
				t.Errorf("%s: %s %s to %s with %q: got %d %.200s, want %d", command, tc.method, tc.path, tc.host, tc.header, resp.StatusCode, body, tc.status)
			}
		}
		if code := p.Stop(); code != exitClean {
			t.Errorf("%s: exit %d", command, code)
		}
	}
}

// TestBasePath: all of a process is below its path, and its clients find it there.
func TestBasePath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := rig.Start(t, "standalone", "BROKER_URL=embedded://"+filepath.Join(dir, "broker"), "DATA_OUTPUT_DIR="+filepath.Join(dir, "data"), "BASE_PATH=/adp").Ready()
	get := func(path, want string) {
		if status, text := p.Get(path); !strings.Contains(text, want) {
			t.Errorf("%s: got %d %.300s, want %q", path, status, text, want)
		}
	}
	get("/adp/", "<!doctype html>")
	get("/adp", "<!doctype html>")
	get("/adp/page/app.js", "import")
	get("/", "not-found")
	get("/adp/api/v1/nodes", `"http://`+p.Addr+`/adp"`)
	resp, err := http.Post("http://"+p.Addr+"/adp/message", "application/json", strings.NewReader(`{"timestamp":"2019-10-12T07:20:50.52Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	get(resp.Header.Get("Location"), `"accepted":1`)
	var out, errs strings.Builder
	if code := run([]string{"status", "--url", "http://" + p.Addr + "/adp/"}, os.LookupEnv, &out, &errs, nil); code != 0 || !strings.Contains(out.String(), "1 node") {
		t.Errorf("status: exit %d, %s %s", code, &out, &errs)
	}
	if code := p.Stop(); code != exitClean {
		t.Errorf("exit %d", code)
	}
}

// TestHealthOverTLS: both commands speak TLS, and healthcheck asks them.
func TestHealthOverTLS(t *testing.T) {
	t.Parallel()
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	s := httptest.NewTLSServer(nil)
	s.Close()
	pair := s.TLS.Certificates[0]
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range []string{"server", "message-consumer"} {
		p := rig.Start(t, command, "BROKER_URL=amqp://127.0.0.1:1/", "DATA_OUTPUT_DIR="+t.TempDir(), "TLS_CERT="+cert, "TLS_KEY="+key)
		ask := func(args ...string) (int, string) {
			var stderr bytes.Buffer
			code := run(append([]string{"healthcheck"}, args...), os.LookupEnv, io.Discard, &stderr, nil)
			return code, stderr.String()
		}
		for _, tc := range []struct {
			args []string
			code int
			want string
		}{
			{[]string{"--url", "https://" + p.Addr + "/livez", "--tls-cert", cert}, exitClean, ""},
			{[]string{"--url", "https://" + p.Addr + "/readyz", "--tls-cert", cert}, exitFailure, "503"},
			{[]string{"--url", "https://" + p.Addr + "/livez", "--tls-cert", key}, exitFailure, "is not the one in"},
			{[]string{"--url", "https://" + p.Addr + "/livez"}, exitFailure, "unknown authority"},
			{[]string{"--url", "http://" + p.Addr + "/livez"}, exitFailure, "400"},
		} {
			if code, stderr := ask(tc.args...); code != tc.code || !strings.Contains(stderr, tc.want) {
				t.Errorf("%s: healthcheck %q: exit %d, %s", command, tc.args, code, stderr)
			}
		}
		if code := p.Stop(); code != exitClean {
			t.Errorf("%s: exit %d", command, code)
		}
	}
}
