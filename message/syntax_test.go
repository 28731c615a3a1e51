package message_test

import (
	"strings"
	"testing"

	"async-data-processor/message"
)

// TestErrorsQuoteNoPayload: errors go to logs and into the reasons of dead letters, so
// they tell the kind and the offset of what is wrong, and none of what is there.
func TestErrorsQuoteNoPayload(t *testing.T) {
	const secret = "hunter" // six bytes, as many as stand behind a bad surrogate
	for name, tc := range map[string]struct{ member, want string }{
		"surrogate":        {`"a":"\ud800` + secret + `"`, "invalid surrogate pair in string"},
		"backquotes":       {`"a":"\ud800` + "`hunter" + `"`, "invalid surrogate pair in string"},
		"half a surrogate": {`"a":"\ud800` + `\u` + secret + `"`, "invalid"},
		"escape":           {`"a":"\uhunter"`, "invalid escape sequence in string"},
		"character":        {`"a":hunter`, "invalid character at start of value"},
		"behind a name":    {`"a" hunter`, "invalid character after object name (expecting ':')"},
		"behind a value":   {`"a":1 hunter`, "invalid character after object value (expecting ',' or '}')"},
		"literal":          {`"a":nuhunter`, "invalid character in literal null (expecting 'l')"},
		"control":          {`"a":"` + "\x01" + secret + `"`, "invalid character in string (expecting non-control character)"},
		"bad UTF-8":        {`"a":"` + "\xff" + secret + `"`, "invalid UTF-8"},
		"two names":        {`"hunter":1,"hunter":2`, "duplicate object member name"},
		"deep":             {`"hunter":{"hunter":{"a":"\ud800hunter"}}`, "invalid surrogate pair in string"},
		"cut":              {`"hunter":`, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			line := `{"message_id":"S.0",` + at + `,` + tc.member + `}`
			entry := `{` + at + `,` + tc.member + `}`
			_, _, foreign := message.Strict.Open(message.Envelope{Foreign: true, Body: []byte(entry)})
			_, dead, err := message.Strict.Open(message.Envelope{Count: 1, Body: []byte(line + "\n")})
			if err != nil || len(dead) != 1 {
				t.Fatalf("%d dead, %v", len(dead), err)
			}
			_, parsed := message.Strict.ParseLine([]byte(line))
			_, array := message.Decode("S", []byte("["+entry+"]"), message.JSON)
			_, lines := message.Decode("S", []byte(entry), message.NDJSON)
			for from, got := range map[string]string{
				"foreign": text(foreign), "dead": dead[0].Reason, "line": text(parsed), "array": detail(t, array), "lines": detail(t, lines),
			} {
				if strings.Contains(got, "hunt") || strings.Contains(got, "'h'") || strings.Contains(got, `\u`) || !strings.Contains(got, tc.want) {
					t.Errorf("%s: %q, want %q and nothing of the payload", from, got, tc.want)
				}
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// detail is what a log has of a refused body.
func detail(t *testing.T, err error) string {
	t.Helper()
	invalid, ok := err.(*message.InvalidError)
	if !ok {
		t.Fatalf("error %v", err)
	}
	return invalid.Entries[0].Detail
}
