package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"async-data-processor/faults/rig"
)

// countJob counts the lines of each file.
const countJob = `- name: count
  on: file
  command:
    - sh
    - -c
    - |
      cd WITNESS || exit 78
      exec 9>>"$ADP_RUN.lock"
      flock -n 9 || { echo "twice $ADP_ATTEMPT" >>"$ADP_RUN"; exit 78; }
      n=$(wc -l <"$ADP_FILE") || exit 1
      [ "$n" = "$ADP_LINES" ] || exit 78
      echo "$ADP_FILE $n" >>"$ADP_RUN"
  attempts: 100
  backoff: 1s
  concurrency: 50
  keep: 100000
`

// TestJobsOfFiles kills the processes that publish files and run the engine of jobs,
// runners and the database. Each file has exactly one run, and that one found it whole.
func TestJobsOfFiles(t *testing.T) {
	on(t, "kill -9 while each file starts a job", func(c *campaign) {
		j := newJobs(c, countJob)
		addr := ownAddr()
		j.urls = []string{"http://" + addr}
		c.settings = append(c.settings, "LISTEN_ADDR="+addr, "JOBS="+j.file, "STATE_URL="+j.state)
		c.start(rig.LoadConfig{Clients: 2, Size: 20, Pause: 400 * time.Millisecond}) // 20 files a second, which runners keep up with
		for range 2 {
			j.addRunner(j.urls[0], "--slots=4", "--output-dir="+c.dir)
		}
		for n := range either(4, 100) {
			c.load.More(either(100, 500))
			c.moment(200 * time.Millisecond)
			switch {
			case n%4 == 3:
				j.crash(j.runners[c.rng.IntN(2)], time.Second)
			case n%4 == 2 && j.postgres != nil:
				j.crashDatabase(time.Second)
			default:
				c.kill(c.victims()...)
				c.up()
			}
			c.cycle()
		}
		c.load.Stop()
		c.check.Await(nil)
		j.judgeFiles()
		for _, m := range j.runners {
			if code := m.Stop(); code != 0 {
				c.Errorf("exit %d", code)
			}
		}
		c.finish()
	}, sqlite, postgres)
}

// judgeFiles waits until the visible files have their runs, and holds each to one.
func (j *jobSystem) judgeFiles() {
	j.Helper()
	files := make(map[string]int) // lines by name
	for _, f := range rig.ReadTree(j, j.dir, j.shards, j.campaign.batch).Files {
		files[f.Name] = f.Lines
	}
	var runs map[string][]jobRun // by file
	rig.Eventually(j, "a run for each file", func() error {
		var err error
		if runs, err = j.runsOfFiles(); err != nil {
			return err
		}
		for name := range files {
			if of := runs[name]; len(of) == 0 || !of[0].ended() {
				return fmt.Errorf("%s has the runs %+v", name, of)
			}
		}
		return nil
	})
	for name, of := range runs {
		lines, published := files[name]
		if !published || len(of) != 1 || !of[0].Success || of[0].File.Lines != lines {
			j.Errorf("%s has %d lines and the runs %+v", name, lines, of)
		}
	}
	noted := make(map[string]bool)
	names, err := filepath.Glob(filepath.Join(j.witness, "*[0-9]"))
	if err != nil {
		j.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			j.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "twice") {
				j.Errorf("%s: %s", name, line)
			}
			noted[strings.TrimPrefix(line, j.dir+"/")] = true
		}
	}
	for name, lines := range files {
		if !noted[fmt.Sprintf("%s %d\n", name, lines)] {
			j.Errorf("no run has counted %s", name)
		}
	}
	j.note("%d files, %d runs", len(files), len(runs))
}

// runsOfFiles returns all runs.
func (j *jobSystem) runsOfFiles() (map[string][]jobRun, error) {
	runs := make(map[string][]jobRun)
	for before := int64(0); ; {
		path := "/api/jobs?limit=1000"
		if before > 0 {
			path += fmt.Sprint("&before=", before)
		}
		var page []jobRun
		if err := j.get(path, &page); err != nil || len(page) == 0 {
			return runs, err
		}
		for _, r := range page {
			if r.File == nil {
				return nil, fmt.Errorf("a run has no file: %+v", r)
			}
			runs[r.File.Name], before = append(runs[r.File.Name], r), r.ID
		}
	}
}
