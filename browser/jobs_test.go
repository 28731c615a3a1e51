package browser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// jobsOf are jobs of processes, which a test steers by files in a folder.
const jobsOf = `
hurts:
  # It writes what a page or a terminal would obey, goes on until it may end, and ends.
  command: [sh, -c, 'cat FOLDER/hurts; while ! [ -e FOLDER/go ]; do sleep 0.05; done; echo "the end of $ADP_ARGS"']
writes-much:
  command: [seq, "12000"]
waits:
  command: [sleep, "600"]
  grace: 1s
fails:
  command: [sh, -c, 'echo looks; [ -e FOLDER/mended ]']
  attempts: 1
labelled:
  command: ["true"]
  labels: [gpu]
fails-and-is-tried-again-after-an-hour-which-is-a-long-name:
  command: [sh, -c, 'exit 3']
  attempts: 2
  backoff: 1h
`

// plant are a node with an engine, a runner, and the folder by which tests steer jobs.
type plant struct {
	addr, folder string
}

func startJobs(t *testing.T, settings ...string) *plant {
	t.Helper()
	f := newPlant(t)
	f.addr = start(t, append(f.settings(settings...), "BATCH_LINGER=100ms")...)
	return f
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	f := &plant{folder: t.TempDir()}
	f.write(t, "hurts", hurts+"\n\x1b[31mred\x1b[0m \u202egnp.exe\n")
	f.write(t, "jobs.yaml", strings.ReplaceAll(jobsOf, "FOLDER", f.folder))
	return f
}

// settings are those of a node with an engine, and more.
func (f *plant) settings(more ...string) []string {
	return append(more, "JOBS="+filepath.Join(f.folder, "jobs.yaml"), "STATE_URL=sqlite:"+filepath.Join(f.folder, "state.db"))
}

func (f *plant) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.folder, name), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// worker is the name of the runner; no other one of the machine may have it.
var worker = fmt.Sprint("worker-", os.Getpid())

// runner starts a runner of a node that is below base. It ends with the test.
func (f *plant) runner(t *testing.T, base string) {
	t.Helper()
	cmd := exec.Command(program(t), "runner", "http://"+f.addr+base, "--name", worker, "--slots", "4")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the runner ends with %v\n%s", err, &log)
		}
	})
}

// run runs a job, at a node that is below base, and returns the id of the run.
func (f *plant) run(t *testing.T, base, job string) string {
	t.Helper()
	resp, err := http.Post("http://"+f.addr+base+"/api/jobs/"+job, "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var run struct{ ID json.Number }
	if err := json.NewDecoder(resp.Body).Decode(&run); err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("the job is answered with %s, %v", resp.Status, err)
	}
	return run.ID.String()
}

// begin runs a job from the list, and returns the address of its run.
func (p *page) begin(addr, job string) string {
	p.Helper()
	p.open("http://" + addr + "/#/jobs")
	p.click("main button", "Run … "+job)
	p.click("dialog button", "Run")
	p.until("location.hash.startsWith('#/runs/') && main().includes(" + quote(job) + ")")
	return p.text("location.href")
}

// TestJobs: a person runs a job and sees it wait for a runner, run, and succeed. Its log
// follows while it runs, and is text. A run that is not wanted is cancelled, and one that has
// failed is tried again.
func TestJobs(t *testing.T) {
	f := startJobs(t)
	p := newPage(t)
	p.look(1280, "light")
	p.open("http://" + f.addr + "/#/")
	p.click("nav a", "Jobs")
	p.until("found('main tbody tr').length === 6")

	p.click("main button", "Run … hurts")
	p.fill("Arguments", "{")
	p.until("found('dialog button', 'Run').some(e => e.disabled)")
	p.fill("Arguments", `{"n":12345678901234567890}`)
	p.click("dialog button", "Run")
	p.sees("o runner is connected") // also as the beginning of a sentence
	f.runner(t, "")
	p.sees("has been running it for")
	p.until("document.querySelector('.log')?.innerText.includes('red')")
	p.save("run")
	log := p.text("document.querySelector('.log').textContent")
	for _, want := range []string{hurts, "␛[31mred␛[0m", "�gnp.exe"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log is shown as %q, want %q in it", log, want)
		}
	}
	f.write(t, "go", "")
	p.sees("It succeeded")
	p.until(`document.querySelector('.log')?.innerText.includes('the end of {"n":12345678901234567890}')`)
	p.sees(`"n": 12345678901234567890`)
	if made := p.text("document.querySelectorAll('main img, main script').length + document.title"); !strings.HasPrefix(made, "0Run ") {
		t.Errorf("the log has become a part of the page: %s", made)
	}

	p.begin(f.addr, "writes-much")
	p.sees("Only the end is shown")
	p.until("document.querySelector('.log')?.textContent.endsWith('\\n12000\\n')")
	if lines := p.text("document.querySelector('.log').textContent.split('\\n').length <= 5001 && document.querySelectorAll('.log div').length < 60"); lines != "true" {
		t.Error("the document has more of the log than the last 5,000 lines")
	}
	var whole string
	p.run(&whole, "return (await fetch(found('main a', 'The whole log')[0].href)).text()")
	if !strings.HasPrefix(whole, "1\n2\n") || !strings.HasSuffix(whole, "\n12000\n") {
		t.Errorf("the whole log has %d bytes", len(whole))
	}

	p.begin(f.addr, "waits")
	p.sees("has been running it for")
	p.click("main button", "Cancel …")
	p.fill("Why, for the log", "not wanted")
	p.click("dialog button", "Cancel the run")
	p.sees("It was cancelled")
	p.sees("ot wanted")

	failed := p.begin(f.addr, "fails")
	p.sees("It failed for good")
	f.write(t, "mended", "")
	p.click("main button", "Retry …")
	p.click("dialog button", "Retry the run")
	p.sees("It succeeded")
	p.until("found('main tbody tr').length === 2") // attempts
	p.click("main button", "Show that of attempt 1")
	p.sees("Log of attempt 1")
	p.until("document.querySelector('.log')?.innerText.includes('looks')")

	p.open("http://" + f.addr + "/#/runs?state=cancelled")
	p.until("found('main tbody tr').length === 1 && main().includes('waits')")
	p.open("http://" + f.addr + "/#/runs?job=fails")
	p.until("found('main tbody tr').length === 1 && found('main a').some(e => e.href === " + quote(failed) + ")")
	p.begin(f.addr, "labelled")
	p.sees("gpu") // what it waits for
	p.alone(f.addr)
}

