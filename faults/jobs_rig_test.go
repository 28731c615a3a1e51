package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"async-data-processor/faults/rig"
)

// jobRun is what the tests read of a run of a job.
type jobRun struct {
	ID                        int64
	Job, State, Key, Why      string
	Queuing, Running, Success bool
	Attempt                   int
	Runner                    string
	Exit                      *int
	File                      *struct {
		Name  string
		Lines int
		Bytes int64
	}
	History []jobAttempt
}

type jobAttempt struct {
	Attempt      int
	Runner       string
	Outcome, Why string
	Cut          int64
	Whole        bool
}

// ended tells whether nothing more happens to the run.
func (r jobRun) ended() bool {
	switch r.State {
	case "succeeded", "cancelled", "timed-out", "dead":
		return true
	}
	return false
}

// jobRunner is what the tests read of a runner.
type jobRunner struct {
	ID      string
	Working bool
	Slots   int
	Busy    int
	Runs    []int64
	Seed    bool
}

// member is a process that is started again as it was, at the same address.
type member struct {
	*rig.Process
	start func() *rig.Process
	name  string // of a runner
}

// jobSystem is a campaign on the jobs of a system: its engines and runners come and go,
// and so does their database.
type jobSystem struct {
	*campaign
	postgres *rig.Postgres // nil if the database is SQLite, in the process of the engine
	state    string        // STATE_URL
	file     string        // the definitions
	witness  string        // the folder in which jobs note what they do
	urls     []string      // of the engines

	engines, runners []*member
}

// count makes names and addresses that no other test of this process has.
var count atomic.Uint32

// ownAddr returns an address that no other process of this machine takes while it is not
// listened on: ports that are given away are of 127.0.0.1.
func ownAddr() string {
	n := count.Add(1)
	return fmt.Sprintf("127.%d.%d.%d:8480", 1+os.Getpid()>>8&127, os.Getpid()&255, n)
}

// newJobs is a system with these definitions and no process yet.
func newJobs(c *campaign, definitions string) *jobSystem {
	c.Helper()
	j := &jobSystem{campaign: c, witness: c.TempDir(), file: filepath.Join(c.TempDir(), "jobs.yaml")}
	c.write(filepath.Join(j.witness, "witness.sh"), witnessScript)
	c.write(j.file, strings.ReplaceAll(definitions, "WITNESS", j.witness))
	if j.state = "sqlite:" + filepath.Join(c.TempDir(), "state.db"); c.engine == postgres.name {
		j.postgres = rig.StartPostgres(c)
		j.state = j.postgres.URL(c)
	}
	return j
}

func (c *campaign) write(name, text string) {
	c.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
}

// addEngine starts an engine that is a command of the program.
func (j *jobSystem) addEngine(command string) *member {
	j.Helper()
	addr := ownAddr()
	m := &member{start: func() *rig.Process {
		return rig.Start(j, command, j.environment("BROKER_URL="+j.Server, "LISTEN_ADDR="+addr, "JOBS="+j.file, "STATE_URL="+j.state)...)
	}}
	m.Process = m.start()
	j.urls, j.engines = append(j.urls, "http://"+addr), append(j.engines, m)
	return m
}

// addRunner starts a runner of an engine. A machine has one of each name.
func (j *jobSystem) addRunner(url string, args ...string) *member {
	j.Helper()
	m := &member{name: fmt.Sprintf("runner-%d-%d", os.Getpid(), count.Add(1))}
	m.start = func() *rig.Process {
		return rig.SpawnWith(j, append([]string{"runner", url, "--name", m.name}, args...))
	}
	m.Process = m.start()
	j.runners = append(j.runners, m)
	return m
}

// crash is kill -9 of a process, and its new start a moment later.
func (j *jobSystem) crash(m *member, most time.Duration) {
	j.Helper()
	m.Kill()
	j.kills++
	j.moment(most)
	m.Process = m.start()
}

// crashDatabase is crash of the database server.
func (j *jobSystem) crashDatabase(most time.Duration) {
	j.Helper()
	j.postgres.Do(j, "kill")
	j.kills++
	j.moment(most)
	j.postgres.Do(j, "start")
}

// stopAll ends runners, then engines; each has to end cleanly.
func (j *jobSystem) stopAll() {
	j.Helper()
	for _, m := range append(j.runners, j.engines...) {
		if code := m.Stop(); code != 0 {
			j.Errorf("exit %d", code)
		}
	}
}

