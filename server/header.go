package server

import (
	"fmt"
	"mime"
	"net/http"
	"strings"

	"async-data-processor/message"
)

// bodyFormat reads the one Content-Type that there must be.
func bodyFormat(h http.Header, answer http.Header) (message.Format, error) {
	values, hint := h["Content-Type"], ""
	if len(values) == 1 {
		switch values[0] { // what most clients send
		case "application/json":
			return message.JSON, nil
		case "application/x-ndjson":
			return message.NDJSON, nil
		}
		media, params, err := mime.ParseMediaType(values[0])
		charset, given := params["charset"]
		// JSON is UTF-8 (RFC 8259, section 8.1); to say so is harmless.
		if err == nil && (!given || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")) {
			switch media {
			case "application/json":
				return message.JSON, nil
			case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines":
				return message.NDJSON, nil // none of them is registered, all are in use
			}
		}
		if media == "application/x-www-form-urlencoded" {
			hint = "; that is what curl -d sends, unless you add -H 'Content-Type: application/json'"
		}
	}
	// W3C Linked Data Platform 1.0, section 7.1
	answer.Set("Accept-Post", "application/json, application/x-ndjson, application/ndjson, application/jsonl, application/x-jsonlines")
	return 0, &problem{
		kind:   unsupportedMediaType,
		detail: fmt.Sprintf("the Content-Type is %s; send application/json or application/x-ndjson, in UTF-8%s", quoted(values), hint),
	}
}

// coding is the content coding of a body (RFC 9110, section 8.4.1).
type coding string

const (
	identity  coding = "identity"
	gzipped   coding = "gzip"
	zstandard coding = "zstd"
)

// bodyCoding reads the Content-Encoding. It accepts one coding at most: a body
// that is compressed twice is a mistake or an attack.
func bodyCoding(h http.Header, answer http.Header) (coding, error) {
	values := h["Content-Encoding"]
	if len(values) == 0 {
		return identity, nil
	}
	if len(values) == 1 {
		switch c := coding(strings.ToLower(values[0])); c {
		case "":
			return identity, nil // an empty list
		case identity, gzipped, zstandard:
			return c, nil
		case "x-gzip":
			return gzipped, nil // RFC 9110, section 8.4.1.3
		}
	}
	// RFC 7694, section 3: this header, and only in this case, tells the client
	// that the coding is to blame.
	answer.Set("Accept-Encoding", "gzip, zstd, identity")
	return "", &problem{
		kind:   unsupportedEncoding,
		detail: fmt.Sprintf("the Content-Encoding is %s; send one of gzip and zstd, once, or none", quoted(values)),
	}
}

// quoted shows the client its header, shortened.
func quoted(values []string) string {
	switch len(values) {
	case 0:
		return "missing"
	case 1:
		return fmt.Sprintf("%q", clip(values[0], 100))
	default:
		return fmt.Sprintf("sent %d times", len(values))
	}
}

// idempotencyKey returns the Idempotency-Key, or "" if there is none. Its bytes
// are taken as they are, quotes included.
func idempotencyKey(h http.Header) (string, error) {
	values := h["Idempotency-Key"]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) == 1 && len(values[0]) <= message.MaxKeyBytes && only(values[0], visible) {
		return values[0], nil
	}
	return "", &problem{
		kind:   invalidKey,
		detail: fmt.Sprintf("send one Idempotency-Key of 1 to %d visible ASCII characters, or none", message.MaxKeyBytes),
	}
}

// requestID returns the client's X-Request-Id if it is fit for headers and
// logs, else a new one.
func requestID(h http.Header) string {
	if values := h["X-Request-Id"]; len(values) == 1 && len(values[0]) <= 128 && only(values[0], idSafe) {
		return values[0]
	}
	return message.NewID()
}

// only tells whether s has characters, and only such that are ok.
func only(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return s != ""
}

func visible(c byte) bool { return 0x21 <= c && c <= 0x7E }

func idSafe(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

// clip returns the first n bytes of s, marked if there are more.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
