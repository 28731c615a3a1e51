package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// result is a row of the table: what was measured, against which target.
type result struct {
	Target int    `json:"target"` // its number in the list of targets
	Name   string `json:"name"`
	What   string `json:"what"`
	Unit   string `json:"unit"`
	// Limit is the contender; empty where there is none.
	Limit string `json:"limit,omitempty"`
	// Pairs are the values of the program and the contender.
	Pairs [][2]float64 `json:"pairs,omitempty"`
	// Value is what the target is about: the median of the pairs' ratios, or
	// the one thing measured.
	Value  float64  `json:"value"`
	Want   float64  `json:"want"`
	AtMost bool     `json:"at_most,omitempty"` // Want is an upper bound
	Met    bool     `json:"met"`
	Facts  []string `json:"facts,omitempty"`
	// Skipped is why nothing was measured.
	Skipped string `json:"skipped,omitempty"`
}

// judge fills in what follows from the pairs, or else from Value.
func (r *result) judge() {
	if len(r.Pairs) > 0 {
		var ratios []float64
		for _, p := range r.Pairs {
			ratios = append(ratios, p[0]/p[1])
		}
		r.Value = median(ratios)
	}
	if r.AtMost {
		r.Met = r.Value <= r.Want
	} else {
		r.Met = r.Value >= r.Want
	}
}

// side returns the median of the program (0) or the contender (1) as text.
func (r *result) side(i int) string {
	var values []float64
	for _, p := range r.Pairs {
		values = append(values, p[i])
	}
	if len(values) == 0 {
		return ""
	}
	return number(median(values))
}

// report is everything a run has to say.
type report struct {
	Machine machine   `json:"machine"`
	Command string    `json:"command"`
	Began   time.Time `json:"began"`
	Results []result  `json:"results"`
}

// table prints the report as Markdown.
func (rep *report) table(w io.Writer) {
	fmt.Fprintf(w, "\n%s\n\n`%s`, %s.\n\n", rep.Machine, rep.Command, rep.Began.Format(time.DateOnly))
	fmt.Fprintln(w, "| # | measured | program | contender | value | target | met |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | --- | --- | --- |")
	for _, r := range rep.Results {
		if r.Skipped != "" {
			fmt.Fprintf(w, "| %d | %s | | | | | skipped: %s |\n", r.Target, r.What, r.Skipped)
			continue
		}
		bound, met := "≥", "no"
		if r.AtMost {
			bound = "≤"
		}
		if r.Met {
			met = "yes"
		}
		fmt.Fprintf(w, "| %d | %s, %s | %s | %s | %.2f | %s %g | %s |\n",
			r.Target, r.What, r.Unit, r.side(0), r.side(1), r.Value, bound, r.Want, met)
	}
	fmt.Fprintln(w)
	for _, r := range rep.Results {
		for _, f := range r.Facts {
			fmt.Fprintf(w, "- %s: %s\n", r.Name, f)
		}
	}
}

// save writes the report to a file in the folder, named after its begin.
func (rep *report) save(folder string) error {
	text, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, rep.Began.Format("20060102T150405Z")+".json"), append(text, '\n'), 0o644)
}

// number writes a value with three digits at least and separated thousands.
func number(v float64) string {
	if v < 1000 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	var b bytes.Buffer
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
