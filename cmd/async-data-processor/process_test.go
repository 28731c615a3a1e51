package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of the end-to-end tests. It is no expectation of
// speed: only a test that fails uses it up.
const patience = 60 * time.Second

// process is a running command of the program.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string // its HTTP address

	mu     sync.Mutex // guards what follows
	lines  []logLine
	others []string      // what it printed that is no log line
	grown  chan struct{} // closed and replaced when a line comes

	exited chan struct{} // closed when it has ended and everything is read
	code   int           // set before exited is closed
}

// logLine is what the tests read of a line in the log.
type logLine struct {
	Message    string `json:"message"`
	Level      string `json:"level"`
	Addr       string `json:"addr"`
	Worker     string `json:"worker"`
	Reason     string `json:"reason"`
	State      string `json:"state"`
	Messages   int    `json:"messages"`
	Batches    int    `json:"batches"`
	Duplicates int    `json:"duplicates"`
	Error      string `json:"error"`
	Shard      int    `json:"shard"`
}

// start runs the program with the settings, "NAME=value", as its environment,
// and waits until it listens. Its ports are free ones.
func start(t *testing.T, command string, settings ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command("async-data-processor", command), grown: make(chan struct{}), exited: make(chan struct{})}
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "LISTEN_ADDR=127.0.0.1:0", "ADMIN_LISTEN_ADDR=127.0.0.1:0", "LOG_LEVEL=debug",
		"GOCOVERDIR=" + t.TempDir(), // or a binary built for coverage would complain
	}, settings...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(stderr)
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("the log of %s:\n%s", command, p.dump())
		}
	})
	p.await("its address", func(l logLine) bool {
		if l.Addr != "" {
			p.addr = l.Addr
		}
		return l.Addr != ""
	})
	return p
}

func (p *process) read(stderr io.Reader) {
	for in := bufio.NewScanner(stderr); in.Scan(); {
		var l logLine
		err := json.Unmarshal(in.Bytes(), &l)
		p.mu.Lock()
		if err != nil || l.Message == "" {
			p.others = append(p.others, in.Text())
		} else {
			p.lines = append(p.lines, l)
		}
		close(p.grown)
		p.grown = make(chan struct{})
		p.mu.Unlock()
	}
	p.cmd.Wait()
	p.code = p.cmd.ProcessState.ExitCode()
	close(p.exited)
}

// await returns the first line in the log, old or new, that is as wanted.
func (p *process) await(what string, wanted func(logLine) bool) logLine {
	p.t.Helper()
	expired := time.After(patience)
	for seen := 0; ; {
		p.mu.Lock()
		fresh, grown := p.lines[seen:], p.grown
		p.mu.Unlock()
		for _, l := range fresh {
			if wanted(l) {
				return l
			}
		}
		seen += len(fresh)
		select {
		case <-grown:
		case <-p.exited:
			p.t.Fatalf("exit %d before %s:\n%s", p.code, what, p.dump())
		case <-expired:
			p.t.Fatalf("no %s in the log:\n%s", what, p.dump())
		}
	}
}

// ready waits until the process says that it is.
func (p *process) ready() *process {
	p.t.Helper()
	eventually(p.t, "being ready", func() error {
		resp, err := http.Get("http://" + p.addr + "/readyz?verbose")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(resp.Body)
			return fmt.Errorf("%s: %s", resp.Status, body)
		}
		return nil
	})
	return p
}

// stop sends SIGTERM and returns the exit code.
func (p *process) stop() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
	return p.wait()
}

func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("it does not exit:\n%s", p.dump())
	}
	return p.code
}

// kill is kill -9.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// history returns the last record of each worker; the process has exited.
func (p *process) history() map[string]logLine {
	records := make(map[string]logLine)
	for _, l := range p.lines {
		if l.Message == "worker history" {
			records[l.Worker] = l
		}
	}
	return records
}

// settled returns how many messages were written so far, and how many were
// duplicates.
func (p *process) settled() (sum logLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		switch l.Message {
		case "batch written":
			sum.Messages += l.Messages
		case "duplicates not written again":
			sum.Duplicates += l.Duplicates
		}
	}
	return sum
}

// errors returns what the log has of the level error.
func (p *process) errors() (found []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if l.Level == "error" {
			found = append(found, l.Message+": "+l.Error)
		}
	}
	return append(found, p.others...)
}

func (p *process) dump() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, l := range p.lines[max(0, len(p.lines)-60):] {
		fmt.Fprintf(&b, "%+v\n", l)
	}
	return b.String() + strings.Join(p.others, "\n")
}

// post sends a body and returns the status and, of a 201, the receipt.
func (p *process) post(body string, headers ...string) (int, receipt, http.Header) {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+p.addr+"/message", bytes.NewBufferString(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, receipt{}, nil
	}
	defer resp.Body.Close()
	var r receipt
	if resp.StatusCode == http.StatusCreated {
		if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
			p.t.Error("receipt:", err)
		}
	}
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, r, resp.Header
}

type receipt struct {
	ID       string         `json:"id"`
	Accepted int            `json:"accepted"`
	Shards   map[string]int `json:"shards"`
}

// ids are the message ids of an accepted submission.
func (r receipt) ids() (ids []string) {
	for i := range r.Accepted {
		ids = append(ids, fmt.Sprintf("%s.%d", r.ID, i))
	}
	return ids
}

// eventually polls until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
