package faults

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"async-data-processor/faults/rig"
)

// stuckJob has an attempt that leaves nothing out to stay: a child in another session, and
// no ear for SIGTERM. Its second attempt waits for the file "go".
const stuckJob = `- name: stuck
  command:
    - sh
    - -c
    - |
      cd WITNESS || exit 78
      exec 9>>"$ADP_RUN.lock"
      flock -n 9 || { echo "twice $ADP_ATTEMPT" >>"$ADP_RUN"; exit 78; }
      if [ "$ADP_ATTEMPT" = 1 ]; then
        trap '' TERM
        setsid sleep 1000 &
        echo "start 1 $$ $!" >>"$ADP_RUN"
        while :; do sleep 1; done
      fi
      echo "start $ADP_ATTEMPT $$" >>"$ADP_RUN"
      while [ ! -e go ]; do sleep .1; done
      echo "end $ADP_ATTEMPT 0" >>"$ADP_RUN"
  attempts: 5
  backoff: 1s
  grace: 1s
`

// TestRunnerStopped stops a runner for longer than its lease, and wakes it. Its processes
// have ended before its run is lost, so that the next attempt is alone. What the woken
// runner tells is too late, and changes nothing.
func TestRunnerStopped(t *testing.T) {
	on(t, "SIGSTOP of a runner beyond its lease", func(c *campaign) {
		j := newJobs(c, stuckJob)
		j.addEngine("standalone")
		first := j.addRunner(j.urls[0])
		id := j.begin("stuck").ID
		j.awaitRun(id, "running attempt", func(r jobRun) bool { return r.Running && len(j.lines(id)) > 0 })
		var shell, child int
		if _, err := fmt.Sscanf(j.lines(id)[0], "start 1 %d %d", &shell, &child); err != nil {
			t.Fatal(err)
		}

		first.Signal(syscall.SIGSTOP)
		lost := j.awaitRun(id, "lost attempt", func(r jobRun) bool { return r.State == "queued" || r.Attempt > 1 })
		for _, pid := range []int{shell, child} {
			if alive(pid) {
				c.Errorf("process %d of the first attempt is there, and the run is %+v", pid, lost)
			}
		}
		second := j.addRunner(j.urls[0])
		// The run may have been offered to the first one meanwhile, which is an attempt, too.
		next := j.awaitRun(id, "next attempt", func(r jobRun) bool { return r.Running && r.Runner == second.name && len(j.lines(id)) == 2 })

		first.Signal(syscall.SIGCONT)
		rig.Eventually(c, "the first runner without a run", func() error {
			var runners []jobRunner
			if err := j.get("/api/workers", &runners); err != nil {
				return err
			}
			i := slices.IndexFunc(runners, func(r jobRunner) bool { return r.ID == first.name })
			if i < 0 || slices.Contains(runners[i].Runs, id) || !first.told("attempt ended") {
				return fmt.Errorf("the runners are %+v", runners)
			}
			return nil
		})
		if r := j.run(id); r.State != next.State || r.Attempt != next.Attempt || r.Runner != second.name || r.History[0].Outcome != "lost" {
			c.Errorf("after the late report the run is %+v, want %+v", r, next)
		}

		c.write(j.witness+"/go", "")
		r := j.awaitRun(id, "end", jobRun.ended)
		if lines := j.lines(id); !r.Success || r.Attempt != next.Attempt || len(lines) != 3 || lines[2] != fmt.Sprintf("end %d 0", next.Attempt) {
			c.Errorf("the run is %+v, its witness has %q", r, lines)
		}
		j.stopAll()
	}, sqlite)
}

// told tells whether a process has a text in its log.
func (m *member) told(text string) bool {
	return slices.ContainsFunc(m.Lines(), func(l rig.Line) bool {
		return strings.Contains(l.Message+l.Reason+l.Error, text)
	})
}
