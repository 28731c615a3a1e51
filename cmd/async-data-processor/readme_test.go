package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"async-data-processor/pipeline"
)

// TestReadmeSettings: the table has every setting, its variables and its default.
func TestReadmeSettings(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(string(text), "\n")
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
