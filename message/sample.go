package message

import "github.com/go-json-experiment/json/jsontext"

// Sample returns an entry with the timestamp at where the rules look for it. The other
// members are pairs of a name and a JSON value. One whose name leads to the timestamp is
// left out.
func (r *Rules) Sample(at string, members ...string) []byte {
	path := r.path
	if path == nil {
		path = []string{TimestampField}
	}
	var entry []byte
	for _, token := range path {
		entry = appendString(append(entry, '{'), token)
		entry = append(entry, ':')
	}
	entry = appendString(entry, at)
	for range path[1:] {
		entry = append(entry, '}')
	}
	for i := 0; i+1 < len(members); i += 2 {
		if members[i] == path[0] {
			continue
		}
		entry = appendString(append(entry, ','), members[i])
		entry = append(append(entry, ':'), members[i+1]...)
	}
	return append(entry, '}')
}

// appendString appends a string of JSON. NewRules has seen to it that a token is UTF-8.
func appendString(dst []byte, text string) []byte {
	dst, _ = jsontext.AppendQuote(dst, text)
	return dst
}
