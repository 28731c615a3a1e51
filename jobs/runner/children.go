package runner

import (
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/jobs/runner/guard"
)

// children are the processes that this one has started. Those that it has not are what a
// killed guard has left: this process is the reaper of all of them.
type children struct {
	starting sync.RWMutex // held while there are others than guards

	mu     sync.Mutex
	guards map[int]bool
}

// start starts a guard.
func (c *children) start(cmd *exec.Cmd) error {
	c.starting.RLock()
	defer c.starting.RUnlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.guards == nil {
		c.guards = make(map[int]bool)
	}
	c.guards[cmd.Process.Pid] = true
	return nil
}

// wait waits for a guard.
func (c *children) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.guards, cmd.Process.Pid)
	return err
}

// beside runs something that starts other processes, and waits for them.
func (c *children) beside(do func()) {
	c.starting.RLock()
	defer c.starting.RUnlock()
	do()
}

func (c *children) isGuard(pid int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.guards[pid]
}

const (
	killAgain = 20 * time.Millisecond
	killFor   = 30 * time.Second
)

// killOrphans ends what killed guards have left, and returns whether it could.
func (c *children) killOrphans() bool {
	c.starting.Lock()
	defer c.starting.Unlock()
	for end := time.Now().Add(killFor); ; time.Sleep(killAgain) {
		orphans := guard.Descendants(os.Getpid(), c.isGuard)
		if len(orphans) == 0 {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		for _, pid := range orphans {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
		for _, pid := range orphans {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // those that are children
		}
	}
}
