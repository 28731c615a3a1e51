package main

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
)

// value is a setting that is read as people write it, wherever it comes from. Blanks
// around it do not count.
type value[T any] struct {
	at    *T
	kind  string // as the help calls it
	parse func(text string) (T, error)
	show  func(T) string // what parse reads back
}

func (v value[T]) Set(text string) error {
	parsed, err := v.parse(text)
	if err == nil {
		*v.at = parsed
	}
	return err
}

func (v value[T]) String() string {
	if v.at == nil {
		return "" // pflag asks a zero value
	}
	return v.show(*v.at)
}

func (v value[T]) Type() string { return v.kind }

// define makes the function that defines flags of a kind of value.
func define[T any](kind string, parse func(string) (T, error), show func(T) string) func(*pflag.FlagSet, *T, string, T, string) {
	return func(flags *pflag.FlagSet, at *T, name string, initial T, usage string) {
		*at = initial
		flags.Var(value[T]{at, kind, parse, show}, name, usage)
	}
}

var (
	textVar   = define("string", parseText, asIs)
	pathVar   = define("string", parsePath, asIs)
	wordVar   = define("string", parseWord, asIs)
	numberVar = define("int", parseNumber, strconv.Itoa)
	sizeVar   = define("size", parseSize, showSize)
	spanVar   = define("duration", parseSpan, time.Duration.String)
)

func asIs(text string) string { return text }

func parseText(text string) (string, error) { return strings.TrimSpace(text), nil }

// parsePath keeps a carriage return, which is refused later: to leave it out without a
// word would hide it from whatever else reads the same line.
func parsePath(text string) (string, error) { return strings.Trim(text, " \t\n"), nil }

func parseWord(text string) (string, error) { return strings.ToLower(strings.TrimSpace(text)), nil }

// parseNumber reads decimal digits. With the notations of Go, 010 would be 8.
func parseNumber(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, errors.New("the number is too large")
	case err != nil:
		return 0, errors.New("want a whole number in decimal digits")
	}
	return n, nil
}

// parseSize reads a number of bytes: 67108864, 64MiB, 64 MB, 1.5g.
func parseSize(text string) (int64, error) {
	text = strings.TrimSpace(text)
	// Tried first, so that what is below a setting's bounds is refused with those.
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	// Commas would be dropped, those that stand for a point, too.
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 || strings.Contains(text, ",") {
		return 0, errors.New("want a number of bytes, for example 67108864, 64MiB or 64MB")
	}
	return int64(n), nil
}

// showSize loses nothing: its unit is the largest that divides the size.
func showSize(n int64) string {
	unit := ""
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, next
	}
	return strconv.FormatInt(n, 10) + unit
}

// days is the part of a span that Go's durations do not have.
var days = regexp.MustCompile(`^(\d+)d(.*)$`)

// parseSpan reads a duration of Go, which may begin with a number of days: 7d, 1d12h.
func parseSpan(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	var whole time.Duration
	if m := days.FindStringSubmatch(text); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil || n > int64(math.MaxInt64/(24*time.Hour)) {
			return 0, errors.New("the duration is too long")
		}
		if whole, text = time.Duration(n)*24*time.Hour, m[2]; text == "" {
			return whole, nil
		}
	}
	rest, err := time.ParseDuration(text)
	if err != nil || whole > 0 && rest < 0 || rest > math.MaxInt64-whole {
		return 0, errors.New("want a number with a unit, for example 500ms, 30s, 5m, 24h or 7d")
	}
	return whole + rest, nil
}

// yesVar defines a flag that may stand alone.
func yesVar(flags *pflag.FlagSet, at *bool, name string, initial bool, usage string) {
	define("bool", parseYes, strconv.FormatBool)(flags, at, name, initial, usage)
	flags.Lookup(name).NoOptDefVal = "true"
}

func parseYes(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "yes", "on", "1", "t", "y":
		return true, nil
	case "false", "no", "off", "0", "f", "n":
		return false, nil
	}
	return false, errors.New("want true or false, yes or no, on or off")
}

// words is a list of words, for example of secrets. As text they are separated by
// commas or newlines; as a list each element is one. It is a pflag.SliceValue.
type words struct {
	at  *[]string
	set bool // by Set, so that the next one adds to it
}

// errEmpty: an empty list of secrets would be no protection.
var errEmpty = errors.New("it is named and holds nothing; fill it, or remove it")

func wordsVar(flags *pflag.FlagSet, at *[]string, name string, initial []string, usage string) {
	*at = initial
	flags.Var(&words{at: at}, name, usage)
}

func (w *words) Set(text string) error {
	var list []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, strings.Split(line, ",")...)
		}
	}
	if w.set {
		list = append(*w.at, list...)
	}
	err := w.Replace(list)
	w.set = err == nil
	return err
}

func (w *words) Replace(list []string) error {
	if len(list) == 0 {
		return errEmpty
	}
	*w.at = nil
	for _, word := range list {
		*w.at = append(*w.at, strings.TrimSpace(word))
	}
	return nil
}

func (w *words) Append(word string) error { return w.Replace(append(w.GetSlice(), word)) }
func (w *words) GetSlice() []string       { return *w.at }
func (w *words) Type() string             { return "strings" }

func (w *words) String() string {
	if w.at == nil {
		return "" // pflag asks a zero value
	}
	return strings.Join(*w.at, ",")
}
