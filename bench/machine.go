package main

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"async-data-processor/faults/process"
)

// machine is what the numbers of a run depend on.
type machine struct {
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"`
	Kernel     string  `json:"kernel"`
	FileSystem string  `json:"file_system"`
	Go         string  `json:"go"`
	RabbitMQ   string  `json:"rabbitmq,omitempty"`
	Commit     string  `json:"commit"`
	Load       float64 `json:"load"` // average of the minute before
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, Linux %s, %s, %s, RabbitMQ %s; commit %s; load before the run %.1f.",
		m.CPU, m.Cores, m.Kernel, m.FileSystem, m.Go, m.RabbitMQ, m.Commit, m.Load)
}

// describe asks the machine. What it does not say stays empty.
func (l *lab) describe(ctx context.Context) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: runtime.GOARCH}
	for line := range linesOf("/proc/cpuinfo") {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(model)
			break
		}
	}
	m.Kernel = strings.TrimSpace(string(contentOf("/proc/sys/kernel/osrelease")))
	_, _ = fmt.Sscan(string(contentOf("/proc/loadavg")), &m.Load)
	m.FileSystem = strings.TrimPrefix(said(ctx, l.dir, "df", "--output=fstype", "."), "Type\n")
	m.Commit = said(ctx, l.repo, "git", "describe", "--always", "--dirty")
	return m
}

func contentOf(file string) []byte {
	content, _ := os.ReadFile(file)
	return content
}

// said is what a command prints, or nothing.
func said(ctx context.Context, dir, name string, args ...string) string {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, _ := cmd.Output()
	return strings.TrimSpace(string(out))
}

// processorTimes returns the processor time spent by each process. One that is
// gone has spent none.
func processorTimes(pids map[string]int) map[string]time.Duration {
	times := make(map[string]time.Duration)
	for name, pid := range pids {
		times[name] = processorTime(pid)
	}
	return times
}

// ownTime is the processor time that this process has spent.
func ownTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func processorTime(pid int) time.Duration {
	_, rest, _ := bytes.Cut(contentOf(fmt.Sprintf("/proc/%d/stat", pid)), []byte(") "))
	fields := bytes.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime, proc_pid_stat(5)
		n, _ := strconv.ParseInt(string(f), 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // Linux's USER_HZ
}

// peakMemory is the most memory that a process ever had resident, in MiB.
func peakMemory(pid int) float64 { return float64(process.UsageOf(pid).Peak) / 1024 }

// linesOf yields the lines of a file; none if it cannot be read.
func linesOf(file string) iter.Seq[string] { return strings.Lines(string(contentOf(file))) }

// exactTime is the processor time spent by the threads that a process has.
func exactTime(pid int) (spent time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range threads {
		var ns int64
		_, _ = fmt.Sscan(string(contentOf(name)), &ns)
		spent += time.Duration(ns)
	}
	return spent
}
