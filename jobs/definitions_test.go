package jobs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"async-data-processor/jobs/frame"
)

func TestParseDefinitions(t *testing.T) {
	whole := frame.Definition{
		Name: "etl", Image: "registry.example/etl:1", Command: []string{"run", "--all", "7"}, On: frame.File, Labels: []string{"gpu", "big"},
		Timeout: frame.Seconds(time.Hour), Grace: frame.Seconds(30 * time.Second), Concurrency: 3, Attempts: 7, Backoff: frame.Seconds(time.Minute),
		Env: map[string]string{"MODE": "fast", "N": "5"}, Secrets: []string{"TOKEN"}, Keep: 10,
	}
	plain := frame.Definition{
		Name: "hello", Command: []string{"echo hello"}, On: frame.Manual, Timeout: frame.Seconds(10 * time.Minute), Grace: frame.Seconds(10 * time.Second),
		Concurrency: 1, Attempts: 1, Backoff: frame.Seconds(10 * time.Second), Keep: 1000,
	}
	days := plain
	days.Timeout = frame.Seconds(48 * time.Hour)
	file := plain
	file.On, file.Attempts = frame.File, 5
	for name, c := range map[string]struct {
		text string
		want []frame.Definition
	}{
		"empty":   {"", nil},
		"null":    {"# nothing\n---\n", nil},
		"a map":   {"hello:\n  command: echo hello\n", []frame.Definition{plain}},
		"a list":  {"- name: hello\n  command: echo hello\n", []frame.Definition{plain}},
		"both":    {"hello:\n  name: hello\n  command: echo hello\n", []frame.Definition{plain}},
		"JSON":    {`{"hello":{"command":["echo hello"]}}`, []frame.Definition{plain}},
		"a file":  {"hello: {command: echo hello, on: file}", []frame.Definition{file}},
		"days":    {"hello: {command: echo hello, timeout: 2d}", []frame.Definition{days}},
		"aliases": {"hello: {command: &c [echo hello]}\nother: {command: *c}\n", []frame.Definition{plain, func() frame.Definition { o := plain; o.Name = "other"; return o }()}},
		"all": {`
etl:
  image: registry.example/etl:1
  command: [run, --all, 7]
  on: file
  labels: [gpu, big]
  timeout: 1h
  grace: 30s
  concurrency: 3
  attempts: 7
  backoff: 1m
  env: {MODE: fast, N: 5}
  secrets: TOKEN
  keep: 10
`, []frame.Definition{whole}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseDefinitions([]byte(c.text))
			must(t, err)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestParseDefinitionsRefuses(t *testing.T) {
	var many strings.Builder
	for n := range maxJobs + 1 {
		fmt.Fprintf(&many, "j%d: {command: x}\n", n)
	}
	bomb := "- &a {name: j0, command: [" + strings.TrimSuffix(strings.Repeat("'"+strings.Repeat("x", 1000)+"',", 100), ",") + "]}\n"
	var aliases strings.Builder
	fmt.Fprintf(&aliases, "j0: {command: &c [%s]}\n", strings.TrimSuffix(strings.Repeat("'"+strings.Repeat("x", 1000)+"',", 100), ","))
	for n := range 20 {
		fmt.Fprintf(&aliases, "k%d: {command: *c}\n", n)
	}
	for name, c := range map[string]struct{ text, want string }{
		"an unknown key":      {"a:\n  command: x\n  comand: y\n", `line 3: a job has no "comand"; there are name, image`},
		"a merge":             {"a: &a {command: x}\nb:\n  <<: *a\n", `line 3: a job has no "<<"`},
		"a member twice":      {"a:\n  command: x\n  command: y\n", `line 3: the member "command" is here twice, first in line 2`},
		"a job twice":         {"a: {command: x}\nb: {command: x}\na: {command: x}\n", `line 3: the job "a" is here twice, first in line 1`},
		"a job twice, listed": {"- {name: a, command: x}\n- {name: a, command: x}\n", `line 2: the job "a" is here twice, first in line 1`},
		"an alias twice":      {bomb + "- *a\n", `the job "j0" is here twice`},
		"another name":        {"a:\n  name: b\n  command: x\n", `line 2: name: the job is called "a" already`},
		"no name":             {"- command: x\n", `line 1: name: "": want 1 to 64`},
		"a number":            {"17: {command: x}\n", `line 1: name: "17" is a number`},
		"a path":              {"a/b: {command: x}\n", `line 1: name: "a/b": want 1 to 64`},
		"a long name":         {strings.Repeat("a", 65) + ": {command: x}\n", "want 1 to 64"},
		"nothing to do":       {"a: {timeout: 1s}\n", `line 1: the job "a" needs an image, a command`},
		"no job":              {"a:\n", "line 1: want a job"},
		"a text":              {"hello", "line 1: want jobs"},
		"two documents":       {"a: {command: x}\n---\nb: {command: x}\n", "a second document"},
		"broken":              {"a: {command: x\n", "line"},
		"an empty command":    {"a: {command: []}\n", "line 1: command: want 1 to 128 arguments"},
		"an empty argument":   {"a: {command: ['', b]}\n", "line 1: command: the first argument is empty"},
		"a command of maps":   {"a: {command: [{b: c}]}\n", "line 1: command: want a plain value"},
		"a zero byte":         {`a: {command: ["x\0"]}` + "\n", "line 1: command: a text has a zero byte"},
		"an option":           {"a: {image: --privileged}\n", "line 1: image: want the name of an image"},
		"an image of words":   {"a: {image: b c}\n", "line 1: image: want the name of an image"},
		"on what":             {"a: {command: x, on: monday}\n", "line 1: on: want manual or file"},
		"no unit":             {"a: {command: x, timeout: 600}\n", "line 1: timeout: want a number with a unit, for example 30s or 10m, from 1s to 7d"},
		"a long timeout":      {"a: {command: x, timeout: 8d}\n", "line 1: timeout: want a number"},
		"a negative grace":    {"a: {command: x, grace: -1s}\n", "line 1: grace: want a number"},
		"concurrency":         {"a: {command: x, concurrency: 0}\n", "line 1: concurrency: want a whole number from 1 to 1000"},
		"attempts":            {"a: {command: x, attempts: 1.5}\n", "line 1: attempts: want a whole number from 1 to 100"},
		"backoff":             {"a: {command: x, backoff: 2h}\n", "line 1: backoff: want"},
		"keep":                {"a: {command: x, keep: -1}\n", "line 1: keep: want a whole number from 1 to 100000"},
		"a label":             {"a: {command: x, labels: [a b]}\n", `line 1: labels: "a b": want`},
		"a label twice":       {"a: {command: x, labels: [a, a]}\n", `line 1: labels: "a" is here twice`},
		"labels":              {"a: {command: x, labels: {a: b}}\n", "line 1: labels: want a list of names"},
		"env":                 {"a: {command: x, env: [A]}\n", "line 1: env: want a map"},
		"a variable":          {"a: {command: x, env: {1A: b}}\n", `line 1: env: "1A": want the name of a variable`},
		"a variable of ours":  {"a: {command: x, env: {ADP_RUN: b}}\n", "line 1: env: \"ADP_RUN\": what begins with ADP_"},
		"a variable twice":    {"a: {command: x, env: {A: b, A: c}}\n", "line 1: env: A is here twice"},
		"a null":              {"a: {command: x, env: {A: }}\n", "line 1: env: A: want a plain value"},
		"a secret with value": {"a: {command: x, env: {A: b}, secrets: [A]}\n", `line 1: the job "a" has A in env and in secrets`},
		"too many":            {many.String(), "too many jobs: want at most 256"},
		"too long":            {strings.Repeat("#", maxDefinitionsBytes+1), "longer than 256 KiB"},
		"much by aliases":     {aliases.String(), "more than 512 KiB as JSON"},
		"itself":              {"a: &a {command: *a}\n", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			jobs, err := parseDefinitions([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || jobs != nil {
				t.Errorf("got %d jobs and %v, want %q", len(jobs), err, c.want)
			}
		})
	}
	_, err := parseDefinitions([]byte("a:\n  comand: x\n  timeout: 1\nb: {on: x}\n"))
	if err == nil || strings.Count(err.Error(), "line ") != 3 {
		t.Errorf("got %v, want all that is wrong", err)
	}
}

// TestLoadDefinitions: what is no file, or is being written, is not taken.
func TestLoadDefinitions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jobs.yaml")
	if _, err := LoadDefinitions(path); err == nil {
		t.Error("a file that is not there is read")
	}
	must(t, syscall.Mkfifo(path, 0o600))
	if _, err := LoadDefinitions(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("of a pipe got %v", err)
	}
	must(t, os.Remove(path))
	write := func(text string) {
		t.Helper()
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	write("a: {command: x}")
	d, err := LoadDefinitions(path)
	must(t, err)
	for _, step := range []struct {
		text    string
		changed bool
		fails   bool
		jobs    int
		broken  bool
	}{
		{"a: {command: x}", false, false, 1, false},
		{"a: {command: x}\nb: {comm", false, false, 1, false}, // seen once
		{"a: {command: x}\nb: {command: y}", false, false, 1, false},
		{"a: {command: x}\nb: {command: y}", true, false, 2, false},
		{"a: {command: x}\nb: {command: y}", false, false, 2, false},
		{"a: {comm: x}", false, false, 2, false},
		{"a: {comm: x}", false, true, 2, true},
		{"a: {command: x}\nb: {command: y}", false, false, 2, true},
		{"a: {command: x}\nb: {command: y}", false, false, 2, false},
		{"", false, false, 2, false},
		{"", true, false, 0, false},
	} {
		write(step.text)
		changed, err := d.Reload()
		if changed != step.changed || (err != nil) != step.fails || len(d.All()) != step.jobs {
			t.Fatalf("after %q: changed %v, %v, %d jobs, want %+v", step.text, changed, err, len(d.All()), step)
		}
		if broken := d.Broken(); (broken != nil) != step.broken {
			t.Errorf("after %q it is broken: %v", step.text, broken)
		}
		if err != nil && !strings.Contains(err.Error(), path+": line 1") {
			t.Errorf("got %v", err)
		}
	}
	if _, ok := d.Find("a"); ok {
		t.Error("there is a job that was removed")
	}
}

// FuzzDefinitions: whatever a file holds is refused, or jobs that keep the bounds, and fit
// into a frame.
func FuzzDefinitions(f *testing.F) {
	for _, seed := range []string{
		testJobs, "- {name: a, command: x}", "a: &a {command: *a}", "a: {command: &c [x], env: {A: b}}\nb: {command: *c}", "a: {command: !!binary aGk=}",
		"? [a]\n: {command: x}", "a: {command: |\n  x\n}", "%YAML 1.2\n---\na: {command: x}", "a: {timeout: 1d, command: \"\\x00\"}", "\xff\xfe", "a: {<<: {command: x}}", "!!map {a: !!map {command: x}}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		jobs, err := parseDefinitions(text)
		if err != nil {
			return
		}
		told, err := json.Marshal(jobs)
		if err != nil || len(told) > frame.MaxFrame || len(jobs) > maxJobs {
			t.Fatalf("%d jobs have %d bytes as JSON, %v", len(jobs), len(told), err)
		}
		var again []frame.Definition
		must(t, json.Unmarshal(told, &again))
		names := make(map[string]bool)
		for i, d := range jobs {
			if checkName(d.Name) != nil || names[d.Name] || d.Concurrency < 1 || d.Attempts < 1 || d.Keep < 1 || d.Timeout <= 0 || d.Image == "" && len(d.Command) == 0 {
				t.Errorf("got %+v", d)
			}
			names[d.Name] = true
			if again[i].Timeout != d.Timeout && time.Duration(again[i].Timeout-d.Timeout).Abs() > time.Microsecond {
				t.Errorf("the timeout %v becomes %v", time.Duration(d.Timeout), time.Duration(again[i].Timeout))
			}
		}
	})
}
