package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"async-data-processor/message"
)

// settings say what to do. Each but those of the file has a flag and a variable.
type settings struct {
	file string
	// lines and bytes are what the file must have; 0 if that is not known.
	lines, bytes int64

	out   string // a folder, empty for none
	store *store // nil for none

	// field is where entries have their timestamp, as TIMESTAMP_FIELD of the pipeline.
	field string
}

const usage = `Usage: adp-parquet [flags] [FILE]

Makes a Parquet file of FILE, a published file of async-data-processor, with the
columns message_id, timestamp, value and rest. Without FILE it takes that of the
job's run: ADP_FILE, which is relative to DATA_OUTPUT_DIR unless it is absolute.
It needs --out, --s3 or both.

Credentials of the store are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and
AWS_SESSION_TOKEN), or in the file that AWS_SHARED_CREDENTIALS_FILE names.

Exit code: 0 it is there, 1 failure, 75 try again later, 78 trying again is useless.

`

// parse reads the command line and the variables.
func parse(args []string, env func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	var at location
	f := flag.NewFlagSet("adp-parquet", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stderr, usage); f.PrintDefaults() }
	f.StringVar(&s.out, "out", env("PARQUET_OUT"), "the `folder` that gets the Parquet file (PARQUET_OUT)")
	f.StringVar(&at.url, "s3", env("PARQUET_S3"), "where a store gets it, as s3://bucket/prefix (PARQUET_S3)")
	f.StringVar(&at.endpoint, "endpoint", cmp.Or(env("AWS_ENDPOINT_URL_S3"), env("AWS_ENDPOINT_URL"), "https://s3.amazonaws.com"),
		"the `URL` of the store (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL)")
	f.StringVar(&at.region, "region", cmp.Or(env("AWS_REGION"), env("AWS_DEFAULT_REGION")), "its region (AWS_REGION, AWS_DEFAULT_REGION)")
	f.StringVar(&at.style, "style", cmp.Or(env("S3_STYLE"), "auto"),
		"where requests have the bucket: in the path, in the host, or auto: in the host of Amazon (S3_STYLE)")
	f.StringVar(&s.field, "timestamp-field", cmp.Or(env("TIMESTAMP_FIELD"), message.TimestampField),
		"where entries have their timestamp, as the pipeline's setting (TIMESTAMP_FIELD)")
	if err := f.Parse(args); err != nil {
		return s, never(err)
	}
	if f.NArg() > 1 {
		return s, never(fmt.Errorf("%d files are given, want one", f.NArg()))
	}
	var err error
	if s.file = f.Arg(0); s.file == "" {
		err = s.fromJob(env)
	}
	if err == nil && at.url != "" {
		s.store, err = newStore(at)
	}
	if err == nil && s.out == "" && s.store == nil {
		err = errors.New("nothing says where to put the result: give --out, --s3 or both")
	}
	if err != nil {
		return s, never(err)
	}
	return s, nil
}

// fromJob takes the file of the job's run.
func (s *settings) fromJob(env func(string) string) (err error) {
	if s.file = env("ADP_FILE"); s.file == "" {
		return errors.New("no file is given, and ADP_FILE names none")
	}
	if dir := env("DATA_OUTPUT_DIR"); !filepath.IsAbs(s.file) && dir != "" {
		s.file = filepath.Join(dir, s.file)
	}
	for name, n := range map[string]*int64{"ADP_LINES": &s.lines, "ADP_BYTES": &s.bytes} {
		if text := env(name); text != "" {
			if *n, err = strconv.ParseInt(text, 10, 64); err != nil || *n < 0 {
				return fmt.Errorf("%s: want a number that is not negative", name)
			}
		}
	}
	return nil
}
