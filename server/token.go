package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// tokenProtocol precedes a token in base64url without padding (RFC 4648, section 5),
// among the subprotocols of a WebSocket.
const tokenProtocol = "adp.bearer."

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

// nameOf is the name of the token that has the scope; empty if it has none.
func nameOf(scope string) string {
	if strings.HasPrefix(scope, ":") {
		return ""
	}
	return scope
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
func (t tokens) match(token string) int { return t.find(sha256.Sum256([]byte(token))) }

// find is match by a hash.
func (t tokens) find(sum [sha256.Size]byte) int {
	found := -1
	for i := range t {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], t[i].sum[:]), i, found)
	}
	return found
}

// bearer returns the token in the Authorization header (RFC 6750, section 2.1), and
// whether the client tried to send one. It ignores a token in the query or in a form
// body, which would end up in logs and histories. Two headers are two credentials, and
// none of them counts. A page cannot set that header for a WebSocket, so there the token
// may be a subprotocol.
func bearer(h http.Header) (token string, sent bool) {
	values := h["Authorization"]
	if h["Upgrade"] != nil {
		for protocol := range protocols(h) {
			if encoded, ok := strings.CutPrefix(protocol, tokenProtocol); ok {
				if sent || values != nil {
					return "", true
				}
				// It never fails with what matches: what cannot be decoded is no token.
				decoded, _ := base64.RawURLEncoding.DecodeString(encoded)
				token, sent = string(decoded), true
			}
		}
		if sent {
			return token, true
		}
	}
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
