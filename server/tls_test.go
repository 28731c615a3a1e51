package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// newPair is a certificate of that name and its key, in PEM.
func newPair(t testing.TB, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// files are a certificate and its key on disk.
type files struct {
	t         testing.TB
	cert, key string
}

func newFiles(t testing.TB) files {
	dir := t.TempDir()
	return files{t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

func (f files) write(cert, key []byte) {
	f.t.Helper()
	must(f.t, os.WriteFile(f.cert, cert, 0o600))
	must(f.t, os.WriteFile(f.key, key, 0o600))
}

func (f files) load() *Certificate {
	f.t.Helper()
	c, err := LoadCertificate(f.cert, f.key)
	must(f.t, err)
	return c
}

// startTLS is start with a certificate; rg.client trusts it.
func startTLS(t testing.TB, cfg Config, adjust ...func(*Server)) *rig {
	f := newFiles(t)
	f.write(newPair(t, "a"))
	cfg.Certificate = f.load()
	rg := start(t, cfg, adjust...)
	rg.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	return rg
}

// secret sends a request over TLS.
func (rg *rig) secret(method, path, body string, header ...string) answer {
	rg.t.Helper()
	return rg.send(method, "https://"+rg.addr+path, strings.NewReader(body), header...)
}

func TestTLS(t *testing.T) {
	rg := startTLS(t, Config{})
	a := rg.secret("POST", "/message", entry, "Content-Type", "application/json")
	want201(t, a, 1)
	if a.ProtoMajor != 2 || a.TLS.Version != tls.VersionTLS13 {
		t.Errorf("got %s over %s", a.Proto, tls.VersionName(a.TLS.Version))
	}
	if a := rg.secret("POST", "/message", entry); a.ProtoMajor != 2 {
		t.Errorf("got %s", a.Proto)
	} else {
		wantProblem(t, a, unsupportedMediaType)
	}
	old := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, MaxVersion: tls.VersionTLS12}
	rg.client.CloseIdleConnections()
	rg.client.Transport = &http.Transport{TLSClientConfig: old}
	if a := rg.secret("POST", "/message", entry, "Content-Type", "application/json"); a.ProtoMajor != 1 {
		t.Errorf("got %s", a.Proto)
	}
	if a := rg.secret("GET", "/livez", "", "Authorization", "Bearer "+strings.Repeat("x", 2*secureHeaderBytes)); a.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a long header: got %d", a.StatusCode)
	}
	if a := rg.raw("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); a.StatusCode != 400 || len(rg.submissions()) != 2 {
		t.Errorf("without TLS: got %d %s", a.StatusCode, a.body)
	}
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if c, err := tls.Dial("tcp", rg.addr, old); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

// frames is a client of HTTP/2 that sends what it likes.
type frames struct {
	*http2.Framer
	t    testing.TB
	conn net.Conn
	head bytes.Buffer
	enc  *hpack.Encoder
	// streams is how many the server lets a connection have at a time.
	streams uint32
}

func (rg *rig) frames() *frames {
	rg.t.Helper()
	c, err := tls.Dial("tcp", rg.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	must(rg.t, err)
	rg.t.Cleanup(func() { c.Close() })
	must(rg.t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(c, http2.ClientPreface)
	must(rg.t, err)
	f := &frames{t: rg.t, conn: c, Framer: http2.NewFramer(c, c)}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.enc = hpack.NewEncoder(&f.head)
	must(rg.t, f.WriteSettings())
	return f
}

// ask sends the header of a request, and not its body.
func (f *frames) ask(stream uint32, end bool, header ...string) {
	f.t.Helper()
	f.head.Reset()
	for i := 0; i < len(header); i += 2 {
		must(f.t, f.enc.WriteField(hpack.HeaderField{Name: header[i], Value: header[i+1]}))
	}
	must(f.t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: f.head.Bytes(), EndHeaders: true, EndStream: end}))
}

// status returns the status of a stream's answer.
func (f *frames) status(stream uint32) string {
	f.t.Helper()
	for {
		frame, err := f.ReadFrame()
		must(f.t, err)
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if frame.StreamID == stream {
				return frame.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == stream {
				return frame.ErrCode.String()
			}
		case *http2.SettingsFrame:
			if n, ok := frame.Value(http2.SettingMaxConcurrentStreams); ok {
				f.streams = n
			}
		case *http2.GoAwayFrame:
			f.t.Fatalf("go away: %v", frame)
		}
	}
}

// TestHTTP2Attacks: what HTTP/2 adds is judged and bounded as the rest.
func TestHTTP2Attacks(t *testing.T) {
	rg := startTLS(t, Config{}, func(s *Server) { s.http.ReadTimeout = 2 * time.Second })
	f := rg.frames()
	stream := uint32(1)
	for _, host := range []string{"evil.example", "evil.example:443", "localhost@evil.example", "user@localhost", "localho\u017ft", "localhost\x00"} {
		for _, header := range [][]string{{":authority", host, "host", "localhost"}, {":authority", host}, {"host", host}} {
			f.ask(stream, true, append([]string{":method", "GET", ":scheme", "https", ":path", "/livez"}, header...)...)
			if got := f.status(stream); got != "421" && got != "PROTOCOL_ERROR" {
				t.Errorf("to %q: got %s", header, got)
			}
			stream += 2
		}
	}
	f.ask(101, true, ":method", "GET", ":scheme", "https", ":path", "/livez", ":authority", "localhost")
	if got := f.status(101); got != "200" {
		t.Errorf("to localhost: got %s", got)
	}
	// A body that never comes.
	f.ask(103, false, ":method", "POST", ":scheme", "https", ":path", "/message", ":authority", "localhost", "content-type", "application/json")
	if got := f.status(103); got != "408" {
		t.Errorf("a stalled body: got %s", got)
	}
	rg.wantSubmitted(0)
	if f.streams != secureStreams {
		t.Errorf("%d streams at a time, want %d", f.streams, secureStreams)
	}
}

// TestHTTP2Drain: a shutdown lets the requests under way end, and ends connections.
func TestHTTP2Drain(t *testing.T) {
	rg := startTLS(t, Config{})
	entered, release := rg.hold()
	underWay := make(chan answer)
	go func() { underWay <- rg.secret("POST", "/message", entry, "Content-Type", "application/json") }()
	<-entered
	stopped := make(chan error)
	go func() { stopped <- rg.server.Shutdown(context.Background()) }()
	<-rg.server.closing.Done()
	close(release)
	want201(t, <-underWay, 1)
	must(t, <-stopped)
}

// TestReload: a certificate is taken when its files are whole and at rest, and
// stays while they are not.
func TestReload(t *testing.T) {
	f := newFiles(t)
	oldCert, oldKey := newPair(t, "old")
	newCert, newKey := newPair(t, "new")
	authority, _ := newPair(t, "authority")
	chain := append(bytes.Clone(newCert), authority...)
	f.write(oldCert, oldKey)
	c := f.load()
	name := func() string { return c.Current().Leaf.DNSNames[0] }
	look := func(what string, changed, fails bool, want string) {
		t.Helper()
		got, err := c.Reload()
		if got != changed || (err != nil) != fails || name() != want {
			t.Errorf("%s: changed %v, %v, and %q is in force", what, got, err, name())
		}
	}
	look("nothing new", false, false, "old")

	// The files are written bit by bit, and each state is seen once.
	for n := 0; n < len(chain); n += 97 {
		f.write(chain[:n], oldKey)
		look("half a certificate", false, false, "old")
	}
	f.write(newCert, newKey)
	look("a chain without its end", false, false, "old")
	f.write(chain, newKey[:50])
	look("half a key", false, false, "old")
	// A state that lasts is told, each time, and does no harm.
	look("half a key, still", false, true, "old")
	look("half a key, still", false, true, "old")
	for what, pair := range map[string][2][]byte{
		"another key": {newCert, oldKey}, "no certificate": {nil, newKey}, "no key": {newCert, nil}, "swapped": {newKey, newCert},
		"too long": {bytes.Repeat([]byte("#"), maxPEMBytes+1), newKey}, "no PEM": {[]byte("\x00"), []byte("\xff")},
	} {
		f.write(pair[0], pair[1])
		look(what, false, false, "old")
		look(what, false, true, "old")
	}
	must(t, os.Remove(f.key))
	look("no file", false, false, "old")
	look("no file", false, true, "old")
	must(t, os.Mkdir(f.key, 0o700))
	look("a folder", false, false, "old")
	look("a folder", false, true, "old")
	must(t, os.Remove(f.key))
	must(t, syscall.Mkfifo(f.key, 0o600))
	look("a pipe", false, false, "old")
	look("a pipe", false, true, "old")
	must(t, os.Remove(f.key))

	f.write(chain, newKey)
	look("new", false, false, "old")
	look("new", true, false, "new")
	if n := len(c.Current().Certificate); n != 2 {
		t.Errorf("%d certificates in the chain, want 2", n)
	}
	look("new", false, false, "new")

	// What was in force comes back: nothing to tell.
	f.write(nil, nil)
	look("empty", false, false, "new")
	f.write(chain, newKey)
	look("as before", false, false, "new")
}

// TestReloadUnderWay: new connections get the new certificate, and those there are
// go on.
func TestReloadUnderWay(t *testing.T) {
	f := newFiles(t)
	f.write(newPair(t, "old"))
	cert := f.load()
	rg := start(t, Config{Certificate: cert})
	dial := func() *tls.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", rg.addr, &tls.Config{InsecureSkipVerify: true})
		must(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	before := dial()
	f.write(newPair(t, "new"))
	for range 2 {
		_, err := cert.Reload()
		must(t, err)
	}
	after := dial()
	for c, want := range map[*tls.Conn]string{before: "old", after: "new"} {
		if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("got the certificate %q, want %q", got, want)
		}
		_, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		must(t, err)
		if a := readConn(t, c, "GET"); a.StatusCode != 200 {
			t.Errorf("%s: got %d", want, a.StatusCode)
		}
	}
}

func TestLoadCertificateFails(t *testing.T) {
	f := newFiles(t)
	if _, err := LoadCertificate(f.cert, f.key); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), f.key) {
		t.Errorf("got %v, want both files", err)
	}
	cert, key := newPair(t, "a")
	f.write(cert, key[:100])
	if c, err := LoadCertificate(f.cert, f.key); c != nil || err == nil || !strings.Contains(err.Error(), f.key) || strings.Contains(err.Error(), string(key[30:60])) {
		t.Errorf("got %v", err)
	}
}
