package message

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// accepted is timestamps at the edges: of fractions, whose digits after nanoseconds
// are dropped and not rounded, of the calendar, and of offsets.
var accepted = []string{
	"2019-10-12T08:10:54Z", "2019-10-12T08:10:54.52Z", "2019-10-12T23:59:59.999999999Z", "2019-10-12T08:10:54.0Z", "2019-10-12T08:10:54.000000001Z",
	"2019-10-12T08:10:54.0000000009Z", "2019-10-12T08:10:54.1234567899Z", "2019-10-12T08:10:54." + strings.Repeat("9", 1000) + "Z",
	"0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00Z", "1677-09-21T00:12:43.1Z",
	"2262-04-11T23:47:17Z", "2000-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "0004-02-29T00:00:00Z", "2023-04-30T00:00:00Z", "2023-12-31T00:00:00Z",
	"2019-10-12T08:10:54+00:00", "2019-10-12T08:10:54-00:00", "2019-10-12T08:10:54.5+02:30", "2019-10-12T08:10:54-08:00", "2020-01-01T00:00:00+23:59",
	"2019-12-31T23:59:59-23:59", "2024-02-29T23:30:00-01:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999999-23:59",
}

// refused is other texts, by a part of the reason.
var refused = map[string][]string{
	"want an RFC 3339": {
		"", "now", "2019-10-12", "2019-10-12T08:10:54", "2019-10-12T08:10Z", "2019-10-12 08:10:54Z", "2019-10-12t08:10:54Z", "2019-10-12T08:10:54z",
		" 2019-10-12T08:10:54Z", "2019-10-12T08:10:54Z ", "2019-10-12T08:10:54ZZ", "2019-10-12T8:10:54Z", "2019-10-12T08:10:54.Z", "2019-10-12T08:10:54.",
		"2019-10-12T08:10:54.5", "2019-10-12T08:10:54.5.5Z", "2019-10-12T08:10:54,5Z", "2019-10-12T08:10:54.-5Z", "2019-10-12T08:10:54+0200",
		"2019-10-12T08:10:54+02", "2019-10-12T08:10:54+2:00", "2019-10-12T08:10:54+02:00Z", "2019-10-12T08:10:54Z+02:00", "2019-10-12T08:10:54+02-00",
		"2019-10-12T08:10:54\u221202:00", "2019-10-12T08:10:54+0a:00", "2019-10-12T08:10:54+24:0a", "2019/10/12T08:10:54Z", "2019-10-12T08.10.54Z",
		"201a-10-12T08:10:54Z", "-001-10-12T08:10:54Z", "+2019-10-12T08:10:54Z", "10000-01-01T00:00:00Z", "999-01-01T00:00:00Z", "２０19-10-12T08:10Z",
		"20191012T081054Z",
	},
	"year":  {"0000-01-01T00:00:00Z", "0000-12-31T23:59:59-23:59"},
	"month": {"2019-00-12T08:10:54Z", "2019-13-12T08:10:54Z"},
	"no such day": {
		"2019-10-00T08:10:54Z", "2019-10-32T08:10:54Z", "2019-04-31T08:10:54Z", "2019-06-31T08:10:54Z", "2019-09-31T08:10:54Z", "2019-11-31T08:10:54Z",
		"2019-02-29T08:10:54Z", "1900-02-29T08:10:54Z", "2100-02-29T08:10:54Z", "2024-02-30T08:10:54Z",
	},
	"time of day": {"2019-10-12T24:00:00Z", "2019-10-12T25:00:00Z", "2019-10-12T08:60:54Z", "2019-10-12T08:10:61Z"},
	"leap second": {"2016-12-31T23:59:60Z", "2017-01-01T00:59:60+01:00"},
	"offset":      {"2019-10-12T08:10:54+24:00", "2019-10-12T08:10:54-24:00", "2019-10-12T08:10:54+00:60", "2019-10-12T08:10:54+99:99"},
}

func TestParseTimestamp(t *testing.T) {
	for _, text := range accepted {
		compareTimestamp(t, text)
		if _, err := parseTimestamp([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for want, texts := range refused {
		for _, text := range texts {
			if got, err := parseTimestamp([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q is %v, %v, want a word about %s", text, got, err, want)
			}
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
	for _, seed := range slices.Concat(append(slices.Collect(maps.Values(refused)), accepted)...) {
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
	case err == nil && (!got.Equal(want) || got.Location() != time.UTC):
		t.Errorf("%q is %v, but time.Parse says %v", text, got, want)
	case err == nil && stricter.MatchString(text):
		t.Errorf("%q is %v, but the contract refuses it", text, got)
	case err != nil && wantErr == nil && !stricter.MatchString(text):
		t.Errorf("%q: %v, but time.Parse says %v", text, err, want)
	}
}
