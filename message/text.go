package message

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// bad stands for the index after a token that is not one.
const bad = -1

// textEnd returns the index after the JSON string whose quote is at src[i],
// and whether it holds an escape. The string is valid UTF-8 without control
// characters or unpaired surrogates, else the index is bad.
func textEnd(src []byte, i int) (end int, escaped bool) {
	i++
	for {
		i = plainEnd(src, i)
		if i >= len(src) {
			return bad, escaped
		}
		switch c := src[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			n := escapeLen(src[i:])
			if n == 0 {
				return bad, true
			}
			i, escaped = i+n, true
		case c < utf8.RuneSelf: // a control character
			return bad, escaped
		}
		for i < len(src) && src[i] >= utf8.RuneSelf {
			_, n := utf8.DecodeRune(src[i:])
			if n == 1 { // of a byte that is no rune
				return bad, escaped
			}
			i += n
		}
	}
}

// plainEnd returns the index of the first byte from src[i] on that does not
// stand for itself in a string: a quote, a backslash, a control character or
// one beyond ASCII. It is len(src) if there is none.
func plainEnd(src []byte, i int) int {
	const (
		each = 0x0101010101010101 // times a byte: eight of it
		high = each * 0x80
	)
	for ; i+8 <= len(src); i += 8 {
		// A byte's high bit is set if it is what is looked for. That is certain of
		// the first one only, as a subtraction borrows from the bytes behind it.
		x := binary.LittleEndian.Uint64(src[i:])
		if found := (x | (x - each*' ') | ((x ^ each*'"') - each) | ((x ^ each*'\\') - each)) & high; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(src) && src[i] >= ' ' && src[i] != '"' && src[i] != '\\' && src[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// escapeLen returns the length of the escape that src starts with, both halves
// of a surrogate pair being one, or 0 if it is none.
func escapeLen(src []byte) int {
	if len(src) < len(`\n`) {
		return 0
	}
	switch src[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return len(`\n`)
	case 'u':
		switch first := hex4(src); {
		case first < 0:
			return 0
		case first < 0xd800 || first > 0xdfff:
			return len(`\u0000`)
		case first < 0xdc00:
			if second := hex4(src[len(`\ud800`):]); second >= 0xdc00 && second <= 0xdfff {
				return len(`\ud800\udc00`)
			}
		}
	}
	return 0
}

// hex4 returns the code unit of an escape such as \u00e9, or -1.
func hex4(src []byte) int {
	if len(src) < len(`\u0000`) || src[0] != '\\' || src[1] != 'u' {
		return -1
	}
	unit := 0
	for _, c := range src[2:len(`\u0000`)] {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		unit = unit<<4 | int(c)
	}
	return unit
}

// numberEnd returns the index after the JSON number that starts at src[i], or
// bad.
func numberEnd(src []byte, i int) int {
	if src[i] == '-' {
		i++
	}
	end := digitsEnd(src, i)
	if end == bad || src[i] == '0' && end > i+1 {
		return bad
	}
	if end < len(src) && src[end] == '.' {
		if end = digitsEnd(src, end+1); end == bad {
			return bad
		}
	}
	if end < len(src) && src[end]|0x20 == 'e' {
		end++
		if end < len(src) && (src[end] == '+' || src[end] == '-') {
			end++
		}
		return digitsEnd(src, end)
	}
	return end
}

// digitsEnd returns the index after the digits at src[i], or bad if there are
// none.
func digitsEnd(src []byte, i int) int {
	from := i
	for i < len(src) && isDigit(src[i]) {
		i++
	}
	if i == from {
		return bad
	}
	return i
}
