package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"async-data-processor/message"
)

// TestMain lets the test binary be the bare contender that is a process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == echoCommand {
		main()
	}
	goleak.VerifyTestMain(m)
}

// TestQuick runs every benchmark once, so that none of them rots.
func TestQuick(t *testing.T) {
	t.Setenv("RABBITMQ_URL", "") // a node of its own: other tests have the queues of that one
	dir, work := t.TempDir(), t.TempDir()
	var table, log strings.Builder
	if code := run(t.Context(), []string{"-quick", "-dir", work, "-results", dir}, &table, &log); code != 0 {
		t.Fatalf("exit %d\n%s", code, &log)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	var rep report
	if err := json.Unmarshal(contentOf(files[0]), &rep); err != nil {
		t.Fatal(err)
	}
	measured := make(map[string]bool)
	for _, r := range rep.Results {
		measured[r.Name] = true
		if r.Skipped == "" && r.Value <= 0 && r.Name != "idle" { // an idle process may use no time at all
			t.Errorf("%s, %s: the value is %v", r.Name, r.What, r.Value)
		}
		for _, p := range r.Pairs {
			if p[0] <= 0 || p[1] <= 0 {
				t.Errorf("%s, %s: a contender did nothing: %v", r.Name, r.What, p)
			}
		}
		if !strings.Contains(table.String(), r.What) {
			t.Errorf("%s is not in the table", r.What)
		}
	}
	for _, b := range benchmarks {
		if !measured[b.name] {
			t.Errorf("%s has no result", b.name)
		}
	}
	if m := rep.Machine; m.CPU == "" || m.Cores == 0 || m.Kernel == "" || m.FileSystem == "" || m.RabbitMQ == "" || m.Commit == "" {
		t.Errorf("the machine is not described: %+v", m)
	}
	if left, _ := os.ReadDir(work); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-only", "ingest"}, {"-pairs", "many"}, {"files"}} {
		if code := run(t.Context(), args, io.Discard, io.Discard); code != 2 {
			t.Errorf("%v: exit %d, want 2", args, code)
		}
	}
	var list strings.Builder
	if code := run(t.Context(), []string{"-list"}, &list, io.Discard); code != 0 || strings.Count(list.String(), "\n") != len(benchmarks) {
		t.Errorf("exit %d, listed:\n%s", code, &list)
	}
}

func TestJudge(t *testing.T) {
	for name, tc := range map[string]struct {
		r     result
		value float64
		met   bool
	}{
		// The median of the ratios is not the ratio of the medians.
		"ratios":   {result{Pairs: [][2]float64{{10, 1}, {10, 5}, {30, 10}}, Want: 3}, 3, true},
		"even":     {result{Pairs: [][2]float64{{1, 1}, {2, 1}}, Want: 1.6}, 1.5, false},
		"at most":  {result{Value: 150, Want: 150, AtMost: true}, 150, true},
		"over":     {result{Value: 151, Want: 150, AtMost: true}, 151, false},
		"too slow": {result{Value: 0.7, Want: 0.75}, 0.7, false},
	} {
		if tc.r.judge(); tc.r.Value != tc.value || tc.r.Met != tc.met {
			t.Errorf("%s: got %v, met %v", name, tc.r.Value, tc.r.Met)
		}
	}
}

// TestGrowth: a rate with the start in it counts only where there is no other.
func TestGrowth(t *testing.T) {
	l := &lab{plan: plan{backlogs: []int{1, 2, 3}}}
	rates := [][]float64{{1}, {80, 120}, {50}}
	for want, whole := range map[float64][]bool{0.01: {false, false, false}, 0.5: {true, false, false}, 1: {true, true, false}} {
		if got := growth(l.backlogs, "rolling", rates, whole); got.Value != want || len(got.Facts) != 3 {
			t.Errorf("%v: got %v, want %v; %q", whole, got.Value, want, got.Facts)
		}
	}
	if got := growth(l.backlogs, "rolling", rates, []bool{true, true, true}); got.Value != 0.01 {
		t.Errorf("got %v with nothing else", got.Value)
	}
}

func TestCompareAlternates(t *testing.T) {
	var order string
	side := func(name string, value float64) contender {
		return contender{name, func(context.Context) (sample, error) {
			order += name
			return sample{value: value}, nil
		}}
	}
	l := &lab{plan: plan{pairs: 3}, output: io.Discard}
	r, err := l.compare(t.Context(), result{Want: 2}, side("a", 4), side("b", 2))
	if err != nil || order != "ababab" || r.Value != 2 || !r.Met {
		t.Errorf("ran %s, got %+v, %v", order, r, err)
	}
	broken := contender{"broken", func(context.Context) (sample, error) { return sample{}, io.ErrUnexpectedEOF }}
	if _, err := l.compare(t.Context(), result{}, side("a", 4), broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got the error %v", err)
	}
}

func TestAccepted(t *testing.T) {
	const fine = "HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody"
	for name, tc := range map[string]struct {
		r           io.Reader
		ok, refused bool
	}{
		"at once":       {r: strings.NewReader(fine), ok: true},
		"byte by one":   {r: iotest.OneByteReader(strings.NewReader(fine)), ok: true},
		"cut off":       {r: strings.NewReader(fine[:len(fine)-1])},
		"unavailable":   {r: iotest.OneByteReader(strings.NewReader(strings.Replace(fine, "201", "503", 1))), refused: true},
		"found wanting": {r: strings.NewReader(strings.Replace(fine, "201", "400", 1))},
		"no length":     {r: strings.NewReader(strings.Replace(fine, "Length", "Width", 1))},
	} {
		err := accepted(tc.r, make([]byte, 1<<10))
		if (err == nil) != tc.ok || errors.Is(err, errRefused) != tc.refused {
			t.Errorf("%s: got the error %v", name, err)
		}
	}
}

// TestLineBytes holds what a run waits for to what becomes of an array.
func TestLineBytes(t *testing.T) {
	s, err := message.Decode(message.NewID(), array(100, 7), message.JSON)
	if err != nil {
		t.Fatal(err)
	}
	var want int64
	for _, m := range s.Messages {
		want += int64(len(m.Line) + 1)
	}
	if got := lineBytes(100); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0.5: "0.5", 999.4: "999", 1000: "1,000", 1234567.8: "1,234,568"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
}
