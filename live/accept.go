package live

import (
	"strconv"
	"strings"
)

// negotiate returns the offered media type that a client likes best (RFC 9110, section
// 12.5.1): "" if it takes none of them, and the first of those that it likes as well.
// Parameters other than q do not matter, and what cannot be read is ignored.
func negotiate(accept, offered []string) string {
	if strings.Trim(strings.Join(accept, ""), " \t,") == "" {
		return offered[0]
	}
	type weight struct{ specific, thousandths int }
	weights := make([]weight, len(offered))
	for _, line := range accept {
		for text := range strings.SplitSeq(line, ",") {
			media, parameters, _ := strings.Cut(text, ";")
			media = strings.ToLower(strings.TrimSpace(media))
			q, ok := quality(parameters)
			if !ok {
				continue
			}
			for i, offer := range offered {
				// The most specific range counts, whatever its weight.
				if s := specific(media, offer); s > weights[i].specific {
					weights[i] = weight{s, q}
				}
			}
		}
	}
	best, highest := "", 0
	for i, w := range weights {
		if w.thousandths > highest {
			best, highest = offered[i], w.thousandths
		}
	}
	return best
}

// specific tells how closely a media range is about a type, 0 for not at all.
func specific(media, offer string) int {
	kind, _, _ := strings.Cut(offer, "/")
	switch media {
	case offer:
		return 3
	case kind + "/*":
		return 2
	case "*/*":
		return 1
	}
	return 0
}

// quality is the weight among the parameters of a media range, in thousandths.
func quality(parameters string) (thousandths int, ok bool) {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) { // also of what is no number
			return 0, false
		}
		return int(q*1000 + 0.5), true
	}
	return 1000, true
}
