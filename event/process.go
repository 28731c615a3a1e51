package event

import "time"

// Started tells that a part of the process is up.
type Started struct {
	// Component is "server", "admin" or "message-consumer".
	Component string
	// Addr is where it listens, Output where its files go; each may be empty.
	Addr, Output string
	// Rolls tells that files roll: several batches go into one.
	Rolls bool
	// Broker is the broker's URL, credentials redacted; empty if it uses none.
	Broker string
	Shards int
	// Tokens is how many tokens may submit.
	Tokens int
	// Open tells that other machines reach it, and no token protects it.
	Open bool
}

// ControlFailed tells that the process has no control socket, by which commands
// reach its dead letters.
type ControlFailed struct{ Err error }

// FolderInMemory tells that what a part keeps in a folder ends with the machine's memory.
type FolderInMemory struct {
	Component string // "broker" or "message-consumer"
	Dir       string
}

// CertificateLoaded tells that the process has a TLS certificate, at the start and
// when its files have changed.
type CertificateLoaded struct {
	Expires time.Time
	// Err is why the files cannot be taken: the certificate before stays in force.
	Err error
}

// Draining tells that the process has begun to stop.
type Draining struct{ Cause error } // nil if it was asked to by a signal

// Drained tells that the process has drained.
type Drained struct{}

func (Started) event()           {}
func (ControlFailed) event()     {}
func (CertificateLoaded) event() {}
func (FolderInMemory) event()    {}
func (Draining) event()          {}
func (Drained) event()           {}
