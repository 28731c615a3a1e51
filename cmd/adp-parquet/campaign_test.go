package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"async-data-processor/faults/process"
)

var kills = flag.Int("kills", 4, "how often TestCampaign kills a process")

// TestCampaign kills the pipeline, which has the engine of jobs, and a runner, while each
// file starts a job that makes it Parquet. Each accepted entry is in exactly one row.
func TestCampaign(t *testing.T) {
	c := newCampaign(t)
	c.pipeline, c.runner = c.startPipeline(), c.startRunner()
	posted, stop := make(chan map[string]int), make(chan struct{})
	go func() { posted <- c.post(stop) }()
	for range *kills {
		time.Sleep(time.Second + rand.N(time.Second))
		if rand.N(4) == 0 {
			c.runner.Kill()
			c.runner = c.startRunner()
			continue
		}
		c.pipeline.Kill()
		time.Sleep(rand.N(500 * time.Millisecond))
		c.pipeline = c.startPipeline()
	}
	close(stop)
	accepted := <-posted
	files := c.settle(accepted)
	for _, p := range []*process.Process{c.runner, c.pipeline} {
		p.Signal(syscall.SIGTERM)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if code, err := p.Wait(ctx); code != 0 || err != nil {
			t.Errorf("exit %d, %v", code, err)
		}
		cancel()
	}

	rows := query(t, fmt.Sprintf("SELECT split_part(message_id, '.', 1) AS id, count(*), count(DISTINCT message_id) FROM read_parquet('%s/*.parquet') GROUP BY id", c.out))[0]
	t.Logf("%d submissions, %d files, %d kills", len(accepted), files, *kills)
	for _, row := range rows {
		id, want := row[0].(string), fmt.Sprint(accepted[row[0].(string)])
		if row[1] != want || row[2] != want {
			t.Errorf("submission %s has %s entries, and %s rows with %s ids", id, want, row[1], row[2])
		}
		delete(accepted, id)
	}
	if len(accepted) > 0 {
		t.Errorf("%d submissions have no row: %v", len(accepted), accepted)
	}
}

// campaign is a pipeline with its engine of jobs, and a runner.
type campaign struct {
	*testing.T
	program, addr    string
	data, out, state string // folders
	pipeline, runner *process.Process
}

func newCampaign(t *testing.T) *campaign {
	dir := t.TempDir()
	c := &campaign{T: t, program: filepath.Join(dir, "async-data-processor"), data: dir + "/data", out: dir + "/out", state: dir + "/state"}
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../..", "-o", c.program, "./cmd/async-data-processor")
	if told, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, told)
	}
	for _, folder := range []string{c.data, c.out, c.state} {
		must(t, os.Mkdir(folder, 0o755))
	}
	self, err := os.Executable()
	must(t, err)
	job, err := json.Marshal(map[string]any{"parquet": map[string]any{
		"on": "file", "command": []string{"env", asProgram + "=1", self, "--out", c.out},
		"attempts": 100, "backoff": "1s", "concurrency": 50, "keep": 100_000,
	}})
	must(t, err)
	must(t, os.WriteFile(c.state+"/jobs.yaml", job, 0o600)) // JSON is YAML
	// Its own address is free again each time that the pipeline has been killed.
	c.addr = fmt.Sprintf("127.%d.%d.1:8480", 1+os.Getpid()>>8&127, os.Getpid()&255)
	return c
}

func (c *campaign) startPipeline() *process.Process {
	c.Helper()
	p := c.start([]string{
		"LISTEN_ADDR=" + c.addr, "DATA_OUTPUT_DIR=" + c.data, "BROKER_URL=embedded://" + c.state + "/broker", "EMBEDDED_MIN_FREE=1048576",
		"STATE_URL=sqlite:" + c.state + "/state.db", "JOBS=" + c.state + "/jobs.yaml", "ROLL_BYTES=8192", "ROLL_INTERVAL=300ms",
	}, "standalone")
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	must(c.T, p.Listen(ctx))
	return p
}

func (c *campaign) startRunner() *process.Process {
	c.Helper()
	return c.start(nil, "runner", "http://"+c.addr, "--name", fmt.Sprint("parquet-", os.Getpid()), "--slots", "4", "--output-dir", c.data)
}

func (c *campaign) start(settings []string, args ...string) *process.Process {
	c.Helper()
	p, err := process.Spawn(settings, c.program, args...)
	must(c.T, err)
	c.Cleanup(p.Kill)
	return p
}

// post sends entries until stop or the end of the test, each submission again until it is
// accepted. It returns how many entries each has.
func (c *campaign) post(stop <-chan struct{}) map[string]int {
	accepted := map[string]int{}
	for n := 0; c.Context().Err() == nil; n++ {
		entries := make([]string, 1+rand.N(100))
		for i := range entries {
			at := time.Unix(int64(rand.N(1<<30)), 0).UTC().Format(time.RFC3339)
			entries[i] = fmt.Sprintf(`{"timestamp":%q,"value":"entry %d","n":%d}`, at, i, n)
		}
		for c.Context().Err() == nil {
			id, entered := c.submit(n, "["+strings.Join(entries, ",")+"]")
			if id != "" {
				accepted[id] = entered
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		select {
		case <-stop:
			return accepted
		case <-time.After(100 * time.Millisecond):
		}
	}
	return accepted
}

// submit returns the id of an accepted submission, and how many entries it has.
func (c *campaign) submit(n int, body string) (id string, entries int) {
	req, err := http.NewRequestWithContext(c.Context(), http.MethodPost, "http://"+c.addr+"/message", strings.NewReader(body))
	if err != nil {
		return "", 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", fmt.Sprint("submission-", n))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0
	}
	defer resp.Body.Close()
	var receipt struct {
		ID       string
		Accepted int
	}
	if resp.StatusCode != http.StatusCreated || json.NewDecoder(resp.Body).Decode(&receipt) != nil {
		return "", 0
	}
	return receipt.ID, receipt.Accepted
}

// settle waits until all entries are in files, and each of those has its result. It
// returns how many files there are.
func (c *campaign) settle(accepted map[string]int) (files int) {
	c.Helper()
	entries := 0
	for _, n := range accepted {
		entries += n
	}
	for deadline := time.Now().Add(patience + time.Duration(*kills)*time.Second); ; time.Sleep(100 * time.Millisecond) {
		lines, missing := 0, 0
		files = 0
		must(c.T, filepath.WalkDir(c.data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, published) || strings.HasPrefix(d.Name(), ".") {
				return err
			}
			text, err := os.ReadFile(path)
			lines += strings.Count(string(text), "\n")
			files++
			if _, gone := os.Stat(parquetOf(path, c.out)); gone != nil {
				missing++
			}
			return err
		}))
		if lines == entries && missing == 0 {
			return files
		}
		if time.Now().After(deadline) {
			c.Fatalf("%d of %d entries are in %d files, %d of which have no result", lines, entries, files, missing)
		}
	}
}
