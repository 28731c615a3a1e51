package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/runner/guard"
)

// asProcess runs a Runner until SIGTERM.
func asProcess(text string) int {
	var set struct {
		URL   string
		Lease time.Duration
	}
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		return 2
	}
	r, err := New(Config{URL: set.URL, Token: "secret-token", Name: "process", Slots: 2, Drain: time.Second, lease: set.Lease})
	if err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if r.Run(ctx) != nil {
		return 1
	}
	return 0
}

// process starts a Runner as a process of its own.
func process(t *testing.T, e *engine, lease time.Duration, change ...func(*exec.Cmd)) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf(`TEST_RUNNER={"URL":%q,"Lease":%d}`, e.http.URL+"/base", lease), "GOCOVERDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	for _, f := range change {
		f(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	e.connected()
	return cmd
}

// tree is a job whose process, one of its children, and one that has left for a session of
// its own each hold a lock, and do not end by SIGTERM.
func tree(dir string) frame.Definition {
	hold := func(name string) string { return "flock -x " + dir + "/" + name + " sleep 1000" }
	return shell("tree", "trap '' TERM HUP; setsid sh -c '"+hold("far")+" & exit' ; "+hold("near")+" & exec "+hold("own"))
}

var witnesses = []string{"far", "near", "own"}

// held returns how many of the witnesses hold their lock.
func held(t *testing.T, dir string) (n int) {
	t.Helper()
	for _, name := range witnesses {
		f, err := os.OpenFile(dir+"/"+name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			n++
		}
		_ = f.Close() // which gives the lock back
	}
	return n
}

// awaitHeld waits until so many witnesses hold their lock.
func awaitHeld(t *testing.T, dir string, want int) {
	t.Helper()
	for deadline := time.Now().Add(patience); held(t, dir) != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d locks are held, want %d", held(t, dir), want)
		}
	}
}

// guardOf returns the guard of a runner's only attempt.
func guardOf(t *testing.T, runner int) int {
	t.Helper()
	for _, pid := range guard.Descendants(runner, nil) {
		if line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); strings.Contains(string(line), guard.Arg) {
			return pid
		}
	}
	t.Fatal("there is no guard")
	return 0
}

// TestKill: nothing of an attempt runs on when its runner or its guard is killed, however it
// has hidden itself.
func TestKill(t *testing.T) {
	for name, kill := range map[string]func(t *testing.T, runner int){
		"runner": func(_ *testing.T, runner int) { _ = unix.Kill(runner, unix.SIGKILL) },
		"guard":  func(t *testing.T, runner int) { _ = unix.Kill(guardOf(t, runner), unix.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			e := newEngine(t, tree(dir))
			cmd := process(t, e, 0)
			e.offer(1, "tree")
			awaitHeld(t, dir, len(witnesses))
			kill(t, cmd.Process.Pid)
			awaitHeld(t, dir, 0)
			if name == "guard" {
				if end := e.ended(1); end.Outcome != frame.Fault {
					t.Errorf("%+v, want a fault", end)
				}
			}
		})
	}
}

// TestStopped: a runner that is stopped beyond its lease has nothing running when the lease is
// over, and neither has one whose guard is stopped. It tells so when it goes on.
func TestStopped(t *testing.T) {
	const lease = 12 * time.Second // a tenth of it is what a busy machine may be late
	for _, name := range []string{"runner", "guard"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, id := t.TempDir(), frame.Attempt{Run: 1, Attempt: 1}
			e := newEngine(t, tree(dir))
			cmd := process(t, e, lease)
			e.offer(1, "tree")
			awaitHeld(t, dir, len(witnesses))
			pid := cmd.Process.Pid
			if name == "guard" {
				pid = guardOf(t, pid)
			}
			if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			e.set(func() {
				e.deaf, e.stale[id] = true, name == "runner"
			})
			awaitHeld(t, dir, 0)
			if late := time.Since(e.beat[id]) - lease; late > 0 {
				t.Errorf("something ran for %v after the lease", late)
			}
			_ = unix.Kill(pid, unix.SIGCONT) // a guard has been killed
			if end := e.ended(1); name == "runner" && end.Outcome != frame.Fenced {
				t.Errorf("%+v, want it fenced", end)
			}
		})
	}
}

// TestHidden: a job does not see what its runner and its guard have in their environments,
// unless all of them are root's.
func TestHidden(t *testing.T) {
	t.Setenv("OTHER_SECRET", "not for jobs")
	e := newEngine(t, shell("look", `for p in $PPID $(cut -d ' ' -f 4 /proc/$PPID/stat); do
		tr '\0' '\n' </proc/$p/environ; head -c 1 /proc/$p/mem; ls /proc/$p/fd; done 2>&1; echo looked`))
	process(t, e, 0, func(cmd *exec.Cmd) {
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			cmd.Dir = "/"
		}
	})
	e.offer(1, "look")
	e.ended(1)
	log := e.log(1)
	// What counts the coverage of this program may say that it is denied its folder, too.
	denied := regexp.MustCompile("/proc/.*denied")
	if n := len(denied.FindAllString(log, -1)); n != 6 || strings.Contains(log, "not for jobs") || !strings.Contains(log, "looked") {
		t.Errorf("%d of 6 looks are denied:\n%s", n, log)
	}
}
