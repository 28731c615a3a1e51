package message

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestParseTimestamp(t *testing.T) {
	date := func(year int, month time.Month, day, hour, minute, second, nanos int) time.Time {
		return time.Date(year, month, day, hour, minute, second, nanos, time.UTC)
	}
	tests := []struct {
		text string
		want time.Time
	}{
		{"2019-10-12T08:10:54Z", date(2019, 10, 12, 8, 10, 54, 0)},
		{"2019-10-12T08:10:54.52Z", date(2019, 10, 12, 8, 10, 54, 520_000_000)},
		{"2019-10-12T23:59:59.999999999Z", date(2019, 10, 12, 23, 59, 59, 999_999_999)},

		// fractions: nanoseconds count, further digits are dropped, not rounded
		{"2019-10-12T08:10:54.0Z", date(2019, 10, 12, 8, 10, 54, 0)},
		{"2019-10-12T08:10:54.000000001Z", date(2019, 10, 12, 8, 10, 54, 1)},
		{"2019-10-12T08:10:54.0000000009Z", date(2019, 10, 12, 8, 10, 54, 0)},
		{"2019-10-12T08:10:54.1234567899Z", date(2019, 10, 12, 8, 10, 54, 123_456_789)},
		{"2019-10-12T08:10:54." + strings.Repeat("9", 1000) + "Z", date(2019, 10, 12, 8, 10, 54, 999_999_999)},

		// the edges of the calendar
		{"0001-01-01T00:00:00Z", date(1, 1, 1, 0, 0, 0, 0)},
		{"9999-12-31T23:59:59.999999999Z", date(9999, 12, 31, 23, 59, 59, 999_999_999)},
		{"1969-12-31T23:59:59.999999999Z", date(1969, 12, 31, 23, 59, 59, 999_999_999)},
		{"1970-01-01T00:00:00Z", date(1970, 1, 1, 0, 0, 0, 0)},
		{"1677-09-21T00:12:43Z", date(1677, 9, 21, 0, 12, 43, 0)},
		{"2262-04-11T23:47:17Z", date(2262, 4, 11, 23, 47, 17, 0)},
		{"2000-02-29T00:00:00Z", date(2000, 2, 29, 0, 0, 0, 0)},
		{"2024-02-29T00:00:00Z", date(2024, 2, 29, 0, 0, 0, 0)},
		{"0004-02-29T00:00:00Z", date(4, 2, 29, 0, 0, 0, 0)},
		{"2023-04-30T00:00:00Z", date(2023, 4, 30, 0, 0, 0, 0)},
		{"2023-12-31T00:00:00Z", date(2023, 12, 31, 0, 0, 0, 0)},

		// offsets
		{"2019-10-12T08:10:54+00:00", date(2019, 10, 12, 8, 10, 54, 0)},
		{"2019-10-12T08:10:54-00:00", date(2019, 10, 12, 8, 10, 54, 0)},
		{"2019-10-12T08:10:54.5+02:30", date(2019, 10, 12, 5, 40, 54, 500_000_000)},
		{"2019-10-12T08:10:54-08:00", date(2019, 10, 12, 16, 10, 54, 0)},
		{"2020-01-01T00:00:00+23:59", date(2019, 12, 31, 0, 1, 0, 0)},
		{"2019-12-31T23:59:59-23:59", date(2020, 1, 1, 23, 58, 59, 0)},
		{"2024-02-29T23:30:00-01:00", date(2024, 3, 1, 0, 30, 0, 0)},
		{"0001-01-01T00:00:00+23:59", date(0, 12, 31, 0, 1, 0, 0)},
		{"9999-12-31T23:59:59-23:59", date(10000, 1, 1, 23, 58, 59, 0)},
	}
	for _, tt := range tests {
		got, err := parseTimestamp([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
		} else if !got.Equal(tt.want) || got.Location() != time.UTC {
			t.Errorf("%s is %v, want %v", tt.text, got, tt.want)
		}
	}
}

func TestParseTimestampRefuses(t *testing.T) {
	const form = "want an RFC 3339"
	for text, want := range map[string]string{
		"":                               form,
		"now":                            form,
		"2019-10-12":                     form,
		"2019-10-12T08:10:54":            form,
		"2019-10-12T08:10Z":              form,
		"2019-10-12 08:10:54Z":           form,
		"2019-10-12t08:10:54Z":           form,
		"2019-10-12T08:10:54z":           form,
		" 2019-10-12T08:10:54Z":          form,
		"2019-10-12T08:10:54Z ":          form,
		"2019-10-12T08:10:54ZZ":          form,
		"2019-10-12T8:10:54Z":            form,
		"2019-10-12T08:10:54.Z":          form,
		"2019-10-12T08:10:54.":           form,
		"2019-10-12T08:10:54.5":          form,
		"2019-10-12T08:10:54.5.5Z":       form,
		"2019-10-12T08:10:54,5Z":         form,
		"2019-10-12T08:10:54.-5Z":        form,
		"2019-10-12T08:10:54+0200":       form,
		"2019-10-12T08:10:54+02":         form,
		"2019-10-12T08:10:54+2:00":       form,
		"2019-10-12T08:10:54+02:00Z":     form,
		"2019-10-12T08:10:54Z+02:00":     form,
		"2019-10-12T08:10:54+02-00":      form,
		"2019-10-12T08:10:54\u221202:00": form,
		"2019-10-12T08:10:54+0a:00":      form,
		"2019-10-12T08:10:54+24:0a":      form,
		"2019/10/12T08:10:54Z":           form,
		"2019-10-12T08.10.54Z":           form,
		"201a-10-12T08:10:54Z":           form,
		"-001-10-12T08:10:54Z":           form,
		"+2019-10-12T08:10:54Z":          form,
		"10000-01-01T00:00:00Z":          form,
		"999-01-01T00:00:00Z":            form,
		"２０19-10-12T08:10Z":              form,
		"20191012T081054Z":               form,
		"0000-01-01T00:00:00Z":           "year",
		"0000-12-31T23:59:59-23:59":      "year",
		"2019-00-12T08:10:54Z":           "month",
		"2019-13-12T08:10:54Z":           "month",
		"2019-10-00T08:10:54Z":           "no such day",
		"2019-10-32T08:10:54Z":           "no such day",
		"2019-04-31T08:10:54Z":           "no such day",
		"2019-06-31T08:10:54Z":           "no such day",
		"2019-09-31T08:10:54Z":           "no such day",
		"2019-11-31T08:10:54Z":           "no such day",
		"2019-02-29T08:10:54Z":           "no such day",
		"1900-02-29T08:10:54Z":           "no such day",
		"2100-02-29T08:10:54Z":           "no such day",
		"2024-02-30T08:10:54Z":           "no such day",
		"2019-10-12T24:00:00Z":           "time of day",
		"2019-10-12T25:00:00Z":           "time of day",
		"2019-10-12T08:60:54Z":           "time of day",
		"2019-10-12T08:10:61Z":           "time of day",
		"2016-12-31T23:59:60Z":           "leap second",
		"2017-01-01T00:59:60+01:00":      "leap second",
		"2019-10-12T08:10:54+24:00":      "offset",
		"2019-10-12T08:10:54-24:00":      "offset",
		"2019-10-12T08:10:54+00:60":      "offset",
		"2019-10-12T08:10:54+99:99":      "offset",
	} {
		got, err := parseTimestamp([]byte(text))
		if err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, want a word about %s", text, err, want)
		}
	}
}

