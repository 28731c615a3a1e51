package faults

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"async-data-processor/faults/rig"
)

const helloJob = `- name: hello-world
  command: [sh, -c, "echo hello, world; while [ ! -e WITNESS/go ]; do sleep .1; done"]
`

// TestJobsSession is a first session with curl: a server with a jobs file, three runners,
// no run, one that is begun, runs and succeeds.
func TestJobsSession(t *testing.T) {
	on(t, "none, a session with jobs", func(c *campaign) {
		j := newJobs(c, helloJob)
		j.addEngine("server")
		j.oldRunner()
		for range 3 {
			j.addRunner(j.urls[0])
		}
		var workers []jobRunner
		rig.Eventually(c, "three runners", func() error {
			if workers = nil; j.curl(&workers, "/api/workers") != nil || len(workers) != 3 {
				return fmt.Errorf("the runners are %+v", workers)
			}
			return nil
		})
		for _, w := range workers {
			if w.ID == "" || w.Working {
				c.Errorf("a runner is %+v", w)
			}
		}

		var r jobRun
		if err := j.curl(&r, "/api/jobs/hello-world", "-X", "POST"); err != nil || r.ID == 0 || r.Job != "hello-world" || r.Success {
			c.Fatalf("the run is %+v, %v", r, err)
		}
		j.awaitListed(r.ID, "running", func(r jobRun) bool { return r.Running && !r.Queuing && !r.Success })
		c.write(j.witness+"/go", "")
		last := 0 // attempt: a busy machine may begin too late with one
		j.awaitListed(r.ID, "success", func(r jobRun) bool {
			last = r.Attempt
			return r.Success && !r.Running && !r.Queuing
		})
		if text := j.log(r.ID, last); string(text) != "hello, world\n" {
			c.Errorf("the log is %q", text)
		}
		j.stopAll()
	}, postgres)
}

// curl reads JSON as a person does.
func (j *jobSystem) curl(into any, path string, args ...string) error {
	j.Helper()
	text, err := exec.Command("curl", append(args, "-sS", "--fail-with-body", j.urls[0]+path)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("curl %s: %w: %s", path, err, text)
	}
	return json.Unmarshal(text, into)
}

// awaitListed waits until the list has a run as it is wanted.
func (j *jobSystem) awaitListed(id int64, what string, wanted func(jobRun) bool) {
	j.Helper()
	rig.Eventually(j, what, func() error {
		var runs []jobRun
		if err := j.curl(&runs, "/api/jobs"); err != nil {
			return err
		}
		if runs[0].ID != id || !wanted(runs[0]) {
			return fmt.Errorf("the runs are %+v", runs)
		}
		return nil
	})
}

// oldRunner does a run as the runners did that speak binary frames.
func (j *jobSystem) oldRunner() {
	j.Helper()
	var none []jobRun
	rig.Eventually(j, "list", func() error { return j.curl(&none, "/api/jobs") })
	if none == nil || len(none) > 0 {
		j.Errorf("the runs are %+v, want an empty list", none)
	}
	r := j.begin("hello-world")
	if !r.Queuing || r.Why == "" {
		j.Errorf("without a runner the run is %+v", r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), rig.Patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, strings.Replace(j.urls[0], "http", "ws", 1)+"/runner", nil)
	if err != nil {
		j.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	read := func(kind byte) []byte {
		j.Helper()
		_, frame, err := conn.Read(ctx)
		if err != nil || len(frame) == 0 || frame[0] != kind {
			j.Fatalf("the old runner reads %q, %v", frame, err)
		}
		return frame[1:]
	}
	write := func(kind byte) {
		j.Helper()
		if err := conn.Write(ctx, websocket.MessageBinary, binary.BigEndian.AppendUint32([]byte{kind}, uint32(r.ID))); err != nil {
			j.Fatal(err)
		}
	}
	var jobs []struct{ Name string }
	if err := json.Unmarshal(read(1), &jobs); err != nil || len(jobs) != 1 || jobs[0].Name != "hello-world" {
		j.Fatalf("the definitions are %+v, %v", jobs, err)
	}
	want := binary.BigEndian.AppendUint32(nil, uint32(r.ID))
	want = append(binary.BigEndian.AppendUint64(want, uint64(len("hello-world"))), "hello-world"...)
	if got := read(2); string(got) != string(want) {
		j.Fatalf("the run is enqueued as %q, want %q", got, want)
	}
	write(1)
	j.awaitListed(r.ID, "running", func(r jobRun) bool { return r.Running })
	var workers []jobRunner
	if err := j.curl(&workers, "/api/workers"); err != nil || len(workers) != 1 || !workers[0].Working || !workers[0].Seed {
		j.Errorf("the runners are %+v, %v", workers, err)
	}
	write(9) // others are ignored
	write(2)
	j.awaitListed(r.ID, "success", func(r jobRun) bool { return r.Success })
}
