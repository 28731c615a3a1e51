package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"async-data-processor/faults/process"
)

// patience bounds every wait for something that starts or stops.
const patience = 5 * time.Minute

// start starts a program and waits until it listens.
func start(ctx context.Context, settings []string, name string, args ...string) (*process.Process, error) {
	p, err := process.Spawn(settings, name, args...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := p.Listen(ctx); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// drain asks a process to stop, and waits until it has.
func drain(ctx context.Context, p *process.Process) error {
	p.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	code, err := p.Wait(ctx)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit %d\n%s", code, p.Dump())
	}
	return err
}

// server starts the program's server on a broker and waits until it is ready.
func (l *lab) server(ctx context.Context, broker string, settings ...string) (*process.Process, error) {
	return l.product(ctx, l.program, "server", append(settings, "BROKER_URL="+broker, "INTAKE_ONLY=true", "LISTEN_ADDR=127.0.0.1:0"))
}

// serverOverRabbit starts a server on the node.
func (l *lab) serverOverRabbit(ctx context.Context) (*rabbit, *process.Process, error) {
	r, err := l.broker()
	if err != nil {
		return nil, nil, err
	}
	srv, err := l.server(ctx, r.url)
	return r, srv, err
}

// consumer starts the program's message-consumer, likewise.
func (l *lab) consumer(ctx context.Context, broker, dir string, settings ...string) (*process.Process, error) {
	return l.product(ctx, l.program, "message-consumer", append(settings,
		"BROKER_URL="+broker, "ADMIN_LISTEN_ADDR=127.0.0.1:0", "DATA_OUTPUT_DIR="+dir))
}

// standalone starts the whole program in a process, likewise.
func (l *lab) standalone(ctx context.Context, broker, dir string, settings ...string) (*process.Process, error) {
	return l.product(ctx, l.program, "standalone", append(settings, "BROKER_URL="+broker, "LISTEN_ADDR=127.0.0.1:0", "DATA_OUTPUT_DIR="+dir))
}

// newStore is the URL of an embedded broker without a store.
func (l *lab) newStore() (string, error) {
	dir, err := l.folder("store")
	return "embedded://" + dir, err
}

func (l *lab) product(ctx context.Context, program, command string, settings []string) (*process.Process, error) {
	settings = append(settings, "LOG_FORMAT=json")
	if l.profiles != "" {
		settings = append(settings, "PPROF=true")
	}
	p, err := start(ctx, settings, program, command)
	if err != nil {
		return nil, err
	}
	if l.profiles != "" {
		go profile(p, filepath.Join(l.profiles, fmt.Sprintf("%s-%s-%d", l.current, command, p.PID())))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := p.Ready(ctx); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// profile saves CPU profiles, one after the other, until the process is gone;
// the last one goes with it. What they cost is in the measurement.
func profile(p *process.Process, stem string) {
	for n := 0; ; n++ {
		resp, err := http.Get("http://" + p.Addr + "/debug/pprof/profile?seconds=2")
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
