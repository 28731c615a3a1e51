package runner

import (
	"bytes"
	"io"
	"strings"
)

// shortestSecret is the length from which on a secret is masked. Shorter ones are in every
// log by chance.
const shortestSecret = 4

var masked = []byte("***")

// masker passes on what is written, with "***" in place of secrets, also of those that
// overlap, or come in several parts. It keeps back only what may be the beginning of one.
// Its user is one goroutine.
type masker struct {
	out     io.Writer
	secrets [][]byte
	first   [256]bool // bytes that a secret begins with
	held    []byte    // what may be the beginning of a secret
	covered int       // how many bytes from the next on are of a secret that is masked
	buffer  []byte
}

func newMasker(out io.Writer, secrets []string) *masker {
	m := &masker{out: out}
	for _, s := range secrets {
		// A line break at the end of a variable is no part of what is printed.
		if s = strings.TrimSpace(s); len(s) >= shortestSecret {
			m.secrets = append(m.secrets, []byte(s))
			m.first[s[0]] = true
		}
	}
	return m
}

func (m *masker) Write(p []byte) (int, error) {
	return len(p), m.pass(p, false)
}

// Close passes on what was kept back.
func (m *masker) Close() error { return m.pass(nil, true) }

func (m *masker) pass(p []byte, final bool) error {
	if len(m.secrets) == 0 {
		_, err := m.out.Write(p)
		return err
	}
	in := append(m.held, p...)
	out, i := m.buffer[:0], 0
	for ; i < len(in); i++ {
		if m.first[in[i]] {
			n, open := m.match(in[i:])
			if open && !final {
				break
			}
			if n > 0 && m.covered == 0 {
				out = append(out, masked...)
			}
			m.covered = max(m.covered, n)
		}
		if m.covered > 0 {
			m.covered--
			continue
		}
		out = append(out, in[i])
	}
	m.held = append(m.held[:0], in[i:]...)
	m.buffer = out
	_, err := m.out.Write(out)
	return err
}

// match returns the length of the longest secret that text begins with, or 0. open tells
// that text may be the beginning of a longer one.
func (m *masker) match(text []byte) (n int, open bool) {
	for _, s := range m.secrets {
		switch {
		case bytes.HasPrefix(text, s):
			n = max(n, len(s))
		case len(text) < len(s) && bytes.HasPrefix(s, text):
			open = true
		}
	}
	return n, open
}
