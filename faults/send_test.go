package faults

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/faults/process"
	"async-data-processor/faults/rig"
)

// TestSend kills the process under the command send, which lives on: each line that it
// has read is in one file.
func TestSend(t *testing.T) {
	on(t, "kill -9 under send", func(c *campaign) { sending(c, nil) }, embedded)
}

// sending has one send work through all cycles. Each kills processes, restarts the broker
// or cuts the connections at a random moment.
func sending(c *campaign, restart func()) {
	cycles, lines := either(3, 50), either(6_000, 1_000_000)
	c.batch = 100
	c.up()
	proxy := brokertest.NewProxy(c, c.server.Addr)
	s := startSend(c, "http://"+proxy.Addr())
	for n := range cycles {
		s.lines(n*lines/cycles, (n+1)*lines/cycles)
		c.moment(300 * time.Millisecond)
		switch n := c.rng.IntN(4); {
		case n == 0:
			proxy.Cut()
		case n == 1 && restart != nil:
			restart()
			c.kills++
			c.server.Ready()
			c.consumer.Ready()
		default:
			c.kill(c.victims()...)
		}
		c.up()
		proxy.Aim(c.server.Addr)
		c.cycle()
	}
	s.end(lines)
	c.up()
	c.empty()
	c.once(lines)
	c.accepted = lines
}

// sender is a running send.
type sender struct {
	c      *campaign
	cmd    *exec.Cmd
	in     io.WriteCloser
	feed   chan [2]int
	stderr bytes.Buffer
	ended  <-chan struct{}
}

func startSend(c *campaign, url string) *sender {
	c.Helper()
	s := &sender{c: c, cmd: exec.Command("async-data-processor", "send", url), feed: make(chan [2]int, 1000)}
	s.cmd.Stderr = &s.stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err == nil {
		s.ended, err = process.Start(s.cmd)
	}
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGKILL)
		<-s.ended
	})
	go s.write()
	return s
}

// write writes as fast as the process reads.
func (s *sender) write() {
	defer s.in.Close()
	var text []byte
	for rows := range s.feed {
		for n := rows[0]; n < rows[1]; n++ {
			text = fmt.Appendf(text, "{\"timestamp\":%q,\"value\":\"row %d\"}\n", time.Unix(int64(n), 0).UTC().Format(time.RFC3339), n)
			if len(text) < 32<<10 && n+1 < rows[1] {
				continue
			}
			if _, err := s.in.Write(text); err != nil {
				return // it has ended, as end will see
			}
			text = text[:0]
		}
	}
}

// lines has the rows of some numbers sent.
func (s *sender) lines(from, to int) { s.feed <- [2]int{from, to} }

// end waits until all lines are accepted.
func (s *sender) end(lines int) {
	s.c.Helper()
	close(s.feed)
	select {
	case <-s.ended:
	case <-time.After(rig.Patience):
		s.c.Fatalf("send does not end; it says\n%s", &s.stderr)
	}
	said := s.stderr.String()
	if want := fmt.Sprintf("%d lines read: %[1]d accepted, 0 rejected, 0 unknown", lines); s.cmd.ProcessState.ExitCode() != 0 || !strings.Contains(said, want) {
		s.c.Errorf("exit %d, and it says\n%s", s.cmd.ProcessState.ExitCode(), said)
	}
	s.c.note("send lost its connection %d times", strings.Count(said, "no connection"))
}

// once checks that the row of each number is in one line of one file.
func (c *campaign) once(rows int) {
	c.Helper()
	found := make([]bool, rows)
	lines := 0
	for id, texts := range rig.ReadTree(c, c.dir, c.shards, c.batch).Lines {
		for _, text := range texts {
			_, value, _ := strings.Cut(text, `"value":"`)
			n := -1
			if _, err := fmt.Sscanf(value, `row %d"`, &n); err != nil || n < 0 || n >= rows {
				c.Errorf("no row: %s", text)
				continue
			}
			if lines++; found[n] {
				c.twice++
				c.Errorf("row %d is in another line than %s, too", n, id)
			}
			found[n] = true
		}
	}
	if c.lost = rows - lines + c.twice; c.lost != 0 {
		c.Errorf("%d of %d rows are lost", c.lost, rows)
	}
	if left := rig.Temporary(c, c.dir); len(left) > 0 {
		c.Errorf("temporary files are left: %v", left)
	}
}
