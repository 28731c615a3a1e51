package rig

import (
	"path/filepath"
	"testing"
)

// Broker is a broker for one test.
type Broker struct {
	// Server and Consumer are the URLs for the two processes. Without one for
	// the consumer both halves are one process, with the broker in it.
	Server, Consumer string
	// Stop and Start are the broker's; nil where it lives in a process of ours.
	Stop, Start func()
	// Stall stops it from answering, Resume lets it; nil like Stop.
	Stall, Resume func()
}

// Launch starts the pipeline with the settings, and waits until it is ready.
func (b Broker) Launch(t testing.TB, settings ...string) (consumer, server *Process) {
	t.Helper()
	if b.Consumer == "" {
		p := Start(t, "standalone", append(settings, "BROKER_URL="+b.Server)...).Ready()
		return p, p
	}
	server = b.LaunchServer(t, settings...)
	return b.LaunchConsumer(t, settings...), server
}

// LaunchServer starts a server alone, and waits until it is ready.
func (b Broker) LaunchServer(t testing.TB, settings ...string) *Process {
	t.Helper()
	return Start(t, "server", append(settings, "BROKER_URL="+b.Server)...).Ready()
}

// LaunchConsumer starts a message-consumer alone, and waits until it is ready.
func (b Broker) LaunchConsumer(t testing.TB, settings ...string) *Process {
	t.Helper()
	return Start(t, "message-consumer", append(settings, "BROKER_URL="+b.Consumer)...).Ready()
}

// NewStore is an embedded broker in the process of both halves.
func NewStore(t testing.TB) Broker {
	return Broker{Server: "embedded://" + filepath.Join(t.TempDir(), "broker")}
}
