package message

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

var errTimestamp = errors.New(`want an RFC 3339 date-time such as "2019-10-12T08:10:54.52Z"`)

// stampOf is parseTimestamp with an error that names what is wrong with the text.
func stampOf(text []byte) (time.Time, error) {
	t, err := parseTimestamp(text)
	if err == errTimestamp {
		err = explainTimestamp(text)
	}
	return t, err
}

// nearTimestamp matches what people and programs take for a date-time of RFC 3339.
// Its groups are what stands for T, the time, its seconds, the fraction, the zone.
var nearTimestamp = regexp.MustCompile(`^\d{4}-\d\d-\d\d(?:(T|t| |_)(\d\d:\d\d(:\d\d)?)([.,]\d*)?(Z|z| ?[+-]\d\d(?::?\d\d)?| ?[A-Za-z/_]+)?)?$`)

var digitsOnly = regexp.MustCompile(`^[+-]?\d+(\.\d+)?$`)

// maxNear is the longest text that is looked at for what is wrong with it.
const maxNear = 100

// explainTimestamp names what is wrong with a text that parseTimestamp refuses with
// errTimestamp.
func explainTimestamp(text []byte) error {
	if len(text) > maxNear {
		return errTimestamp
	}
	if bare := bytes.TrimSpace(text); len(bare) < len(text) {
		_, err := stampOf(bare)
		if err == nil {
			err = errTimestamp
		}
		return fmt.Errorf("white space stands before or behind it; %w", err)
	}
	if digitsOnly.Match(text) {
		return fmt.Errorf("it is a number; %w", errTimestamp)
	}
	m := nearTimestamp.FindSubmatch(text)
	if m == nil {
		return errTimestamp
	}
	var wrong []string
	note := func(is bool, what string) {
		if is {
			wrong = append(wrong, what)
		}
	}
	separator, clock, seconds, fraction, zone := string(m[1]), m[2], m[3], string(m[4]), string(m[5])
	note(clock == nil, "the time is missing")
	note(separator == " ", "a blank stands for the T")
	note(separator == "_" || separator == "t", "the letter between date and time is not a capital T")
	note(clock != nil && seconds == nil, "the seconds are missing")
	note(strings.HasPrefix(fraction, ","), "a comma stands for the point of the fraction")
	note(fraction == ".", "no digits follow the point")
	switch sign := strings.IndexAny(zone, "+-"); {
	case zone == "":
		note(true, "the zone is missing: add Z for UTC, or an offset such as +02:00")
	case zone == "z":
		note(true, "the Z is not a capital")
	case sign < 0:
		note(zone != "Z", "the zone is a name: write Z for UTC, or an offset such as +02:00")
	default:
		note(sign > 0, "a blank stands before the offset")
		note(len(zone)-sign != len("+02:00"), "the offset is not of the form +02:00")
	}
	if len(wrong) == 0 {
		return errTimestamp
	}
	return fmt.Errorf("%s; %w", strings.Join(wrong, ", "), errTimestamp)
}

// parseTimestamp parses an RFC 3339 date-time (section 5.6) strictly: capital T
// and Z, a point before the fraction, offsets within ±23:59, no leap second, years
// 0001 to 9999, days that exist. It drops the digits of a fraction after nanoseconds.
// time.Parse accepts more (",5Z", "+24:00") and allocates for every offset.
func parseTimestamp(s []byte) (time.Time, error) {
	// 0123456789012345678
	// 2006-01-02T15:04:05
	const clockEnd = len("2006-01-02T15:04:05")
	if len(s) <= clockEnd || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, errTimestamp
	}
	d := digits{ok: true}
	year := d.two(s, 0)*100 + d.two(s, 2)
	month, day := d.two(s, 5), d.two(s, 8)
	hour, minute, second := d.two(s, 11), d.two(s, 14), d.two(s, 17)

	nanos, rest := 0, s[clockEnd:]
	if rest[0] == '.' {
		n := 1
		for scale := 100_000_000; n < len(rest) && isDigit(rest[n]); n++ {
			nanos += int(rest[n]-'0') * scale
			scale /= 10
		}
		if n == 1 {
			return time.Time{}, errTimestamp
		}
		rest = rest[n:]
	}

	offset := 0 // in seconds
	switch {
	case len(rest) == 1 && rest[0] == 'Z':
	case len(rest) == len("+00:00") && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':':
		h, m := d.two(rest, 1), d.two(rest, 4)
		if d.ok && (h > 23 || m > 59) {
			return time.Time{}, errors.New("the offset is beyond ±23:59")
		}
		offset = h*3600 + m*60
		if rest[0] == '-' {
			offset = -offset
		}
	default:
		return time.Time{}, errTimestamp
	}

	switch {
	case !d.ok:
		return time.Time{}, errTimestamp
	case year == 0:
		return time.Time{}, errors.New("the year is outside 0001 to 9999")
	case month < 1 || month > 12:
		return time.Time{}, errors.New("the month is outside 01 to 12")
	case day < 1 || day > daysIn(month, year):
		return time.Time{}, errors.New("that month has no such day")
	case second == 60:
		return time.Time{}, errors.New("leap seconds are not accepted")
	case hour > 23 || minute > 59 || second > 59:
		return time.Time{}, errors.New("the time of day is outside 00:00:00 to 23:59:59")
	}
	seconds := int64(daysBefore(year, month, day))*86_400 + int64(hour*3600+minute*60+second-offset)
	return time.Unix(seconds, int64(nanos)).UTC(), nil
}

// daysBefore is the number of days from 1970-01-01 to a date from year 1 on
// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"). time.Date,
// which takes anything for a date, needs three times as long.
func daysBefore(year, month, day int) int {
	// A year begins in March, so that its last day is the one that may be missing.
	month -= 3
	if month < 0 {
		month += 12
		year--
	}
	return year*365 + year/4 - year/100 + year/400 + (153*month+2)/5 + day - 719_469
}

// digits reads decimal digits and remembers whether all of them were.
type digits struct{ ok bool }

func (d *digits) two(s []byte, i int) int {
	if !isDigit(s[i]) || !isDigit(s[i+1]) {
		d.ok = false
	}
	return int(s[i]-'0')*10 + int(s[i+1]-'0')
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func daysIn(month, year int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	default:
		return 31
	}
}
