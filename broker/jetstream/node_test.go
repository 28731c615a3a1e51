package jetstream

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/faults/process"
)

// patience bounds every wait for something that has to happen.
const patience = 2 * time.Minute

// node is a server process.
type node struct {
	process.NATS
	name string // in its cluster
}

// newNode starts a server of a test's own; config is more of its configuration file.
func newNode(t testing.TB, config string) *node {
	t.Helper()
	n := &node{NATS: process.NATS{Dir: t.TempDir(), Config: config}}
	n.start(t)
	t.Cleanup(func() {
		n.Kill()
		n.show(t)
	})
	return n
}

func (n *node) start(t testing.TB) {
	t.Helper()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
}

func (n *node) stop() {
	n.Signal(syscall.SIGTERM)
	<-n.Exited()
}

// show shows the log of the server if the test has failed.
func (n *node) show(t testing.TB) {
	if t.Failed() {
		t.Logf("the log of nats-server at %s:\n%s", n.Addr, n.Dump())
	}
}

func (n *node) url() string { return "nats://" + n.Addr }

// sharedServer is the server of all tests that disturb no other. TestMain makes
// its folder and ends it.
var sharedServer struct {
	node
	once sync.Once
	err  error
}

// emptied returns the shared server with no streams.
func emptied(t testing.TB) *node {
	t.Helper()
	n := &sharedServer.node
	sharedServer.once.Do(func() { sharedServer.err = n.Start() })
	if sharedServer.err != nil {
		t.Fatal(sharedServer.err)
	}
	t.Cleanup(func() { n.show(t) })
	admin(t, n.url(), func(ctx context.Context, js jetstream.JetStream) error {
		for _, name := range []string{ShardStream, DeadStream} {
			if err := js.DeleteStream(ctx, name); err != nil && err != jetstream.ErrStreamNotFound {
				return err
			}
		}
		return nil
	})
	return n
}

// freeAddr returns an address for the routes of a cluster, which have to be known
// before its servers listen.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// admin does something on a connection of its own.
func admin(t testing.TB, url string, do func(context.Context, jetstream.JetStream) error, options ...nats.Option) {
	t.Helper()
	conn, err := nats.Connect(url, append(options, nats.Timeout(patience))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := do(ctx, js); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, ok func() bool, why func() string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", patience, why())
		}
		time.Sleep(5 * time.Millisecond)
	}
}
