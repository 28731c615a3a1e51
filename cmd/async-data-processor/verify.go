package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"

	"async-data-processor/output/verify"
	"async-data-processor/pipeline"
)

func newVerify(lookup lookupEnv) *cobra.Command {
	var (
		defaults     = pipeline.DefaultConfig()
		options      = verify.Options{Shards: defaults.Shards, BatchSize: defaults.BatchSize}
		cfg          = pipeline.Config{TimestampField: defaults.TimestampField} // what it says of files and entries
		file         string
		asJSON, gaps bool
	)
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Check an output folder: exit 0 if nothing is wrong in it, else 1",
		Long:  verifyHelp(),
		Example: `  async-data-processor verify ./data
  async-data-processor verify /srv/data --batch-size 0     # files that were rolled
  ROLL_BYTES=64MiB async-data-processor verify /srv/data   # the same
  async-data-processor verify /srv/data --json | jq .total`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return misused(cmd, errors.New("name the output folder"))
			case 1:
				return nil
			}
			return misused(cmd, fmt.Errorf("name one output folder, not %d", len(args)))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			sources, err := resolve(cmd.Flags(), lookup, file)
			var wrong error
			options.Rules, wrong = cfg.Rules()
			if err = errors.Join(err, wrong, checkVerify(options, args[0])); err != nil {
				return misused(cmd, err)
			}
			if sources["batch-size"] != "flag" && (cfg.RollBytes != 0 || cfg.RollInterval != 0) {
				options.BatchSize = 0 // that of the program is not what its files have
			}
			report, err := verify.Run(cmd.Context(), args[0], options)
			if err != nil {
				return failure{error: err}
			}
			show := printReport
			if asJSON {
				show = printJSON
			}
			if err := show(cmd.OutOrStdout(), report); err != nil {
				return failure{error: fmt.Errorf("print the report: %w", err)}
			}
			return verdict(report, gaps)
		},
	}
	flags := settings{cmd.Flags(), forConsumer}
	add(flags, forConsumer, numberVar, &options.Shards, "shards", "SHARDS_COUNT", "", "number of shards the messages were sharded for; 0: do not check")
	add(flags, forConsumer, numberVar, &options.BatchSize, "batch-size", "BATCH_SIZE", "", "messages of a full batch, which is a file; 0: do not check")
	add(flags, forConsumer, sizeVar, &cfg.RollBytes, "roll-bytes", "ROLL_BYTES", "", "size from which files were published; unless 0, --batch-size is")
	add(flags, forConsumer, spanVar, &cfg.RollInterval, "roll-interval", "ROLL_INTERVAL", "", "age from which files were published; unless 0, --batch-size is")
	add(flags, forConsumer, textVar, &cfg.TimestampField, "timestamp-field", "TIMESTAMP_FIELD", "", "where the entries have their timestamp")
	add(flags, forConsumer, wordVar, &cfg.TimestampDefault, "timestamp-default", "TIMESTAMP_DEFAULT", "", "arrival if entries without a timestamp were taken")
	add(flags, forConsumer, yesVar, &cfg.AnyValue, "any-value", "ANY_VALUE", "", "whether value may be any JSON value")
	cmd.Flags().BoolVar(&gaps, "gaps-fail", false, "exit 1 for gaps inside submissions, too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object instead of a table")
	cmd.Flags().StringVar(&options.TempDir, "tmp-dir", "", "folder for temporary files (TMPDIR, else /tmp)")
	configVar(cmd.Flags(), &file)
	cmd.Flags().SortFlags = false
	return cmd
}

func verifyHelp() string {
	return `verify reads an output folder and reports what is wrong in it. It only reads, and
the folder may be in use. Wrong, and exit 1, is

  duplicate   an id that is in more than one line
  torn        a visible file that is empty, has no newline at its end, or holds a
              line that the program cannot have written
  foreign     a name that the program does not give, in DIR or a shard's folder
  misplaced   a message in the folder of another shard than its timestamp's
  oversized   a file with more lines than a batch
  leftover    a temporary file that no process is writing; one that batches were
              appended to is published by the next owner of its folder
  unreadable  a file or folder that could not be read; the others are

Noted, and no reason for exit 1, is

  gap          a message of a submission that is missing, while another one is
               there: it may be queued, a dead letter, or moved away with its
               file (--gaps-fail makes it exit 1)
  in-progress  a temporary file that is being written
  vanished     a file that was moved away meanwhile
  skipped      a folder in DIR that is not a shard's, such as a broker's

All are counted, the first ` + strconv.Itoa(verify.MaxListed) + ` of each listed. A tree of any size takes less than
100 MB of memory; what does not fit goes to files without a name in --tmp-dir, 24
bytes for each message and about 50 for each file.`
}

