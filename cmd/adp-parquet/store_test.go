package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"async-data-processor/message"
)

const (
	keyID, secret = "tester", "not-a-secret"
	bucket        = "entries"
)

// gateway is a versitygw of the tests: a server of S3 over a folder.
type gateway struct {
	*minio.Client
	url string
	cmd *exec.Cmd
}

// startGateway runs the program that tools.mod pins, with an empty bucket.
func startGateway(t *testing.T) *gateway {
	t.Helper()
	path, err := exec.Command("go", "tool", "-modfile=tools.mod", "-n", "versitygw").Output()
	if err != nil {
		t.Fatalf("build versitygw: %v", err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := free.Addr().String()
	must(t, free.Close())
	dir := t.TempDir()
	for _, name := range []string{"objects", "metadata"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	// The attributes of objects are files, because not every file system has them.
	g := &gateway{url: "http://" + addr}
	g.cmd = exec.Command(strings.TrimSpace(string(path)), "--port", addr, "posix",
		"--sidecar", filepath.Join(dir, "metadata"), filepath.Join(dir, "objects"))
	g.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+keyID, "ROOT_SECRET_KEY="+secret)
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	g.cmd.Stdout, g.cmd.Stderr = &log, &log
	must(t, g.cmd.Start())
	t.Cleanup(g.stop)
	g.Client, err = minio.New(addr, &minio.Options{Creds: credentials.NewStaticV4(keyID, secret, ""), Region: "us-east-1"})
	must(t, err)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if err = g.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err == nil {
			return g
		}
		if time.Now().After(end) {
			g.stop()
			t.Fatalf("no bucket: %v\n%s", err, log.String())
		}
	}
}

func (g *gateway) stop() {
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
}

// object reads an object.
func (g *gateway) object(t *testing.T, key string) []byte {
	t.Helper()
	in, err := g.GetObject(t.Context(), bucket, key, minio.GetObjectOptions{})
	must(t, err)
	defer in.Close()
	content, err := io.ReadAll(in)
	must(t, err)
	return content
}

// keys gives the program what it needs to use the gateway.
func (g *gateway) keys(t *testing.T, secret string) {
	t.Setenv("AWS_ACCESS_KEY_ID", keyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	t.Setenv("AWS_ENDPOINT_URL_S3", g.url)
	t.Setenv("AWS_REGION", "us-east-1")
}

// wantStored runs the program with the variables of the process.
func wantStored(t *testing.T, want int, word string, args ...string) {
	t.Helper()
	var out, told bytes.Buffer
	code := run(context.Background(), args, os.Getenv, &out, &told)
	if code != want || !strings.Contains(out.String()+told.String(), word) {
		t.Fatalf("adp-parquet %s: code %d, want %d and %q:\n%s%s", strings.Join(args, " "), code, want, word, out.String(), told.String())
	}
	if text := out.String() + told.String(); strings.Contains(text, secret) {
		t.Errorf("the secret is told: %s", text)
	}
}

// proxy stands before the gateway. It notes the requests, and cuts the connection instead of
// the next answers.
type proxy struct {
	mu   sync.Mutex // guards puts
	puts []http.Header
	lose atomic.Int32
}

func (p *proxy) start(t *testing.T, g *gateway) {
	target, err := url.Parse(g.url)
	must(t, err)
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }, // it is signed
		ModifyResponse: func(*http.Response) error {
			if p.lose.Add(-1) >= 0 {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			p.mu.Lock()
			p.puts = append(p.puts, r.Header.Clone())
			p.mu.Unlock()
		}
		reverse.ServeHTTP(w, r)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://"+l.Addr().String())
}

// TestStore: the result gets into the store whole, once, and replaces nothing.
func TestStore(t *testing.T) {
	g := startGateway(t)
	g.keys(t, secret)
	one := lined(t, message.Strict, `{`+stamp+`}`)
	file := publishLines(t, one...)
	to := "s3://" + bucket + "/a/b"
	key := "a/b/" + filepath.Base(parquetOf(file, ""))

	t.Run("new and again", func(t *testing.T) {
		wantStored(t, exitDone, to, "--s3", to, file)
		if n := len(rowsOf(t, g.object(t, key))); n != 1 {
			t.Errorf("%d rows", n)
		}
		wantStored(t, exitDone, to, "--s3", to+"/", file)
		dir := t.TempDir()
		wantStored(t, exitDone, to, "--s3", to, "--out", dir, file)
		in, err := os.ReadFile(parquetOf(file, dir))
		must(t, err)
		if len(rowsOf(t, in)) != 1 {
			t.Error("no result in the folder")
		}
	})
	t.Run("another object", func(t *testing.T) {
		before := g.object(t, key)
		wantStored(t, exitNever, "made of something else", "--s3", to, "--timestamp-field", "ts", file)
		if !bytes.Equal(g.object(t, key), before) {
			t.Error("the object has changed")
		}
	})
	t.Run("an object without metadata", func(t *testing.T) {
		file, dir := publishLines(t, one...), t.TempDir()
		wantStored(t, exitDone, "", "--out", dir, file)
		name := filepath.Base(parquetOf(file, ""))
		_, err := g.FPutObject(t.Context(), bucket, name, parquetOf(file, dir), minio.PutObjectOptions{})
		must(t, err)
		wantStored(t, exitDone, "", "--out", dir, "--s3", "s3://"+bucket, file)
	})
	t.Run("refused", func(t *testing.T) {
		wantStored(t, exitFailure, "bucket", "--s3", "s3://none/", file)
		g.keys(t, "wrong")
		wantStored(t, exitFailure, "signature", "--s3", to, file)
	})
	t.Run("in one request", func(t *testing.T) { testOneRequest(t, g) })
	t.Run("twins", func(t *testing.T) { testStoreTwins(t, g) })
	t.Run("away", func(t *testing.T) {
		file := publishLines(t, one...)
		g.stop()
		wantStored(t, exitLater, "connection refused", "--s3", to, file)
	})
}

// testOneRequest: a result beyond the size where the client would send parts is sent in one
// request, with the condition. When its answer gets lost, the run succeeds all the same.
func testOneRequest(t *testing.T, g *gateway) {
	var p proxy
	p.start(t, g)
	var lines []string
	rng := rand.NewChaCha8([32]byte{})
	part := make([]byte, 90<<10)
	for i := range 200 {
		_, _ = rng.Read(part)
		lines = append(lines, fmt.Sprintf(`{"message_id":"%s.%d",%s,"a":"%x"}`, testID, i, stamp, part))
	}
	file := publishLines(t, lines...)
	p.lose.Store(1)
	wantStored(t, exitDone, "200 rows", "--s3", "s3://"+bucket, file)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.puts) < 1 || len(p.puts) > 3 {
		t.Errorf("%d requests", len(p.puts))
	}
	for _, h := range p.puts {
		if h.Get("If-None-Match") != "*" || h.Get("Content-MD5") == "" {
			t.Errorf("the condition is %q, the sum %q", h.Get("If-None-Match"), h.Get("Content-MD5"))
		}
	}
	in := g.object(t, filepath.Base(parquetOf(file, "")))
	if len(in) < 17<<20 || len(rowsOf(t, in)) != len(lines) {
		t.Errorf("the object has %d bytes", len(in))
	}
}

// testStoreTwins: runs of one file at the same time all succeed.
func testStoreTwins(t *testing.T, g *gateway) {
	file := publishLines(t, lined(t, message.Strict, `{`+stamp+`}`)...)
	var twins sync.WaitGroup
	for range 6 {
		cmd := program(t, nil, "--s3", "s3://"+bucket+"/twins", file)
		twins.Go(func() {
			// Where two arrive together, the store may ask one to come again.
			if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != exitLater {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	twins.Wait()
	wantStored(t, exitDone, "1 rows", "--s3", "s3://"+bucket+"/twins", file)
	g.wantObjects(t, "twins/", 1)
}

// wantObjects counts the objects below a prefix.
func (g *gateway) wantObjects(t *testing.T, prefix string, want int) {
	t.Helper()
	n := 0
	for o := range g.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Prefix: prefix}) {
		must(t, o.Err)
		n++
	}
	if n != want {
		t.Errorf("%d objects, want %d", n, want)
	}
}

// TestStoreSettings: what is wrong with them is told without what they hold.
func TestStoreSettings(t *testing.T) {
	file := publishLines(t, lined(t, message.Strict, `{`+stamp+`}`)...)
	none := filepath.Join(t.TempDir(), "none")
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_CONFIG_FILE", none)
	wantStored(t, exitNever, "no credentials", "--s3", "s3://b", file)
	t.Setenv("AWS_ACCESS_KEY_ID", keyID)
	wantStored(t, exitNever, "no credentials", "--s3", "s3://b", file)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	for _, args := range [][]string{
		{"--s3", "bucket"},
		{"--s3", "https://b/p"},
		{"--s3", "s3://x:" + secret + "@b/p"},
		{"--s3", "s3:///p"},
		{"--s3", "s3://b", "--endpoint", "host:9000"},
		{"--s3", "s3://b", "--endpoint", "http://x:" + secret + "@h"},
		{"--s3", "s3://b", "--endpoint", "http://h/path"},
		{"--s3", "s3://b", "--style", "other"},
	} {
		wantStored(t, exitNever, args[len(args)-2], append(args, file)...)
	}
	must(t, os.WriteFile(none, []byte("[default]\naws_access_key_id = a\naws_secret_access_key = "+secret+"\n"), 0o600))
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	s, err := newStore(location{url: "s3://b/p/q/", endpoint: "https://s3.amazonaws.com", style: "auto"})
	if err != nil || s.bucket != "b" || s.prefix != "p/q" {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = s.upload(t.Context(), &result{size: maxObject + 1}, "x")
	if exitCode(err) != exitNever || !strings.Contains(err.Error(), "ROLL_BYTES") {
		t.Errorf("a result that is too large: %v", err)
	}
}
