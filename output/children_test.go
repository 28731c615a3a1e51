package output

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"async-data-processor/message"
)

// The tests start their own binary again, with these in the environment, when
// they need another process.
const (
	childVariable = "OUTPUT_TEST_CHILD"
	childFolder   = "OUTPUT_TEST_FOLDER"
)

// children are what such a process does with the output folder.
var children = map[string]func(folder string) error{
	"hold":     holdShard,
	"write":    func(folder string) error { return writeForever(folder, Roll{}) },
	"append":   func(folder string) error { return writeForever(folder, Roll{Bytes: 8000}) },
	"limit":    func(folder string) error { return writeOverLimit(folder, Roll{}) },
	"overflow": func(folder string) error { return writeOverLimit(folder, neverFull) },
	"stranger": openAsStranger,
}

func childCommand(t *testing.T, name, folder string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	// The race detector would hold up every exit for a second.
	c.Env = append(os.Environ(), childVariable+"="+name, childFolder+"="+folder, "GORACE=atexit_sleep_ms=0")
	c.Stderr = os.Stderr
	return c
}

// startChild starts the child; its lines come from the scanner, until kill.
func startChild(t *testing.T, name, folder string) (lines *bufio.Scanner, kill func()) {
	t.Helper()
	c := childCommand(t, name, folder)
	if _, err := c.StdinPipe(); err != nil { // stays open as long as this process lives
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines = bufio.NewScanner(out)
	kill = sync.OnceFunc(func() {
		c.Process.Kill()
		for lines.Scan() { // Wait would take away what is not read yet
		}
		c.Wait()
	})
	t.Cleanup(kill)
	return lines, kill
}

func childShard(folder string, r Roll) (*Shard, error) {
	d, err := Open(folder, testWindow, r)
	if err != nil {
		return nil, err
	}
	return d.Shard(context.Background(), 0, func() { fmt.Println("standby") })
}

// holdShard holds the shard until it is killed, or its parent is gone.
func holdShard(folder string) error {
	s, err := childShard(folder, Roll{})
	if err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, s.Close())
}

// writeForever writes batches from five goroutines and prints the name of each
// file and the id of its batch once it was told that the file is durable.
func writeForever(folder string, r Roll) error {
	s, err := childShard(folder, r)
	if err != nil {
		return err
	}
	errs := make(chan error)
	for range 5 {
		go func() {
			for {
				id := message.NewID()
				name, _, err := s.Write(context.Background(), worker, newBatch(numbered(id, 5)...))
				if err != nil {
					errs <- err
					return
				}
				fmt.Println(name, id)
			}
		}()
	}
	return <-errs
}

// writeOverLimit writes a batch, one that its process may write only the half
// of, and then one that fits.
func writeOverLimit(folder string, r Roll) error {
	s, err := childShard(folder, r)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 4096, Max: 4096}
	if err := syscall.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if _, _, err := s.Write(context.Background(), worker, newBatch(numbered("first", 5)...)); err != nil {
		return err
	}
	b := newBatch(numbered("big", 200)...)
	if _, _, err := s.Write(context.Background(), worker, b); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("got error %v, want %w", err, unix.EFBIG)
	}
	entries, err := os.ReadDir(filepath.Join(folder, "shard-0"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if kind := ParseName(e.Name()); kind != Lock && kind != Visible {
			return fmt.Errorf("left over: %s", e.Name())
		}
	}
	_, _, err = s.Write(context.Background(), worker, newBatch(numbered("small", 5)...))
	return errors.Join(err, s.Close())
}

// openAsStranger opens the folder as a user without any rights.
func openAsStranger(folder string) error {
	if err := syscall.Setuid(65534); err != nil {
		return err
	}
	_, err := Open(folder, testWindow, Roll{})
	fmt.Println(err)
	return nil
}