// TestDaysBefore goes through every day that a timestamp may have.
func TestDaysBefore(t *testing.T) {
	days := int(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix() / 86_400)
	for year := 1; year <= 9999; year++ {
		for month := 1; month <= 12; month++ {
			for day := 1; day <= daysIn(month, year); day++ {
				if got := daysBefore(year, month, day); got != days {
					t.Fatalf("%04d-%02d-%02d is %d days after 1970, want %d", year, month, day, got, days)
				}
				days++
			}
		}
	}
}

func TestParseTimestampAllocates(t *testing.T) {
	text := []byte("2019-10-12T08:10:54.52+02:00")
	if n := testing.AllocsPerRun(100, func() { _, _ = parseTimestamp(text) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// stricter matches what time.Parse accepts and RFC 3339, or our contract,
// does not.
var stricter = regexp.MustCompile(`^0000-` + // the year
	`|T\d:` + // an hour of one digit
	`|,` + // a comma fraction
	`|[+-]\d\d:[6-9]\d$` + // the minutes of an offset
	`|[+-](2[4-9]|[3-9]\d):\d\d$`) // its hours

// FuzzParseTimestamp compares with time.Parse.
func FuzzParseTimestamp(f *testing.F) {
	for _, seed := range []string{
		"2019-10-12T08:10:54.52Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999999-23:59",
		"2000-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2024-02-29T12:00:00.1234567891-12:34",
		"2019-10-12T08:10:54,5Z", "2019-10-12T08:10:54+24:00", "2019-10-12T08:10:54+00:60",
		"2019-10-12T8:10:54Z", "0000-01-01T00:00:00Z", "2016-12-31T23:59:60Z", "2019-10-12T24:00:00Z",
		"1677-09-21T00:12:43.1Z", "2262-04-11T23:47:17Z", "", "2019-10-12T08:10:54",
	} {
		f.Add(seed)
	}
	f.Fuzz(compareTimestamp)
}

// TestParseTimestampSweep compares with time.Parse around every edge.
func TestParseTimestampSweep(t *testing.T) {
	for _, year := range []string{"0000", "0001", "0004", "0100", "1900", "2000", "2023", "2024", "9999"} {
		for month := range 14 {
			for day := range 33 {
				compareTimestamp(t, fmt.Sprintf("%s-%02d-%02dT00:00:00Z", year, month, day))
			}
		}
	}
	for _, clock := range []string{"00:00:00", "23:59:59", "24:00:00", "23:60:00", "23:59:60", "12:00:61", "8:00:00", "99:99:99"} {
		for _, fraction := range []string{"", ".", ".0", ".000000001", ".9999999999", ",5", ",", ".5,5"} {
			for _, offset := range []string{
				"Z", "z", "", "+00:00", "-00:00", "+23:59", "-23:59", "+24:00", "-24:00",
				"+00:60", "-12:61", "+99:00", "+1:00", "+0100", "+01", "+01:00:00", "Z+01:00",
			} {
				compareTimestamp(t, "2024-02-29T"+clock+fraction+offset)
				compareTimestamp(t, "0001-01-01T"+clock+fraction+offset)
				compareTimestamp(t, "9999-12-31T"+clock+fraction+offset)
			}
		}
	}
}

// compareTimestamp holds parseTimestamp against time.Parse.
func compareTimestamp(t *testing.T, text string) {
	got, err := parseTimestamp([]byte(text))
	want, wantErr := time.Parse(time.RFC3339Nano, text)
	switch {
	case err == nil && wantErr != nil:
		t.Errorf("%q is %v, but time.Parse says %v", text, got, wantErr)
	case err == nil && !got.Equal(want):
		t.Errorf("%q is %v, but time.Parse says %v", text, got, want)
	case err == nil && stricter.MatchString(text):
		t.Errorf("%q is %v, but the contract refuses it", text, got)
	case err != nil && wantErr == nil && !stricter.MatchString(text):
		t.Errorf("%q: %v, but time.Parse says %v", text, err, want)
	}
}