func checkVerify(o verify.Options, dir string) error {
	var errs []error
	if o.Shards < 0 || o.Shards > pipeline.MaxShards {
		errs = append(errs, fmt.Errorf("--shards is %d, want 0 to %d", o.Shards, pipeline.MaxShards))
	}
	if o.BatchSize < 0 {
		errs = append(errs, fmt.Errorf("--batch-size is %d, want 0 or more", o.BatchSize))
	}
	info, err := os.Stat(dir)
	switch {
	case dir == "":
		errs = append(errs, errors.New("the folder has no name"))
	case errors.Is(err, fs.ErrNotExist):
		errs = append(errs, fmt.Errorf("there is no folder %s", plain(dir)))
	case err == nil && !info.IsDir():
		errs = append(errs, fmt.Errorf("%s is not a folder", plain(dir)))
	}
	return errors.Join(errs...)
}

// writtenWith are the settings of the process that wrote the files by which a class judges.
var writtenWith = map[verify.Class][]string{
	verify.Torn:      {"--timestamp-field", "--timestamp-default", "--any-value"},
	verify.Misplaced: {"--shards", "--timestamp-field"},
	verify.Oversized: {"--batch-size", "--roll-bytes", "--roll-interval"},
}

// verdict is the command's outcome.
func verdict(r *verify.Report, gapsFail bool) error {
	classes := verify.Faults
	if gapsFail {
		classes = append(slices.Clone(classes), verify.Gap)
	}
	var wrong, remarks []string
	for _, class := range classes {
		n := r.Total.Of(class)
		if n == 0 {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("%d %s", n, class))
		if settings := writtenWith[class]; settings != nil {
			remarks = append(remarks, fmt.Sprintf("\n%s: or the files were written with other settings than verify has; give it the same %s",
				class, strings.Join(settings, ", ")))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return failure{error: fmt.Errorf("%s is not as it should be: %s%s", plain(r.Dir), strings.Join(wrong, ", "), strings.Join(remarks, ""))}
}

func printJSON(w io.Writer, r *verify.Report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// printReport prints a table of the counts, and under it the findings.
func printReport(w io.Writer, r *verify.Report) error {
	var out strings.Builder // its writes do not fail
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, c verify.Counts) {
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t", name, c.Files, c.Lines, c.Bytes, c.Full, c.Incomplete)
		for _, class := range verify.Faults {
			fmt.Fprintf(table, "%d\t", c.Of(class))
		}
		fmt.Fprintln(table)
	}
	fmt.Fprint(table, "shard\tfiles\tlines\tbytes\tfull\tincomplete\t")
	for _, class := range verify.Faults {
		fmt.Fprintf(table, "%s\t", class)
	}
	fmt.Fprintln(table)
	for _, s := range r.Shards {
		row(strconv.Itoa(s.Shard), s.Counts)
	}
	row("total", r.Total)
	table.Flush() // into out

	fmt.Fprintf(&out, "\nsubmissions: %d, with gaps: %d, messages missing in them: %d\n", r.Submissions, r.Total.Gaps, r.Missing)
	last, listed := verify.Class(""), int64(0)
	more := func() {
		if n := r.Total.Of(last) - listed; listed == verify.MaxListed && n > 0 {
			fmt.Fprintf(&out, "%-11s and %d more\n", last, n)
		}
	}
	for _, f := range r.Findings {
		if f.Class != last {
			more()
			fmt.Fprintln(&out)
			last, listed = f.Class, 0
		}
		listed++
		fmt.Fprintf(&out, "%-11s %s\n", f.Class, describe(f))
	}
	more()
	_, err := io.WriteString(w, out.String())
	return err
}

// describe is a finding in a line.
func describe(f verify.Finding) string {
	var parts []string
	if f.File != "" {
		place := plain(f.File)
		if f.Line > 0 {
			place += ":" + strconv.FormatInt(f.Line, 10)
		}
		parts = append(parts, place)
	}
	if f.ID != "" {
		parts = append(parts, f.ID)
	}
	text := strings.Join(append(parts, f.Detail), ": ")
	if len(f.Files) > 0 {
		text += ": " + strings.Join(f.Files, ", ")
	}
	return text
}

// plain quotes a name that a terminal would not show as it is.
func plain(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(name)
	}
	return name
}
