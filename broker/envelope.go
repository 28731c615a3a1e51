package broker

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"async-data-processor/message"
)

const (
	// MaxID is the longest id of an envelope, in bytes, that every engine takes.
	MaxID = 255
	// MaxAttributes is how many attributes an envelope may have.
	MaxAttributes = 16
	// MaxAttributesBytes bounds their text, as EncodeAttributes returns it.
	MaxAttributesBytes = 4 << 10
	// attributesVersion is the version of that text.
	attributesVersion = 1
)

// Check returns why no engine takes the envelope from a client with that many
// shards, as ErrRejected; nil if they take it.
func Check(e *message.Envelope, shards int) error {
	switch {
	case e.Shard < 0 || e.Shard >= shards:
		return Rejected(fmt.Errorf("there is no shard %d of %d", e.Shard, shards))
	case e.ID == "" || len(e.ID) > MaxID:
		return Rejected(fmt.Errorf("the envelope's id has %d bytes, want 1 to %d", len(e.ID), MaxID))
	case len(e.Body) > message.MaxEnvelopeBytes:
		return Rejected(fmt.Errorf("the envelope has %d bytes, the limit is %d", len(e.Body), message.MaxEnvelopeBytes))
	case len(e.Attributes) == 0:
		return nil
	case len(e.Attributes) > MaxAttributes:
		return Rejected(fmt.Errorf("the envelope has %d attributes, the limit is %d", len(e.Attributes), MaxAttributes))
	}
	for name, value := range e.Attributes {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return Rejected(fmt.Errorf("the envelope's attribute %q is not UTF-8", name))
		}
	}
	if n := len(EncodeAttributes(e.Attributes)); n > MaxAttributesBytes {
		return Rejected(fmt.Errorf("the envelope's attributes have %d bytes, the limit is %d", n, MaxAttributesBytes))
	}
	return nil
}

// attributes is how attributes travel, as JSON.
type attributes struct {
	Version    int               `json:"version"`
	Attributes map[string]string `json:"attributes"`
}

// EncodeAttributes returns attributes as the text of a header, on one line.
func EncodeAttributes(of map[string]string) string {
	text, _ := json.Marshal(attributes{attributesVersion, of}) // strings have no errors
	return string(text)
}

// DecodeAttributes reads what EncodeAttributes has written. It returns nil for any
// other text, also for one of a later version.
func DecodeAttributes(text string) map[string]string {
	var a attributes
	if len(text) > MaxAttributesBytes || json.Unmarshal([]byte(text), &a) != nil || a.Version != attributesVersion {
		return nil
	}
	return a.Attributes
}
