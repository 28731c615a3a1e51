package jetstream

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// patience bounds every wait for something that has to happen.
const patience = 2 * time.Minute

// optionsVariable holds a nodeConfig for a child that is a server.
const optionsVariable = "JETSTREAM_TEST_OPTIONS"

// nodeConfig is what differs between the servers of the tests.
type nodeConfig struct {
	Name, Store           string
	Port                  int
	User, Password, Token string
	CA, Cert, Key         string // for TLS
	Cluster               string // its name, if it is part of one
	ClusterPort           int
	Routes                string
	MaxPayload            int32
	LameDuck              time.Duration
	NoJetStream           bool
}

func (c nodeConfig) options() (*server.Options, error) {
	o := &server.Options{
		ServerName: c.Name, Host: "127.0.0.1", Port: c.Port,
		JetStream: !c.NoJetStream, StoreDir: c.Store, SyncAlways: true, JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 4 << 30,
		Username: c.User, Password: c.Password, Authorization: c.Token,
		MaxPayload: 8 << 20, NoLog: true, NoSigs: true,
	}
	if c.MaxPayload > 0 {
		o.MaxPayload = c.MaxPayload
	}
	if c.LameDuck > 0 {
		o.LameDuckDuration, o.LameDuckGracePeriod = c.LameDuck, c.LameDuck/4
	}
	if c.Cluster != "" {
		o.Cluster = server.ClusterOpts{Name: c.Cluster, Host: "127.0.0.1", Port: c.ClusterPort, PoolSize: -1}
		o.Routes = server.RoutesFromStr(c.Routes)
	}
	if c.Cert != "" {
		tc, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: c.Cert, KeyFile: c.Key, CaFile: c.CA, Verify: true})
		if err != nil {
			return nil, err
		}
		o.TLSConfig, o.TLS, o.TLSTimeout = tc, true, 5
	}
	return o, nil
}

// serve is the child that is a server, until SIGTERM or the end of its parent.
func serve() int {
	var c nodeConfig
	if err := json.Unmarshal([]byte(os.Getenv(optionsVariable)), &c); err != nil {
		fmt.Println(err)
		return 2
	}
	o, err := c.options()
	if err != nil {
		fmt.Println(err)
		return 2
	}
	s, err := server.NewServer(o)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		fmt.Println("not ready for connections")
		return 1
	}
	fmt.Println("ready")
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR2)
	orphaned := make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(orphaned)
	}()
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGUSR2 {
				s.LameDuckShutdown()
				return 0
			}
			s.Shutdown()
			s.WaitForShutdown()
			return 0
		case <-orphaned:
			return 3
		}
	}
}

// node is a server process.
type node struct {
	cfg nodeConfig
	mu  sync.Mutex // guards cmd
	cmd *exec.Cmd
}

// newNode starts a server of a test's own.
func newNode(t testing.TB, cfg nodeConfig) *node {
	t.Helper()
	if cfg.Port == 0 {
		cfg.Port = freePort(t)
	}
	if cfg.Store == "" {
		cfg.Store = t.TempDir()
	}
	if cfg.Name == "" {
		cfg.Name = "test"
	}
	n := &node{cfg: cfg}
	n.start(t)
	t.Cleanup(n.kill)
	return n
}

func (n *node) start(t testing.TB) {
	t.Helper()
	if err := n.run(); err != nil {
		t.Fatal(err)
	}
}

func (n *node) run() error {
	options, err := json.Marshal(n.cfg)
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=server", optionsVariable+"="+string(options), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.mu.Lock()
	n.cmd = cmd
	n.mu.Unlock()
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		n.kill()
		return fmt.Errorf("the server did not start: %s", line)
	}
	return nil
}

func (n *node) signal(sig os.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(sig)
	}
}

// end signals the process and waits for its end.
func (n *node) end(sig os.Signal) {
	n.signal(sig)
	n.mu.Lock()
	cmd := n.cmd
	n.cmd = nil
	n.mu.Unlock()
	if cmd != nil {
		_ = cmd.Wait()
	}
}

func (n *node) kill() { n.end(syscall.SIGKILL) }

func (n *node) stop() { n.end(syscall.SIGTERM) }

func (n *node) addr() string { return fmt.Sprintf("127.0.0.1:%d", n.cfg.Port) }

func (n *node) url() string { return "nats://" + n.addr() }

// sharedServer is the server of all tests that disturb no other.
var sharedServer shared

type shared struct {
	once sync.Once
	node *node
	dir  string
	err  error
}

func (s *shared) get(t testing.TB) *node {
	t.Helper()
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "jetstream-test-"); s.err != nil {
			return
		}
		s.node = &node{cfg: nodeConfig{Name: "shared", Store: s.dir, Port: freePort(t)}}
		s.err = s.node.run()
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.node
}

func (s *shared) close() {
	if s.node != nil {
		s.node.kill()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// emptied returns the shared server with no streams.
func emptied(t testing.TB) *node {
	t.Helper()
	n := sharedServer.get(t)
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

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
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
