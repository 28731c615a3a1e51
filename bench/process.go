package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// patience bounds every wait for something that starts or stops.
const patience = 60 * time.Second

// process is a running program that has told its address in its log.
type process struct {
	cmd  *exec.Cmd
	addr string
	// done is closed when it has ended; then err says how.
	done chan struct{}
	err  error
	last []string // of its log; complete when done is closed
}

// start runs a command with the settings, "NAME=value", as its environment.
func start(ctx context.Context, settings []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, settings...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for this process
	log, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	addrs := make(chan string, 1)
	go p.watch(log, addrs)
	select {
	case p.addr = <-addrs:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s %v: %w\n%s", name, args, p.err, p.last)
	case <-time.After(patience):
		err = errors.New("it does not listen")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	p.kill()
	return nil, fmt.Errorf("%s %v: %w\n%s", name, args, err, p.last)
}

// watch reads the log until the process ends.
func (p *process) watch(log io.Reader, addrs chan<- string) {
	const kept = 20
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if p.last = append(p.last, lines.Text()); len(p.last) > kept {
			p.last = p.last[1:]
		}
		var line struct{ Addr string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Addr != "" {
			select {
			case addrs <- line.Addr:
			default: // it has more than one; the first counts
			}
		}
	}
	p.err = errors.Join(lines.Err(), p.cmd.Wait())
	close(p.done)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ready waits until it says so.
func (p *process) ready(ctx context.Context) error {
	for began := time.Now(); time.Since(began) < patience; {
		resp, err := http.Get("http://" + p.addr + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s", p.cmd, p.err, p.last)
		default:
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s is not ready", p.cmd)
}

// drain asks it to stop, and waits until it has.
func (p *process) drain() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(2 * patience):
		p.kill()
		return fmt.Errorf("%s does not stop", p.cmd)
	}
}

// kill ends it at once: what it leaves behind is thrown away.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// server starts the program's server on a broker and waits until it is ready.
func (l *lab) server(ctx context.Context, broker string, settings ...string) (*process, error) {
	return l.product(ctx, "server", append(settings, "BROKER_URL="+broker, "LISTEN_ADDR=127.0.0.1:0"))
}

// consumer starts the program's message-consumer, likewise.
func (l *lab) consumer(ctx context.Context, broker, dir string, settings ...string) (*process, error) {
	return l.product(ctx, "message-consumer", append(settings,
		"BROKER_URL="+broker, "ADMIN_LISTEN_ADDR=127.0.0.1:0", "DATA_OUTPUT_DIR="+dir))
}

func (l *lab) product(ctx context.Context, command string, settings []string) (*process, error) {
	settings = append(settings, "LOG_FORMAT=json")
	if l.profiles != "" {
		settings = append(settings, "PPROF=true")
	}
	p, err := start(ctx, settings, l.program, command)
	if err != nil {
		return nil, err
	}
	if l.profiles != "" {
		go p.profile(filepath.Join(l.profiles, fmt.Sprintf("%s-%s-%d", l.current, command, p.pid())))
	}
	if err := p.ready(ctx); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// profile saves CPU profiles, one after the other, until the process is gone;
// the last one goes with it. What they cost is in the measurement.
func (p *process) profile(stem string) {
	for n := 0; ; n++ {
		resp, err := http.Get("http://" + p.addr + "/debug/pprof/profile?seconds=2")
		if err != nil {
			return
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || os.WriteFile(fmt.Sprintf("%s-%d.prof", stem, n), text, 0o644) != nil {
			return
		}
	}
}
