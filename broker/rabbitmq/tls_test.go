package rabbitmq

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// TestTLS: amqps works, with the authority named in the URL.
func TestTLS(t *testing.T) {
	url := sharedNode(t)
	engine(t, url, url)
	cert, authority := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var loops sync.WaitGroup
	loops.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", hostOf(url))
			if err != nil {
				_ = client.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
				loops.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = client.Close()
					_ = server.Close()
				})
			}
		}
	})
	defer loops.Wait()
	defer l.Close()
	secure := strings.Replace(withHost(url, l.Addr().String()), "amqp://", "amqps://", 1)
	b, _ := openBroker(t, secure+"?cacertfile="+authority, defaultTiming)
	ready(t, b)
	body := bytes.Repeat([]byte("x"), message.MaxEnvelopeBytes)
	if err := brokertest.Publish(t.Context(), b, message.Envelope{ID: "secret", Count: 1, Body: body}); err != nil {
		t.Fatal(err)
	}
	if d := next(t, consume(t, b, 0)); !bytes.Equal(d.Body, body) {
		t.Error("the body was altered")
	}
	strict, _ := openBroker(t, secure, quick())
	soon(t, "refused", func() bool {
		return strings.Contains(fmt.Sprint(strict.Ready()), "certificate")
	})
	_ = strict.Close()
	_ = b.Close()
}

func certificate(t *testing.T) (cert tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
