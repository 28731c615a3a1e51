package message

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// syntaxError says what is wrong with a text and at which byte of where. It quotes
// nothing of the text, because logs hold no payload. Another error stays as it is.
func syntaxError(err error, where string) error {
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return err
	}
	return fmt.Errorf("%s, at byte %d of %s", kindOf(syntax), syntax.ByteOffset, where)
}

// kindOf is the library's text without what it quotes of the payload: a character, an
// escape sequence, or a surrogate and the six bytes behind it. What stands behind
// that in quotes is what the library expects.
func kindOf(syntax *jsontext.SyntacticError) string {
	text := syntax.Err.Error()
	start := strings.IndexAny(text, "'\"`")
	if start < 0 {
		return text
	}
	quoted, err := strconv.QuotedPrefix(text[start:])
	if err != nil {
		return strings.TrimSpace(text[:start]) // not in the form that is known
	}
	return strings.TrimSpace(strings.TrimSpace(text[:start]) + text[start+len(quoted):])
}
