package main

import (
	"cmp"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"async-data-processor/pipeline"
)

// TestDocsSettings: the table has every setting, its variables and its default.
func TestDocsSettings(t *testing.T) {
	rows := strings.Split(read(t, "../../docs/operations.md"), "\n")
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	cfg := pipeline.DefaultConfig()
	addSettings(flags, &cfg, forAny)
	flags.VisitAll(func(f *pflag.Flag) {
		for _, row := range rows {
			cells := strings.Split(row, "|")
			if len(cells) < 5 || !strings.Contains(cells[1], "`--"+f.Name+"`") {
				continue
			}
			for _, variable := range f.Annotations[annEnv] {
				if !strings.Contains(cells[2], "`"+variable+"`") {
					t.Errorf("--%s: no %s in %q", f.Name, variable, row)
				}
			}
			if !strings.Contains(cells[3], defaultOf(f)) {
				t.Errorf("--%s: the default is %s, not what is in %q", f.Name, defaultOf(f), row)
			}
			return
		}
		t.Errorf("--%s is not in the table", f.Name)
	})
}

// TestDocsNames: what the documents point to is there, files and tests.
func TestDocsNames(t *testing.T) {
	var documents []string
	tests := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		switch {
		case strings.HasSuffix(path, ".md"):
			documents = append(documents, path)
		case strings.HasSuffix(path, "_test.go"):
			for _, f := range testFunc.FindAllStringSubmatch(read(t, path), -1) {
				tests[f[1]] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range documents {
		text := read(t, path)
		for _, link := range docLink.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), link[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		for _, name := range docTest.FindAllStringSubmatch(text, -1) {
			if !tests[name[1]] {
				t.Errorf("%s: there is no test %s", path, name[1])
			}
		}
	}
}

// TestDocsProblems: every kind of problem is in the contract.
func TestDocsProblems(t *testing.T) {
	contract := read(t, "../../docs/api.md")
	kinds := problemKind.FindAllStringSubmatch(read(t, "../../server/problem.go"), -1)
	if len(kinds) == 0 {
		t.Fatal("found no kinds of problems")
	}
	for _, kind := range kinds {
		if !strings.Contains(contract, "| `"+kind[1]+"` |") {
			t.Errorf("docs/api.md lacks %s", kind[1])
		}
	}
}

// TestDocsLetters: every member of a dead letter as JSON is in the contract.
func TestDocsLetters(t *testing.T) {
	contract := read(t, "../../docs/api.md")
	_, contract, _ = strings.Cut(contract, "## Dead letters as JSON")
	for f := range reflect.TypeFor[letter]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && !strings.Contains(contract, "| `"+name+"` |") {
			t.Errorf("docs/api.md lacks %s", name)
		}
	}
}

// TestDocsIDs: the id of an example ends in the number of its messages.
func TestDocsIDs(t *testing.T) {
	found := 0
	for _, path := range []string{"README.md", "docs/api.md", "docs/operations.md"} {
		for _, m := range example.FindAllStringSubmatch(read(t, "../../"+path), -1) {
			found++
			if want := "00" + cmp.Or(m[2], "1"); !strings.HasSuffix(m[1]+m[3], want) {
				t.Errorf("%s: %s, want an id that ends in %s", path, m[0], want)
			}
		}
	}
	if found < 7 {
		t.Errorf("%d examples are found", found)
	}
}

// TestReadmeIsShort: what a newcomer reads first takes a few minutes.
func TestReadmeIsShort(t *testing.T) {
	if n := len(strings.Fields(read(t, "../../README.md"))); n > 1000 {
		t.Errorf("README.md has %d words, want at most 1000", n)
	}
}

var (
	problemKind = regexp.MustCompile(`= kind\{"([a-z-]+)"`)

	example  = regexp.MustCompile(`"id":"(\w{26})","accepted":(\d)|accepted (\w{26}) in shard`)
	testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	docLink  = regexp.MustCompile(`\]\(([\w./-]+)[)#]`)
	docTest  = regexp.MustCompile("`(Test[A-Z]\\w+)`")
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// defaultOf is a default as people write it.
func defaultOf(f *pflag.Flag) string {
	text := f.DefValue
	switch {
	case text == "[]":
		return ""
	case text == "0s":
		return "0"
	}
	if _, err := time.ParseDuration(text); err == nil {
		if short, ok := strings.CutSuffix(text, "m0s"); ok {
			text = short + "m"
		}
		if short, ok := strings.CutSuffix(text, "h0m"); ok {
			text = short + "h"
		}
	}
	return text
}
