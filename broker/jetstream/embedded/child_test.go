package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
)

// killCycles sets how often TestKilled kills.
const killCycles = "EMBEDDED_TEST_KILLS"

func childProcess(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	// The race detector would hold up every exit for a second.
	c.Env = append(os.Environ(), childVariable+"="+name, childFolder+"="+dir, "GORACE=atexit_sleep_ms=0")
	c.Stderr = os.Stderr
	return c
}

// startChild starts a child. Its lines can be read to the last one,
// also after its kill; wait drops what is left of them and returns when it is
// gone.
func startChild(t *testing.T, name, dir string) (lines *bufio.Scanner, p *os.Process, wait func()) {
	t.Helper()
	c := childProcess(t, name, dir)
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
	wait = sync.OnceFunc(func() {
		for lines.Scan() { // Wait would take away what is not read yet
		}
		_ = c.Wait()
	})
	t.Cleanup(func() {
		_ = c.Process.Kill()
		wait()
	})
	return lines, c.Process, wait
}

func childBroker(dir string) (*Broker, error) {
	e, err := Open(configFor(dir))
	if err != nil {
		return nil, err
	}
	for e.Ready() != nil {
		if brokertest.Publish(context.Background(), e, message.Envelope{}) == nil { // also a wait
			return nil, errors.New("an empty envelope was accepted")
		}
	}
	fmt.Println("ready")
	return e, nil
}

// childHold holds the store until it is killed, or its parent is gone.
func childHold(dir string) error {
	e, err := childBroker(dir)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, e.Close())
}

// childLoad publishes and consumes until it is killed. It prints "+id" once a
// publish is acknowledged and "-id" before it acknowledges a delivery.
func childLoad(dir string) error {
	e, err := childBroker(dir)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for range 8 {
		go func() {
			for {
				id, err := publishOne(context.Background(), e, 1<<rand.IntN(18))
				if err != nil {
					failed <- err
					return
				}
				fmt.Println("+" + id)
			}
		}()
	}
	go func() {
		deliveries := make(chan *message.Delivery)
		go func() { failed <- e.Consume(context.Background(), 0, 16, deliveries) }()
		for d := range deliveries {
			o := message.Outcome{Kind: message.Return}
			if rand.IntN(2) == 0 {
				fmt.Println("-" + d.ID)
				o.Kind = message.Ack
			}
			if err := d.Settle(o); err != nil {
				failed <- err
				return
			}
		}
	}()
	return <-failed
}

// childStranger opens the store as a user without any rights.
func childStranger(dir string) error {
	if err := syscall.Setuid(65534); err != nil {
		return err
	}
	_, err := Open(configFor(dir))
	fmt.Println(err)
	return nil
}

// TestKilled kills a process under load again and again. What it was
// told to be published is delivered, unless it was about to acknowledge it.
func TestKilled(t *testing.T) {
	t.Parallel()
	cycles := 8
	if text := os.Getenv(killCycles); text != "" {
		var err error
		if cycles, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	published, settled := map[string]bool{}, map[string]bool{}
	total := 0
	for range cycles {
		lines, child, wait := startChild(t, "load", dir)
		for left := rand.IntN(400); lines.Scan(); left-- {
			if left == 0 {
				if err := child.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			switch text := lines.Text(); text[0] {
			case '+':
				published[text[1:]] = true
				total++
			case '-':
				settled[text[1:]] = true
			}
		}
		wait()
		checkProgress(t, dir)
	}
	for id := range settled {
		delete(published, id)
	}
	t.Logf("%d kills, %d acknowledged publishes, %d messages perhaps acknowledged by a consumer", cycles, total, len(settled))
	e := openBroker(t, configFor(dir))
	take(t, e, published, message.Ack)
}

// checkProgress checks that what the server wrote of its consumers is taken
// for that.
func checkProgress(t *testing.T, dir string) {
	t.Helper()
	states, err := filepath.Glob(filepath.Join(dir, streamsPath, "*", consumerPath, "*", stateName))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range states {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := readProgress(text); !ok && len(text) > 0 {
			t.Errorf("refused: % x\n%+v", text, p)
		}
	}
}