// TestJobsFit: on a screen of 1280 px no table of jobs scrolls sideways, nor does the page on
// a small one; and a run that is tried again says once when.
func TestJobsFit(t *testing.T) {
	f := startJobs(t)
	f.runner(t, "")
	p := newPage(t)
	p.look(1280, "light")
	run := f.run(t, "", "fails-and-is-tried-again-after-an-hour-which-is-a-long-name")
	f.run(t, "", "labelled")
	p.open("http://" + f.addr + "/#/runs/" + run)
	p.sees("It is tried again in")
	p.sees("Before that: it exited with 3.")
	if text := p.text("main()"); strings.Contains(text, "due at") {
		t.Errorf("it says twice when it is tried again: %s", text)
	}
	for _, path := range []string{"jobs", "runs", "runs/" + run, "runners"} {
		p.open("http://" + f.addr + "/#/" + path)
		p.until("found('main tbody tr').length > 0")
		if over := p.text("found('.table').filter(e => e.scrollWidth > e.clientWidth).length"); over != "0" {
			t.Errorf("a table of %s scrolls sideways at 1280 px", path)
		}
		p.save("fit-" + path)
		p.look(390, "dark")
		if over := p.text("document.scrollingElement.scrollWidth - innerWidth + Math.max(0, innerWidth - 390)"); over != "0" {
			t.Errorf("the page of %s scrolls sideways at 390 px: %s", path, over)
		}
		p.save("fit-small-" + path)
		p.look(1280, "light")
	}
	p.alone(f.addr)
}

// TestJobsOfViewer: a person without a token of ADMIN_TOKENS sees jobs, and no button that
// changes something. What is sent all the same is refused.
func TestJobsOfViewer(t *testing.T) {
	f := startJobs(t, "VIEW_TOKENS=views", "ADMIN_TOKENS=administers", "AUTH_TOKENS=submits")
	p := newPage(t)
	p.open("http://" + f.addr + "/#/jobs")
	p.fill("Token", "views")
	p.click("dialog button", "Sign in")
	p.until("found('main tbody tr').length === 6 && found('nav a', 'Jobs').length === 1")
	if n := p.text("found('main tbody button').length"); n != "0" {
		t.Errorf("a viewer sees %s buttons", n)
	}
	for _, path := range []string{"/api/jobs/waits", "/api/jobs/1/cancel", "/api/jobs/1/retry"} {
		var status int
		if p.run(&status, "return (await fetch("+quote(path)+", { method: 'POST' })).status"); status != http.StatusForbidden {
			t.Errorf("POST %s of a viewer is answered with %d", path, status)
		}
	}
	p.click("header button", "Sign out")
	p.fill("Token", "administers")
	p.click("dialog button", "Sign in")
	p.begin(f.addr, "waits")
	p.click("main button", "Cancel …")
	p.click("dialog button", "Cancel the run")
	p.sees("It was cancelled")
	p.alone(f.addr)
}

// TestJobsOfAnotherNode: the page of a message-consumer shows the jobs of a server, with what
// becomes of them, and changes them.
func TestJobsOfAnotherNode(t *testing.T) {
	f := newPlant(t)
	s := startRabbit(t, f.settings()...)
	f.addr = s.server.Addr
	f.runner(t, "")
	p := newPage(t)
	at := s.consumers[0].Addr
	p.begin(at, "hurts")
	p.until("document.querySelector('.log')?.innerText.includes('red')")
	f.write(t, "go", "")
	p.sees("It succeeded")
	p.until("document.querySelector('.log')?.innerText.includes('the end of')")
	p.begin(at, "waits")
	p.sees("has been running it for")
	p.click("main button", "Cancel …")
	p.click("dialog button", "Cancel the run")
	p.sees("It was cancelled")
	p.open("http://" + at + "/#/runners")
	p.sees(worker)
	p.alone(at)
}

// TestNoEngine: where no process runs jobs, the page says how to start one.
func TestNoEngine(t *testing.T) {
	addr := start(t)
	p := newPage(t)
	for _, path := range []string{"jobs", "runs", "runs/7", "runners"} {
		p.open(fmt.Sprintf("http://%s/#/%s", addr, path))
		p.sees("server --jobs jobs.yaml")
	}
	p.open("http://" + addr + "/#/shards")
	p.until("found('main tbody tr').length === 5")
	if n := p.text("found('nav a', 'Jobs').length"); n != "0" {
		t.Error("the navigation leads to jobs, and there are none")
	}
	p.alone(addr)
}
