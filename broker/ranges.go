package broker

import (
	"strconv"
	"strings"
)

// AppendRange adds the numbers from first to last to a text of ranges, such as "0-3,7".
func AppendRange(text []byte, first, last int) []byte {
	if len(text) > 0 {
		text = append(text, ',')
	}
	text = strconv.AppendInt(text, int64(first), 10)
	if last > first {
		text = strconv.AppendInt(append(text, '-'), int64(last), 10)
	}
	return text
}

// ReadRanges calls add with each number of a text of ranges. It returns false at numbers
// that are not in order, or from limit on, so that a short text never becomes a long list.
func ReadRanges(text string, limit int, add func(int)) bool {
	if text == "" {
		return true
	}
	next := 0 // the least that may follow
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, err := strconv.Atoi(low)
		to, err2 := strconv.Atoi(high)
		if err != nil || err2 != nil || from < next || to < from || to >= limit {
			return false
		}
		for n := from; n <= to; n++ {
			add(n)
		}
		next = to + 1
	}
	return true
}
