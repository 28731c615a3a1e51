package server

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
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
type Certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]

	// Only the goroutine that calls Reload uses what follows: what the files held as
	// they were taken, and at the last look.
	taken, last [sha256.Size]byte
}

// LoadCertificate reads both files. The first certificate is the server's own; those
// of its authorities follow.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	pair, sum, err := c.read()
	if err != nil {
		return nil, err
	}
	c.current.Store(pair)
	c.taken, c.last = sum, sum
	return c, nil
}

// Reload takes what the files hold, if that is new, and tells whether it did. Two
// looks have to find the same, because others may be writing the files. An error
// says why they cannot be taken; then the certificate stays what it was.
func (c *Certificate) Reload() (changed bool, err error) {
	pair, sum, err := c.read()
	settled := sum == c.last
	c.last = sum
	if !settled || sum == c.taken {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.current.Store(pair)
	c.taken = sum
	return true, nil
}

// Expires returns when the certificate in force does. It may be called concurrently.
func (c *Certificate) Expires() time.Time { return c.current.Load().Leaf.NotAfter }

// read returns what the files hold, or why that is no certificate, and the sum of
// either.
func (c *Certificate) read() (pair *tls.Certificate, sum [sha256.Size]byte, err error) {
	cert, err := readPEM(c.certFile)
	key, keyErr := readPEM(c.keyFile)
	if err = errors.Join(err, keyErr); err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	sum = sha256.Sum256(slices.Concat(cert, []byte{0}, key))
	loaded, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, sum, fmt.Errorf("%s with %s: %w", c.certFile, c.keyFile, err)
	}
	return &loaded, sum, nil
}

// readPEM does not wait for what is no file, such as a pipe.
func readPEM(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file, its mode is %v", path, info.Mode())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPEMBytes+1))
	if err == nil && len(text) > maxPEMBytes {
		err = fmt.Errorf("%s is longer than 1 MiB", path)
	}
	return text, err
}

// secure has h speak TLS with the certificate, and so HTTP/2 as well.
func (c *Certificate) secure(h *http.Server) {
	h.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
	h.MaxHeaderBytes = secureHeaderBytes
	h.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: secureStreams,
		// Else nothing ends a connection whose client has stopped to read.
		WriteByteTimeout: answerTimeout, SendPingTimeout: pingAfter, PingTimeout: answerTimeout,
	}
}
