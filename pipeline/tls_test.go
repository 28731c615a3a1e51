package pipeline

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"async-data-processor/event"
	"async-data-processor/server"
)

// certificate writes the certificate and the key of net/http/httptest.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TestOverTLS: the whole of it, by the one client that is in the process.
func TestOverTLS(t *testing.T) {
	cert, key := certificate(t)
	w := newWorksWith(t, wraps{demo: true}, func(cfg *Config) { cfg.TLSCert, cfg.TLSKey = cert, key })
	w.eventually("demo entries in files", func() bool { return len(w.values()) > 0 })
	if status, text := w.status("/livez"); status != http.StatusBadRequest {
		t.Errorf("without TLS: got %d %s", status, text)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if !w.logged(`"message":"certificate loaded"`) {
		t.Errorf("nothing is told of the certificate:\n%s", &w.log)
	}
}

// TestWatchCertificate: what happens to the files is told once, and within three
// seconds.
func TestWatchCertificate(t *testing.T) {
	certFile, keyFile := certificate(t)
	c, err := server.LoadCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var told []string
		go watchCertificate(t.Context(), c, func(e event.Event) {
			what, err := "new", e.(event.CertificateLoaded).Err
			if err != nil {
				what = "bad"
			}
			told = append(told, what)
		})
		for i, step := range []struct {
			text []byte
			want string
		}{
			{good, ""},
			{good[:100], "bad"},
			{good[:100], "bad"},
			{good, "bad new"}, // it is again what is used
			{good[:100], "bad new bad"},
			{append([]byte("# renewed\n"), good...), "bad new bad new"},
			{good[:100], "bad new bad new bad"},
			{good, "bad new bad new bad new"},
		} {
			if err := os.WriteFile(certFile, step.text, 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * certificateInterval)
			synctest.Wait()
			if got := strings.Join(told, " "); got != step.want {
				t.Errorf("after step %d: told %q, want %q", i, got, step.want)
			}
		}
	})
}

// TestTrustOnly: another certificate is not trusted.
func TestTrustOnly(t *testing.T) {
	cert, _ := certificate(t)
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of clients that do not trust it
	s.StartTLS()
	defer s.Close()
	get := func() error {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: TrustOnly(cert)}}
		defer client.CloseIdleConnections()
		resp, err := client.Get(s.URL)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Error(err)
	}
	other := append([]byte("x"), s.Certificate().Raw...)
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := get(); err == nil || !strings.Contains(err.Error(), "is not the one") {
		t.Errorf("another certificate: %v", err)
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if err := get(); err == nil {
		t.Error("no certificate, and it trusts")
	}
}
