package runner

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"async-data-processor/jobs/frame"
)

const (
	testImage = "localhost/adp-witness"
	// witness is the program of the image: it prints what it got, and exits or stays.
	witness = `package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	fmt.Println(os.Getenv("ADP_RUN"), os.Getenv("COLOR"), os.Getenv("API_KEY"), os.Args[1:])
	if n, err := strconv.Atoi(os.Args[1]); err == nil {
		os.Exit(n)
	}
	time.Sleep(time.Hour)
}
`
	// standIn is the command line of podman, without containers.
	standIn = `#!/bin/sh
[ "$1" = run ] || exit 0
echo "$*" >"$0.args"
shift
while :; do
	case $1 in
	--env-file) while IFS= read -r line; do export "$line"; done <"$2"; shift 2 ;;
	--name | --label) shift 2 ;;
	--*) shift ;;
	*) break ;;
	esac
done
shift
echo "$ADP_RUN $COLOR $API_KEY [$*]"
[ "$1" = stay ] || exit "$1"
exec sleep 1000
`
)

// podman returns a container engine with the test's image, or a stand-in where none works.
func podman(t *testing.T) string {
	t.Helper()
	const script = "../../scripts/podman"
	dir := t.TempDir()
	if out, err := exec.Command(script, "start").CombinedOutput(); err != nil {
		t.Logf("a stand-in takes the place of podman, which does not work here: %v: %s", err, out)
		path := filepath.Join(dir, "podman")
		if err := os.WriteFile(path, []byte(standIn), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.WriteFile(filepath.Join(dir, "witness.go"), []byte(witness), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", "witness", "witness.go")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{build, exec.Command(script, "image", testImage, filepath.Join(dir, "witness"))} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", cmd, err, out)
		}
	}
	out, err := exec.Command(script, "path").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "podman")
}

// TestContainers: a container gets its variables, and none of it is left, however it ends.
func TestContainers(t *testing.T) {
	engine := podman(t)
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("API_KEY", "hunter2-hunter2")
	job := func(name, command string) frame.Definition {
		d := shell(name, "")
		d.Image, d.Command = testImage, []string{command}
		d.Env, d.Secrets = map[string]string{"COLOR": "dark red"}, []string{"API_KEY"}
		return d
	}
	name := "containers-" + itoa(os.Getpid())
	e := newEngine(t, job("exits", "3"), job("fails", "125"), job("stays", "stay"))
	r, _ := start(t, e, func(c *Config) { c.Containers, c.Name = engine, name })
	e.offer(1, "exits")
	if end := e.ended(1); end.Outcome != frame.Exited || end.Exit != 3 {
		t.Errorf("%+v, want exit 3; its log: %s", end, e.log(1))
	}
	if got := e.log(1); got != "1 dark red *** [3]\n" {
		t.Errorf("the log is %q", got)
	}
	e.offer(2, "fails")
	if end := e.ended(2); end.Outcome != frame.Fault {
		t.Errorf("%+v, want a fault", end)
	}
	for run, end := range map[int64]func(){
		3: func() { e.tell(frame.Frame{Type: frame.Cancel, Run: 3, Attempt: 1}) },
		4: func() { _ = unix.Kill(guardOf(t, os.Getpid()), unix.SIGKILL) },
	} {
		e.offer(run, "stays")
		e.until("output", func() bool { return len(e.logs[frame.Attempt{Run: run, Attempt: 1}]) > 0 })
		end()
		if outcome := e.ended(run).Outcome; outcome != map[int64]frame.Outcome{3: frame.Cancelled, 4: frame.Fault}[run] {
			t.Errorf("run %d has ended as %s", run, outcome)
		}
	}
	r.await(time.Now().Add(patience), func() bool { return len(r.attempts) == 0 })
	out, err := exec.Command(engine, "ps", "--all", "--quiet", "--filter", "label="+r.cfg.label()).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("containers are left: %s (%v)", out, err)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "adp-*")); len(left) > 0 {
		t.Errorf("files are left: %q", left)
	}
}

// TestSweep: what a killed runner has left is removed when it starts again, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	engine := filepath.Join(dir, "podman")
	script := "#!/bin/sh\necho \"$@\" >>" + dir + "/calls\n[ \"$1\" != ps ] || printf 'adp-a-1-1\\nadp-a-2-1\\n'\n"
	if err := os.WriteFile(engine, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{URL: "http://localhost", Slots: 1, Name: "a", Containers: engine})
	if err != nil {
		t.Fatal(err)
	}
	r.attempts = []*attempt{{run: 2, number: 1, state: started}}
	t.Setenv("TMPDIR", dir)
	for _, name := range []string{"adp-12.a.env", "adp-12.x.a.env", "adp-12.b.env"} {
		write(t, filepath.Join(dir, name))
	}
	r.sweep()
	r.cfg.removeFiles()
	calls, err := os.ReadFile(dir + "/calls")
	if want := "ps --all --filter label=adp.runner=a --format {{.Names}}\nrm --force --time 0 adp-a-1-1\n"; err != nil || string(calls) != want {
		t.Errorf("it called %q (%v), want %q", calls, err, want)
	}
	if left, _ := filepath.Glob(dir + "/*.env"); len(left) != 2 {
		t.Errorf("%q are left", left)
	}
}

// TestNames: two runners of a machine never have the same name, and a name comes back.
func TestNames(t *testing.T) {
	own := "test-" + itoa(os.Getpid())
	_, held, err := Claim(own)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Claim(own); err == nil {
		t.Error("two have one name")
	}
	_ = held.Close()
	if _, held, err = Claim(own); err != nil {
		t.Error("a name does not come back:", err)
	}
	_ = held.Close()
	first, a, err := Claim("")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if second, b, err := Claim(""); err != nil || second == first || !strings.HasPrefix(second, strings.TrimRight(first, "0123456789")) {
		t.Errorf("%s and %s (%v)", first, second, err)
	} else {
		_ = b.Close()
	}
	for host, want := range map[string]string{"a.b-c": "a.b-c", "-x y": "x-y", "é": "runner"} {
		if got := nameOf(host); got != want {
			t.Errorf("%q is %q, want %q", host, got, want)
		}
	}
	if _, _, err := Claim("a/b"); err == nil {
		t.Error("a name with a slash")
	}
}
