package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/event"
	"async-data-processor/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers for dead letters in a folder until the test ends.
func serve(t testing.TB, dir string, h http.Handler) {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadTimeout: time.Second}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// behind is a broker whose dead letters are behind the door.
type behind struct {
	*brokertest.Client
	Process
}

func (b behind) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) error {
	return b.Process.DeadLetters(ctx, decide)
}

// TestContract runs the suite of all brokers with the door in between.
func TestContract(t *testing.T) {
	brokertest.RunDeadLetters(t, brokertest.Harness{Fresh: func(*testing.T, bool) *brokertest.Engine {
		m := brokertest.NewMemory(brokertest.Shards)
		return &brokertest.Engine{
			Open: func(t testing.TB, events event.Sink) broker.Broker {
				c, dir := m.Open(events), t.TempDir()
				serve(t, dir, Handler(c))
				return behind{c, Process{dir}}
			},
			Depth:       func(_ testing.TB, shard int) int { return m.Depth(shard) },
			DeadLetters: func(testing.TB) []brokertest.DeadLetter { return m.Dead() },
			PublishForeign: func(_ testing.TB, shard int, id string, body []byte) {
				m.PublishForeign(shard, id, body)
			},
			Break: func(testing.TB) { m.Break() },
		}
	}})
}

// letters is a broker with n dead letters, "0" and so on.
type letters struct {
	ids   []string
	walks chan error // the result of each walk
}

func newLetters(n int) *letters {
	l := &letters{walks: make(chan error, 100)}
	for i := range n {
		l.ids = append(l.ids, fmt.Sprint(i))
	}
	return l
}

func (l *letters) DeadLetters(ctx context.Context, decide func(broker.DeadLetter) broker.Verdict) (err error) {
	defer func() { l.walks <- err }()
	var left []string
	defer func() { l.ids = left }()
	for i, id := range l.ids {
		verdict := broker.Keep
		if ctx.Err() == nil {
			verdict = decide(broker.DeadLetter{Envelope: message.Envelope{ID: id}, Reason: "bad"})
		}
		if ctx.Err() != nil {
			left = append(left, l.ids[i:]...)
			return context.Cause(ctx)
		}
		if verdict == broker.Keep {
			left = append(left, id)
		}
	}
	return nil
}

func keep(broker.DeadLetter) broker.Verdict { return broker.Keep }

// TestFolders: the door opens in any folder and whatever was left there, for this user
// alone, and leaves nothing.
func TestFolders(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	t.Chdir(t.TempDir())
	long := strings.Repeat("long/", 50)
	for name, c := range map[string]struct {
		dir  string
		left func(path string) error
	}{
		"absolute":      {dir: t.TempDir()},
		"relative":      {dir: "relative"},
		"an at sign":    {dir: "@sign"},
		"long":          {dir: filepath.Join(t.TempDir(), long)},
		"long relative": {dir: long},
		"after a kill": {t.TempDir(), func(path string) error {
			l, err := net.Listen("unix", path)
			if err == nil {
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}},
		"a file":  {t.TempDir(), func(path string) error { return os.WriteFile(path, nil, 0o644) }},
		"no door": {t.TempDir(), func(path string) error { return os.Symlink("/dev/null", path) }},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(c.dir, 0o777); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(c.dir, Name)
			if c.left != nil {
				if err := c.left(socket); err != nil {
					t.Fatal(err)
				}
			}
			gone := func() {
				t.Helper()
				if err := (Process{c.dir}).DeadLetters(t.Context(), keep); !errors.Is(err, ErrNoProcess) {
					t.Errorf("%v, want ErrNoProcess", err)
				}
			}
			gone()
			t.Run("open", func(t *testing.T) {
				serve(t, c.dir, Handler(newLetters(1)))
				if info, err := os.Lstat(socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
					t.Errorf("%v, %v; want a socket of this user alone", info.Mode(), err)
				}
				if err := (Process{c.dir}).DeadLetters(t.Context(), keep); err != nil {
					t.Error(err)
				}
			})
			gone()
			if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v, want no socket", err)
			}
		})
	}
}

// TestMovedFolder: the door takes its own socket away, not that of a new folder.
func TestMovedFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	var doors []net.Listener
	for range 2 {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		doors = append(doors, l)
		if len(doors) == 1 {
			if err := os.Rename(dir, dir+".moved"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 { // Close may be called again
		if err := doors[0].Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, Name)); err != nil {
		t.Error(err)
	}
	if err := doors[1].Close(); err != nil {
		t.Error(err)
	}
}

// TestOtherUser: who may not connect is told, and does not open the store.
func TestOtherUser(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, Handler(newLetters(1)))
	if err := os.Chmod(filepath.Join(dir, Name), 0); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with this
		if os.Geteuid() == 0 { // the mode does not hold root off
			_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0)
		}
		_, err := dial(t.Context(), dir)
		refused <- err
	}()
	err := <-refused
	if err == nil || errors.Is(err, ErrNoProcess) || !strings.Contains(err.Error(), "run this as the user that owns the folder") {
		t.Errorf("%v, want to hear of the user", err)
	}
}
