package server

import (
	"net/http"
	"strings"
	"time"
)

// MaxWait is the longest wait that a client gets, whatever it prefers.
const MaxWait = 30 * time.Second

// PreferWait returns how long a client prefers to wait for the outcome, up to MaxWait, and
// whether it does: the preference wait of RFC 7240, section 4.3. Others are ignored, and
// so is one that cannot be read.
func PreferWait(h http.Header) (wait time.Duration, asked bool) {
	for _, line := range h["Prefer"] {
		for line != "" {
			var preference string
			preference, line = cutUnquoted(line, ',')
			preference, _ = cutUnquoted(preference, ';') // its parameters
			name, value, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.Trim(name, " \t"), "wait") {
				continue
			}
			return seconds(strings.Trim(value, " \t")) // of several the first counts
		}
	}
	return 0, false
}

// cutUnquoted cuts around the first separator that is not in quotes (RFC 9110, section 5.6.4).
func cutUnquoted(s string, separator byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++ // what follows is no quote
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// seconds reads digits, which may be quoted.
func seconds(value string) (time.Duration, bool) {
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		value = value[1 : n-1]
	}
	if !only(value, func(c byte) bool { return '0' <= c && c <= '9' }) {
		return 0, false
	}
	const most = int(MaxWait / time.Second)
	n := 0
	for i := range len(value) {
		n = min(10*n+int(value[i]-'0'), most)
	}
	return time.Duration(n) * time.Second, true
}
