package pipeline

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"async-data-processor/event"
	"async-data-processor/server"
)

// certificateInterval is how often the files of the certificate are looked at. What
// is new is in force after two looks.
const certificateInterval = time.Second

// CheckCertificate fails if the settings name a certificate that cannot be read with its
// key. It reads both files.
func (c Config) CheckCertificate() error {
	if c.TLSCert == "" {
		return nil
	}
	_, err := c.readCertificate()
	return err
}

func (c Config) readCertificate() (*server.Certificate, error) {
	certificate, err := server.LoadCertificate(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	return certificate, nil
}

// loadCertificate gives the process its certificate, if the settings name one.
func (p *process) loadCertificate() (err error) {
	if p.cfg.TLSCert == "" {
		return nil
	}
	if p.certificate, err = p.cfg.readCertificate(); err != nil {
		return err
	}
	p.started = append(p.started, event.CertificateLoaded{Expires: p.certificate.Expires()})
	p.meanwhile = append(p.meanwhile, func(ctx context.Context) { watchCertificate(ctx, p.certificate, p.events) })
	return nil
}

// watchCertificate has the certificate follow its files until ctx ends, and tells
// of what is new, and once of what cannot be taken.
func watchCertificate(ctx context.Context, c *server.Certificate, events event.Sink) {
	c.Follow(ctx, certificateInterval, func(err error) { events.Send(event.CertificateLoaded{Expires: c.Expires(), Err: err}) })
}

// TrustOnly returns the settings of a TLS client that takes the first certificate in
// a PEM file, whatever its names and dates, and no other. It reads the file for
// each connection.
func TrustOnly(certFile string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection is stricter
		VerifyConnection: func(s tls.ConnectionState) error {
			text, err := os.ReadFile(certFile)
			if err != nil {
				return err
			}
			block, rest := pem.Decode(text)
			for block != nil && block.Type != "CERTIFICATE" {
				block, rest = pem.Decode(rest)
			}
			if block == nil || !bytes.Equal(block.Bytes, s.PeerCertificates[0].Raw) {
				return fmt.Errorf("the server's certificate is not the one in %s", certFile)
			}
			return nil
		},
	}
}
