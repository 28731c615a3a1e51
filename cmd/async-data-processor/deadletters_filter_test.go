package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/faults/process"
	"async-data-processor/faults/rig"
	"async-data-processor/message"
)

// terminal returns both ends of a pseudo-terminal (man 4 pts): what a person types, and
// what a program reads.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)
	}
	n := 0
	if err == nil {
		n, err = unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		person.Close()
		program.Close()
	})
	return person, program
}

// bury makes dead letters of entries.
func bury(t *testing.T, b rig.Broker, bodies ...string) {
	seed(t, b, func(a access) {
		for _, body := range bodies {
			a.publish(message.Envelope{ID: body, Count: 1, Body: []byte(body)})
		}
		a.kill(0, len(bodies))
	})
}

// TestPurgePreview: a person sees how many dead letters a purge is about, and some of
// them. It purges these, and none that come before the answer.
func TestPurgePreview(t *testing.T) {
	t.Parallel()
	b := rig.NewStore(t)
	var bodies []string
	for i := range 7 {
		bodies = append(bodies, fmt.Sprint("old", i))
	}
	bury(t, b, append(bodies, "other")...)
	run := newWriter(t, b)
	for _, answer := range []string{"no", "yes"} {
		person, program := terminal(t)
		cmd := exec.Command("async-data-processor", "dead-letters", "purge", "--contains", "old", "--broker-url", b.Server)
		cmd.Env = process.Environment("GOCOVERDIR=" + t.TempDir())
		var stdout bytes.Buffer
		cmd.Stdin, cmd.Stdout = program, &stdout
		stderr, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		asked, err := bufio.NewReader(stderr).ReadString('?')
		if err != nil || !strings.Contains(asked, "old0") || !strings.Contains(asked, "and 2 more") || strings.Contains(asked, "other") || !strings.HasSuffix(asked, "Forget 7 dead letters at "+b.Server+", for good?") {
			t.Fatalf("it asks %q, %v", asked, err)
		}
		bury(t, b, "old, and new"+answer)
		if _, err := io.WriteString(person, answer+"\n"); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, stderr)
		code := map[string]int{"no": 1}[answer]
		if err := cmd.Wait(); !exitedWith(err, code) {
			t.Fatalf("after %s: %v %s", answer, err, &stdout)
		}
		if answer == "no" {
			run.deadLetters(0, "purge", "--yes", "old, and newno")
		}
	}
	if left := run.deadLetters(0, "list", "--json"); strings.Count(left, "\n") != 2 || !strings.Contains(left, "newyes") || !strings.Contains(left, `"id":"other"`) {
		t.Errorf("left: %s", left)
	}
}

// TestLettersFilter chooses dead letters by what is known of them.
func TestLettersFilter(t *testing.T) {
	t.Parallel()
	b := rig.NewStore(t)
	seed(t, b, func(a access) {
		a.publish(message.Envelope{ID: "ours", Count: 1, Body: []byte(`{"message_id":"order-1","n":1}` + "\n")})
		a.foreign(0, "theirs", `{"n":2}`)
		a.foreign(3, "elsewhere", `{"n":3}`)
		a.kill(0, 2)
		a.kill(3, 1)
	})
	run := newWriter(t, b)
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for args, want := range map[string]int{
		"": 3, "--shard 3": 1, "--shard 2": 0, "--shard -1": 0, "--foreign true": 2, "--foreign=false": 1, `--contains "n":1`: 1, "--reason other": 0,
		"--before 1h": 0, "--before 0s": 3, "--before " + later: 3, "--shard 0 --foreign true": 1,
	} {
		if out := run.deadLetters(0, append([]string{"list", "--json"}, strings.Fields(args)...)...); strings.Count(out, "\n") != want {
			t.Errorf("%s: %s, want %d", args, out, want)
		}
	}
	if out := run.deadLetters(0, "list", "--json", "--reason", "killed by the test"); strings.Count(out, "\n") != 3 {
		t.Errorf("by reason: %s", out)
	}
	for _, args := range []string{"--shard x", "--shard -2", "--foreign maybe", "--before yesterday", "--before -1h", "--contains " + strings.Repeat("x", 300)} {
		run.deadLetters(2, append([]string{"list"}, strings.Fields(args)...)...)
		run.deadLetters(2, append([]string{"purge", "--yes"}, strings.Fields(args)...)...)
		run.deadLetters(2, append([]string{"replay", "--all"}, strings.Fields(args)...)...)
	}
	if out := run.deadLetters(0, "show", "order-1"); !strings.Contains(out, `"n":1`) {
		t.Errorf("by the id of a message: %s", out)
	}
	if out := run.deadLetters(0, "purge", "--yes", "--foreign", "true"); !strings.HasPrefix(out, "purged 2 dead letters") {
		t.Errorf("purge: %s", out)
	}
	if out := run.deadLetters(0, "replay", "--all", "--contains", "n"); !strings.HasPrefix(out, "replayed 1 dead letter ") {
		t.Errorf("replay: %s", out)
	}
}