// jobClient gives up on an engine that waits for its database.
var jobClient = http.Client{Timeout: 20 * time.Second}

// ask sends a request to an engine. A connection that broke is the status 0.
func (j *jobSystem) ask(method, url string, body string, header ...string) (status int, text []byte) {
	j.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		j.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := jobClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	if text, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil
	}
	return resp.StatusCode, text
}

// get reads JSON of the first engine.
func (j *jobSystem) get(path string, into any) error {
	j.Helper()
	status, text := j.ask(http.MethodGet, j.urls[0]+path, "")
	if status != http.StatusOK {
		return fmt.Errorf("GET %s: %d %s", path, status, text)
	}
	return json.Unmarshal(text, into)
}

// run returns a run with its history.
func (j *jobSystem) run(id int64) (r jobRun) {
	j.Helper()
	rig.Eventually(j, "answer about a run", func() error { return j.get(fmt.Sprint("/api/jobs/", id), &r) })
	return r
}

// begin makes a run.
func (j *jobSystem) begin(job string) (r jobRun) {
	j.Helper()
	rig.Eventually(j, "run", func() error { // the engine may not have opened its database yet
		status, text := j.ask(http.MethodPost, j.urls[0]+"/api/jobs/"+job, "")
		if status != http.StatusAccepted {
			return fmt.Errorf("POST of %s: %d %s", job, status, text)
		}
		return json.Unmarshal(text, &r)
	})
	return r
}

// awaitRun waits until a run is as wanted.
func (j *jobSystem) awaitRun(id int64, what string, wanted func(jobRun) bool) (r jobRun) {
	j.Helper()
	rig.Eventually(j, what, func() error {
		var now jobRun // what a JSON lacks would stay
		if err := j.get(fmt.Sprint("/api/jobs/", id), &now); err != nil {
			return err
		}
		if r = now; !wanted(r) {
			return fmt.Errorf("it is %+v", r)
		}
		return nil
	})
	return r
}

// log returns what is kept of an attempt's output.
func (j *jobSystem) log(id int64, attempt int) (text []byte) {
	j.Helper()
	rig.Eventually(j, "log", func() error {
		var status int
		if status, text = j.ask(http.MethodGet, fmt.Sprintf("%s/api/jobs/%d/log?attempt=%d", j.urls[0], id, attempt), ""); status != http.StatusOK {
			return fmt.Errorf("the log: %d %s", status, text)
		}
		return nil
	})
	return text
}

// lines returns what the witness of a run has noted.
func (j *jobSystem) lines(id int64) []string {
	j.Helper()
	text, err := os.ReadFile(filepath.Join(j.witness, fmt.Sprint(id)))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		j.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// witnessScript is what jobs do. All processes of an attempt hold the lock of the run. So
// who begins while one of an earlier attempt is left finds it taken.
//
//	witness.sh CHUNKS PAUSE LINES FAILS CODE
//
// It prints so many chunks of so many lines, with a pause after each, and ends with CODE,
// and with 1 before attempt FAILS is over.
const witnessScript = `cd "${0%/*}" || exit 78
exec 9>>"$ADP_RUN.lock"
if ! flock -n 9; then
  echo "twice $ADP_ATTEMPT" >>"$ADP_RUN"
  exit 78
fi
echo "start $ADP_ATTEMPT $$ $ADP_FILE" >>"$ADP_RUN"
for chunk in $(seq "$1"); do
  seq -f "run $ADP_RUN attempt $ADP_ATTEMPT chunk $chunk line %g" "$3"
  sleep "$2"
done
code=$5
if [ "$ADP_ATTEMPT" -le "$4" ]; then code=1; fi
echo "end $ADP_ATTEMPT $code" >>"$ADP_RUN"
exit "$code"
`

// wantLog is all that an attempt of witness.sh prints.
func wantLog(id int64, attempt, chunks, lines int) []byte {
	var b bytes.Buffer
	for chunk := range chunks {
		for line := range lines {
			fmt.Fprintf(&b, "run %d attempt %d chunk %d line %d\n", id, attempt, chunk+1, line+1)
		}
	}
	return b.Bytes()
}

// alive tells whether a process is there, and not just waited for.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(state, "Z") && syscall.Kill(pid, 0) == nil
}
