package server

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	"async-data-processor/reload"
)

const (
	// maxPEMBytes is the longest file of a certificate or a key. A long chain has
	// some 20 KiB.
	maxPEMBytes = 1 << 20
	// With HTTP/2 a connection carries secureStreams requests at a time, so each may
	// have less header: together six times maxHeaderBytes.
	secureHeaderBytes = 64 << 10
	secureStreams     = 100
	// pingAfter is how long a connection with HTTP/2 may be silent before its client has
	// to show that it reads.
	pingAfter = 30 * time.Second
)

// Certificate is a TLS certificate and its key, in two PEM files that may change.
type Certificate struct{ *reload.Files[tls.Certificate] }

// LoadCertificate reads both files. The first certificate is the server's own; those
// of its authorities follow.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	files, err := reload.Load(func(texts [][]byte) (tls.Certificate, error) {
		pair, err := tls.X509KeyPair(texts[0], texts[1])
		if err != nil {
			err = fmt.Errorf("%s with %s: %w", certFile, keyFile, err)
		}
		return pair, err
	}, maxPEMBytes, certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return &Certificate{files}, nil
}

// Expires returns when the certificate in force does. It may be called concurrently.
func (c *Certificate) Expires() time.Time { return c.Current().Leaf.NotAfter }

// secure has h speak TLS with the certificate, and so HTTP/2 as well.
func (c *Certificate) secure(h *http.Server) {
	h.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Current(), nil },
	}
	h.MaxHeaderBytes = secureHeaderBytes
	h.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: secureStreams,
		// Else nothing ends a connection whose client has stopped to read.
		WriteByteTimeout: answerTimeout, SendPingTimeout: pingAfter, PingTimeout: answerTimeout,
	}
}
