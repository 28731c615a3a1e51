package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// maxTokenName is the longest name of a token, in bytes.
const maxTokenName = 64

// ParseToken reads a token of Config: "name:token", or a token without a name. A
// token of RFC 6750 holds no colon. The error quotes nothing of text.
func ParseToken(text string) (name, token string, err error) {
	name, token, named := strings.Cut(text, ":")
	if !named {
		name, token = "", text
	}
	switch {
	case named && (len(name) > maxTokenName || !only(name, idSafe)):
		return "", "", fmt.Errorf("what is before the colon is not a name of 1 to %d letters, digits, '.', '_', '-'", maxTokenName)
	case token == "":
		return "", "", errors.New("an empty token")
	}
	return name, token, nil
}

// tokens are the bearer tokens that are let in.
type tokens []holder

// holder is a client by its token. Several tokens may have one name, so that a
// client can change from one to the next.
type holder struct {
	// scope is the client's own scope of Idempotency-Keys.
	scope string
	sum   [sha256.Size]byte // of the token
}

// hashTokens keeps of each token its hash. One that cannot be read never matches,
// but counts: it must not open the server to all.
func hashTokens(texts []string) tokens {
	t := make(tokens, len(texts))
	for i, text := range texts {
		name, token, err := ParseToken(text)
		if err != nil {
			continue
		}
		t[i].sum = sha256.Sum256([]byte(token))
		if t[i].scope = name; name == "" {
			t[i].scope = ":" + hex.EncodeToString(t[i].sum[:]) // no name has a colon
		}
	}
	return t
}

// match returns the index of the token, -1 if it is not known. It compares hashes,
// which have one length, and always all of them. So the time it takes depends only
// on the length of what the client sent.
func (t tokens) match(token string) int {
	sum := sha256.Sum256([]byte(token))
	found := -1
	for i := range t {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], t[i].sum[:]), i, found)
	}
	return found
}

// authorize checks the request's bearer token (RFC 6750, section 2.1), and
// refuses with the challenge of section 3. It ignores a token in the query or in a
// form body, which would end up in logs and histories. It returns the client's
// scope of keys, which is "" if there are no tokens.
func (t tokens) authorize(h http.Header, answer http.Header) (scope string, err error) {
	if len(t) == 0 {
		return "", nil
	}
	token, sent := bearer(h)
	if sent && token != "" {
		if i := t.match(token); i >= 0 {
			return t[i].scope, nil
		}
	}
	challenge := `Bearer realm="async-data-processor"`
	detail := "send a bearer token in the Authorization header"
	if sent {
		challenge += `, error="invalid_token"`
		detail = "the bearer token is not known here"
	}
	answer.Set("WWW-Authenticate", challenge)
	return "", &problem{kind: unauthorized, detail: detail}
}

// bearer returns the token in the Authorization header, and whether the client
// tried to send one. Two headers are two credentials, and none of them counts.
func bearer(h http.Header) (token string, sent bool) {
	values := h["Authorization"]
	if len(values) > 1 {
		return "", true
	}
	if len(values) == 0 {
		return "", false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	token = strings.TrimLeft(token, " ")
	return token, token != ""
}
