package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"async-data-processor/pipeline"
)

// print prints a run.
func (j *job) print(out io.Writer, r *pipeline.JobRun) error {
	if j.asJSON {
		return printLines(out, []pipeline.JobRun{*r})
	}
	_, err := fmt.Fprintf(out, "%s\n", runLine(r))
	return err
}

// runLine is a run in a line.
func runLine(r *pipeline.JobRun) string {
	line := fmt.Sprintf("run %d of %s: %s", r.ID, plain(r.Job), r.State)
	if r.Exit != nil {
		line += fmt.Sprintf(", exit %d", *r.Exit)
	}
	if r.Cancelling {
		line += ", its runner was told to end it"
	}
	if r.Why != "" {
		line += ": " + plain(r.Why)
	}
	return line
}

// printRuns prints a table of runs.
func printRuns(out io.Writer, runs []pipeline.JobRun) error {
	return table(out, "ID\tJOB\tSTATE\tATTEMPTS\tTHAT COUNT\tRUNNER\tCREATED\tWHY", func(t io.Writer) {
		for _, r := range runs {
			fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%d of %d\t%s\t%s\t%s\n", r.ID, plain(r.Job), r.State, r.Attempt, r.Spent, r.Attempts, orNone(r.Runner),
				r.Created.Local().Format(time.DateTime), plain(r.Why))
		}
	})
}

func orNone(text string) string { return plain(cmp.Or(text, none)) }

// printRun prints a run, and its attempts.
func printRun(out io.Writer, d *pipeline.JobRunDetail) error {
	var b bytes.Buffer
	b.WriteString(runLine(&d.RunView) + "\n")
	if d.File != nil {
		fmt.Fprintf(&b, "file: %s, %s, %d bytes\n", plain(d.File.Name), counted(d.File.Lines, "line"), d.File.Bytes)
	}
	if len(d.Args) > 0 {
		fmt.Fprintf(&b, "args: %s\n", plain(string(d.Args)))
	}
	if d.By != "" {
		fmt.Fprintf(&b, "by: %s\n", plain(d.By))
	}
	if _, err := out.Write(b.Bytes()); err != nil || len(d.History) == 0 {
		return err
	}
	return table(out, "ATTEMPT\tRUNNER\tSTARTED\tTOOK\tOUTCOME\tLOG\tWHY", func(t io.Writer) {
		for _, a := range d.History {
			started, took, outcome := none, none, "goes on"
			if !a.StartedAt.IsZero() {
				started = a.StartedAt.Local().Format(time.DateTime)
			}
			if !a.StartedAt.IsZero() && !a.EndedAt.IsZero() {
				took = a.EndedAt.Sub(a.StartedAt).Round(time.Millisecond).String()
			}
			if a.Outcome != "" {
				outcome = string(a.Outcome)
			}
			if a.Exit != nil {
				outcome += fmt.Sprintf(", exit %d", *a.Exit)
			}
			fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%d bytes\t%s\n", a.Attempt, orNone(a.Runner), started, took, plain(outcome), a.Log, plain(a.Why))
		}
	})
}

// printRunners prints a table of runners.
func printRunners(out io.Writer, runners []pipeline.JobRunner) error {
	return table(out, "RUNNER\tBUSY\tLABELS\tCONNECTED TO\tVERSION\tSINCE", func(t io.Writer) {
		for _, r := range runners {
			fmt.Fprintf(t, "%s\t%d of %d\t%s\t%s\t%s\t%s\n", plain(r.ID), r.Busy, r.Slots, orNone(strings.Join(r.Labels, ",")), orNone(r.Engine),
				orNone(r.Version), r.Connected.Local().Format(time.DateTime))
		}
	})
}

// table prints a table with a head.
func table(out io.Writer, head string, rows func(io.Writer)) error {
	var text bytes.Buffer
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, head)
	rows(t)
	_ = t.Flush() // a buffer takes everything
	_, err := out.Write(trimLines(text.Bytes()))
	return err
}

// trimLines takes the blanks off the ends of lines, which tables leave there.
func trimLines(text []byte) (trimmed []byte) {
	for line := range bytes.Lines(text) {
		trimmed = append(append(trimmed, bytes.TrimRight(line, " \n")...), '\n')
	}
	return trimmed
}

// logOnTerminal leaves out of a log what a terminal would obey.
func logOnTerminal(text []byte) []byte {
	return bytes.Map(func(c rune) rune {
		if c == '\n' || c == '\t' || unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, text)
}
