package rabbitmq

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// TestMain stops what the tests have started.
func TestMain(m *testing.M) {
	code := m.Run()
	private.stop()
	shared.drop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const script = "../../scripts/rabbitmq"

// run runs scripts/rabbitmq for the node of a folder; an empty one is the
// developer's.
func run(dir string, args ...string) (string, error) {
	cmd := exec.Command(script, args...)
	cmd.Env = append(os.Environ(), "RABBITMQ_URL=", "RABBITMQ_DIR="+dir, fmt.Sprint("RABBITMQ_OWNER=", os.Getpid()))
	// A file, since for a buffer exec starts goroutines, which the other tests
	// would take for leaks while the node starts.
	f, err := os.CreateTemp("", "rabbitmq-output-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	out, readErr := os.ReadFile(f.Name())
	if err = errors.Join(err, readErr); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", script, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), nil
}

// node is a second node, for the tests that stop, stall or block one.
type node struct {
	once    sync.Once
	dir     string
	started chan struct{} // closed when url and err are set
	url     string
	err     error
}

var private node

// start starts the node in the background, once.
func (n *node) start() { n.once.Do(n.launch) }

func (n *node) launch() {
	n.dir = filepath.Join(os.TempDir(), fmt.Sprint("adp-rabbitmq-", os.Getpid()))
	n.started = make(chan struct{})
	go func() {
		defer close(n.started)
		if _, n.err = run(n.dir, "start"); n.err == nil {
			n.url, n.err = run(n.dir, "url")
		}
	}()
}

func (n *node) stop() {
	if n.dir == "" {
		return
	}
	<-n.started
	if _, err := run(n.dir, "stop"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	_ = os.RemoveAll(n.dir)
}

// must runs the script for the node.
func (n *node) must(t testing.TB, args ...string) {
	t.Helper()
	if _, err := run(n.dir, args...); err != nil {
		t.Fatal(err)
	}
}

// privateNode returns the private node's URL.
func privateNode(t testing.TB) string {
	t.Helper()
	sharedNode(t) // so that both are asked for in the same way
	private.start()
	<-private.started
	if private.err != nil {
		t.Fatal(private.err)
	}
	return private.url
}

// vhost is a virtual host of this test run on the shared node, where other
// tests use the same queue names.
type vhost struct {
	once  sync.Once
	url   string
	name  string // empty if the URL is used as it is
	fault error
}

var shared vhost

// sharedNode returns the URL of the node that must not be disturbed.
func sharedNode(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs RabbitMQ")
	}
	given := os.Getenv("RABBITMQ_URL")
	if given == "" {
		t.Fatal("RABBITMQ_URL is not set: run scripts/rabbitmq start, and set it to what scripts/rabbitmq url prints")
	}
	shared.once.Do(func() { shared.make(given) })
	if shared.fault != nil {
		t.Fatal(shared.fault)
	}
	return shared.url
}

func (v *vhost) make(given string) {
	v.url = given
	if ours, err := run("", "url"); err != nil || ours != given {
		return // not a node of the script: it is used as given
	}
	v.name = "test-" + rand.Text()
	if _, v.fault = run("", "ctl", "add_vhost", v.name); v.fault != nil {
		return
	}
	if _, v.fault = run("", "ctl", "set_permissions", "-p", v.name, "guest", ".*", ".*", ".*"); v.fault == nil {
		v.url = withPath(given, "/"+v.name)
	}
}

func (v *vhost) drop() {
	if v.name != "" {
		_, _ = run("", "ctl", "delete_vhost", v.name)
	}
}

func withPath(raw, path string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	u.Path = path
	return u.String()
}

func withHost(raw, host string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	u.Host = host
	return u.String()
}
