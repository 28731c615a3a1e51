package output

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

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
	"write":    func(folder string) error { return writeForever(folder, Roll{}) },
	"append":   func(folder string) error { return writeForever(folder, Roll{Bytes: 8000}) },
	"stranger": openAsStranger,
}

func childCommand(t *testing.T, name, folder string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
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
	must(t, err)
	must(t, c.Start())
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

// openAsStranger opens the folder as a user without any rights.
func openAsStranger(folder string) error {
	if err := syscall.Setuid(65534); err != nil {
		return err
	}
	_, err := Open(folder, testWindow, Roll{})
	fmt.Println(err)
	return nil
}
