package jetstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
)

const (
	user     = "alice"
	password = "p@ss,w:rd/%41"
	escaped  = "p%40ss%2Cw%3Ard%2F%2541"
)

func TestUserAndPassword(t *testing.T) {
	t.Parallel()
	n := newNode(t, fmt.Sprintf("authorization { user: %q, password: %q }", user, password))
	b := openBroker(t, Config{URL: "nats://" + user + ":" + escaped + "@" + n.Addr})
	awaitReady(t, b)
	publish(t, b, envelope(0))
	refusedAs(t, "nats://"+user+":wr0ng-secret@"+n.Addr, "wr0ng-secret", "nats://alice@"+n.Addr+": access refused")
	refusedAs(t, "nats://"+n.Addr, "", "access refused")
}

func TestToken(t *testing.T) {
	t.Parallel()
	n := newNode(t, "authorization { token: t0ken-secret }")
	b := openBroker(t, Config{URL: "nats://t0ken-secret@" + n.Addr})
	awaitReady(t, b)
	publish(t, b, envelope(0))
	refusedAs(t, "nats://wr0ng-secret@"+n.Addr, "wr0ng-secret", "nats://"+n.Addr+": access refused")
}

// refusedAs opens a client that the server refuses: in one clear line, without
// the secret, and not again for a while.
func refusedAs(t *testing.T, url, secret, want string) {
	t.Helper()
	told := &events{}
	b := openBroker(t, Config{URL: url, Events: told.add})
	n := told.awaitState(t, event.Unreachable, want)
	if n.Retry < defaultTiming.Refused/2 {
		t.Errorf("it is tried again after %v, want not so soon", n.Retry)
	}
	err := brokertest.Publish(t.Context(), b, envelope(0))
	for _, err := range []error{n.Err, b.Ready(), err} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
			continue
		}
		if secret != "" && strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q shows the secret or has more than a line", err)
		}
	}
	if !errors.Is(err, broker.ErrRejected) {
		t.Errorf("%v, want ErrRejected", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := certificates(t)
	n := newNode(t, fmt.Sprintf("tls { ca_file: %q, cert_file: %q, key_file: %q, verify: true, timeout: 5 }", ca, cert, key))
	b := openBroker(t, Config{URL: "tls://" + n.Addr, CA: ca, Cert: cert, Key: key})
	awaitReady(t, b)
	publish(t, b, envelope(0))
	d := consume(t, b, 0, 1).next()
	settled(t, d, 0)

	told := &events{}
	openBroker(t, Config{URL: "tls://" + n.Addr, Cert: cert, Key: key, Events: told.add})
	told.awaitState(t, event.Unreachable, "certificate is not trusted")

	plain := newNode(t, "")
	told = &events{}
	openBroker(t, Config{URL: "tls://" + plain.Addr, Events: told.add})
	told.awaitState(t, event.Unreachable, "speaks no TLS")
}

// certificates makes an authority, and a certificate of its for 127.0.0.1.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	template := func(serial int64, authority bool) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: authority, BasicConstraintsValid: true,
			KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	caDER, err := x509.CreateCertificate(rand.Reader, template(1, true), template(1, true), &caKey.PublicKey, caKey)
	check(err)
	caCert, err := x509.ParseCertificate(caDER)
	check(err)
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	leafDER, err := x509.CreateCertificate(rand.Reader, template(2, false), caCert, &leafKey.PublicKey, caKey)
	check(err)
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	check(err)
	return write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "EC PRIVATE KEY", keyDER)
}
