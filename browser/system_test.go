package browser

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// node is a process of the program.
type node struct {
	*testing.T
	command  string
	settings []string
	Addr     string // host:port
	cmd      *exec.Cmd
}

// launch runs the program until the test ends, and returns once it is ready.
func launch(t *testing.T, command string, settings ...string) *node {
	t.Helper()
	n := &node{T: t, command: command, settings: settings, Addr: "127.0.0.1:0"}
	n.begin()
	t.Cleanup(n.end)
	return n
}

// begin runs the program, again at the same address, until submissions become files.
func (n *node) begin() {
	n.Helper()
	n.listen()
	n.ready()
}

// listen runs the program, and returns once it listens.
func (n *node) listen() {
	n.Helper()
	n.cmd = exec.Command(program(n.T), n.command)
	n.cmd.Env = append([]string{"LISTEN_ADDR=" + n.Addr, "ADMIN_LISTEN_ADDR=" + n.Addr, "LOG_FORMAT=json"}, n.settings...)
	log, err := n.cmd.StderrPipe()
	if err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		n.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	var last string
	for lines.Scan() {
		var l struct{ Addr string }
		if last = lines.Text(); json.Unmarshal(lines.Bytes(), &l) == nil && l.Addr != "" {
			go func() { // else the program would wait for it
				for lines.Scan() {
				}
			}()
			n.Addr = l.Addr
			return
		}
	}
	n.Fatalf("the program does not listen: %v %s", lines.Err(), last)
}

// end stops the program in order, if it runs.
func (n *node) end() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	if err := n.cmd.Wait(); err != nil {
		n.Errorf("the program ends with %v", err)
	}
	n.cmd = nil
}

// ready waits until submissions become files.
func (n *node) ready() {
	n.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + n.Addr + "/readyz")
		if err != nil {
			n.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
	}
	n.Fatal("the program does not become ready")
}

// start runs the program with a store of its own, and returns its address.
func start(t *testing.T, settings ...string) string {
	t.Helper()
	return standalone(t, settings...).Addr
}

func standalone(t *testing.T, settings ...string) *node {
	t.Helper()
	dir := t.TempDir()
	return launch(t, "standalone", append([]string{
		"DATA_OUTPUT_DIR=" + filepath.Join(dir, "output"), "BROKER_URL=embedded://" + filepath.Join(dir, "broker"),
	}, settings...)...)
}

// post submits entries, at a server that is reached at base, and returns the id of the submission.
func post(t *testing.T, base, entries string) string {
	t.Helper()
	resp, err := http.Post(base+"/message", "application/json", strings.NewReader(entries))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var receipt struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&receipt); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("the submission is answered with %s, %v", resp.Status, err)
	}
	return receipt.ID
}

// flow submits an entry ten times a second until the test ends.
func flow(t *testing.T, base string) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case at := <-tick.C:
				body := fmt.Sprintf(`{"timestamp":%q,"value":"flows %d","sensor":"s-%d"}`, at.UTC().Format(time.RFC3339Nano), n, n%7)
				if resp, err := http.Post(base+"/message", "application/json", strings.NewReader(body)); err == nil {
					resp.Body.Close() // a node that stops refuses it
				}
			}
		}
	}()
}

// rabbit is the folder of the node of RabbitMQ that these tests use: that of RABBITMQ_DIR,
// or one of their own.
var rabbit = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("RABBITMQ_DIR"); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "adp-rabbitmq")
	if err != nil {
		return "", err
	}
	closers = append(closers, func() {
		_, _ = rabbitmq(dir, "stop")
		_ = os.RemoveAll(dir)
	})
	_, err = rabbitmq(dir, "start")
	return dir, err
})

// rabbitmq runs scripts/rabbitmq on a node and returns what it prints.
func rabbitmq(dir string, args ...string) (string, error) {
	cmd := exec.Command("../scripts/rabbitmq", args...)
	cmd.Env = append(os.Environ(), "RABBITMQ_DIR="+dir, fmt.Sprintf("RABBITMQ_OWNER=%d", os.Getpid()))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("scripts/rabbitmq %s: %w: %s", args, err, &stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// vhost returns the URL of a fresh virtual host.
func vhost(t *testing.T) string {
	t.Helper()
	dir, err := rabbit()
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%s-%x", strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), time.Now().UnixNano())
	// In one call, since each starts an Erlang machine.
	_, err = rabbitmq(dir, "ctl", "eval", fmt.Sprintf(`rabbit_vhost:add(<<"%s">>, <<"test">>),
		rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"%[1]s">>, <<".*">>, <<".*">>, <<".*">>, <<"test">>).`, name))
	if err != nil {
		t.Fatal(err)
	}
	url, err := rabbitmq(dir, "url")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(url, "/") + "/" + name
}

// program builds the program, once.
func program(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "adp-browser")
	if err != nil {
		return "", err
	}
	closers = append(closers, func() { _ = os.RemoveAll(dir) })
	cmd := exec.Command("go", "build", "-o", dir, "./cmd/async-data-processor")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return filepath.Join(dir, "async-data-processor"), nil
})

// system are a server and two message-consumers over RabbitMQ.
type system struct {
	url       string
	output    string
	server    *node
	consumers [2]*node
}

// startRabbit starts them; the server has more settings.
func startRabbit(t *testing.T, ofServer ...string) *system {
	t.Helper()
	s := &system{url: vhost(t), output: t.TempDir()}
	settings := []string{"BROKER_URL=" + s.url, "DATA_OUTPUT_DIR=" + s.output, "SHARDS_COUNT=3", "BATCH_LINGER=100ms"}
	s.server = launch(t, "server", slices.Concat(settings, []string{"NODE_NAME=intake"}, ofServer)...)
	for i := range s.consumers {
		s.consumers[i] = launch(t, "message-consumer", append(settings, fmt.Sprintf("NODE_NAME=writer-%d", i))...)
	}
	return s
}

// publish puts a message into the queue of a shard, as another program does.
func (s *system) publish(t *testing.T, shard int, body, id string) {
	t.Helper()
	conn, err := amqp.Dial(s.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	var confirmed *amqp.DeferredConfirmation
	if err == nil {
		confirmed, err = channel.PublishWithDeferredConfirm("", fmt.Sprintf("async-data-processor.shard.%d", shard), true, false,
			amqp.Publishing{MessageId: id, Body: []byte(body), DeliveryMode: amqp.Persistent})
	}
	if err != nil {
		t.Fatal(err)
	}
	if !confirmed.Wait() {
		t.Fatal("RabbitMQ does not confirm the message")
	}
}

// line waits for a line of the output that has a text.
func (s *system) line(t *testing.T, text string) string {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(s.output, "shard-*", "*.ndjson"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(content)) {
				if strings.Contains(line, text) {
					return line
				}
			}
		}
	}
	t.Fatalf("no file has %s", text)
	return ""
}
