package deadletter

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"async-data-processor/broker"
	"async-data-processor/message"
)

// Bounds of a filter.
const (
	maxIDs      = 100
	maxText     = 512 // of an id, an origin
	maxReason   = 1 << 10
	maxContains = 256
	maxShard    = 1 << 16
)

// noReason stands for a reason that is empty, so that a filter can name it.
const noReason = "(no reason)"

// Filter says which dead letters are meant: those for which all of it holds. The zero
// value means all.
type Filter struct {
	// Reason is the whole reason, as a Letter has it; empty for any.
	Reason string `json:"reason,omitempty"`
	// Shard is the shard it came from, -1 if that is not known; nil for any.
	Shard *int `json:"shard,omitempty"`
	// Foreign tells whether another program published it; nil for both.
	Foreign *bool `json:"foreign,omitempty"`
	// Contains is a text in its body; empty for any.
	Contains string `json:"contains,omitempty"`
	// IDs are those of letters, or of messages in them; none for all.
	IDs []string `json:"ids,omitempty"`
	// Before leaves out what became a dead letter then or later, or at a time that is
	// not known; zero for none.
	Before time.Time `json:"before,omitzero"`
}

// Check returns why a filter is beyond the bounds, as ErrQuery.
func (f *Filter) Check() error {
	switch {
	case len(f.Reason) > maxReason:
		return fmt.Errorf("%w: reason has %d bytes, want at most %d", ErrQuery, len(f.Reason), maxReason)
	case f.Shard != nil && (*f.Shard < -1 || *f.Shard > maxShard):
		return fmt.Errorf("%w: shard is %d, want -1 to %d", ErrQuery, *f.Shard, maxShard)
	case len(f.Contains) > maxContains:
		return fmt.Errorf("%w: contains has %d bytes, want at most %d", ErrQuery, len(f.Contains), maxContains)
	case len(f.IDs) > maxIDs:
		return fmt.Errorf("%w: there are %d ids, want at most %d", ErrQuery, len(f.IDs), maxIDs)
	}
	for _, id := range f.IDs {
		if id == "" || len(id) > maxText {
			return fmt.Errorf("%w: an id has %d bytes, want 1 to %d", ErrQuery, len(id), maxText)
		}
	}
	return nil
}

// Matches tells whether the dead letter is meant. body returns its body, as the one who
// asks may see it; it is called only if the filter looks into it.
func (f *Filter) Matches(d *broker.DeadLetter, body func() []byte) bool {
	e := &d.Envelope
	switch {
	case f.Shard != nil && *f.Shard != max(e.Shard, -1),
		f.Foreign != nil && *f.Foreign != e.Foreign,
		!f.Before.IsZero() && (d.Time.IsZero() || !d.Time.Before(f.Before)),
		f.Reason != "" && f.Reason != reasonOf(d):
		return false
	}
	if len(f.IDs) > 0 && !slices.ContainsFunc(f.IDs, func(id string) bool { return HasID(d, id) }) {
		return false
	}
	return f.Contains == "" || bytes.Contains(body(), []byte(f.Contains))
}

// HasID tells whether an id is that of the dead letter, or of a message in it.
func HasID(d *broker.DeadLetter, id string) bool {
	if d.Envelope.ID == id {
		return true
	}
	if d.Envelope.Foreign {
		return false
	}
	for line := range bytes.Lines(d.Envelope.Body) {
		if string(message.Message{Line: line}.RawID()) == id {
			return true
		}
	}
	return false
}

// Key names a dead letter for as long as there is one: it is made of what does not change.
func Key(d *broker.DeadLetter) string {
	h := sha256.New()
	text := func(t string) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(t)))
		h.Write(n[:])
		h.Write([]byte(t))
	}
	text(d.Envelope.ID)
	text(d.Origin)
	text(d.Time.UTC().Format(time.RFC3339Nano))
	h.Write(d.Envelope.Body)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// isKey tells whether a text may be a Key.
func isKey(text string) bool {
	_, err := hex.DecodeString(text)
	return err == nil && len(text) == 32 && text == strings.ToLower(text)
}

func reasonOf(d *broker.DeadLetter) string {
	return broker.Clip(cmp.Or(d.Reason, noReason), maxReason)
}

// seen is a dead letter that is shown. It works out what is asked of it, once.
type seen struct {
	*broker.DeadLetter
	letters *Letters
	late    bool // it is the last one, and is kept
	key     string
	body    []byte
	asked   bool // body is set
}

// Key is that of the dead letter.
func (s *seen) Key() string {
	if s.key == "" {
		s.key = Key(s.DeadLetter)
	}
	return s.key
}

// Body is the body with what is secret masked.
func (s *seen) Body() []byte {
	if s.asked {
		return s.body
	}
	s.asked = true
	e, mask := &s.Envelope, s.letters.cfg.Mask
	switch {
	case mask == nil:
		s.body = e.Body
	case e.Foreign:
		s.body = mask(e.Body)
	default:
		for line := range bytes.Lines(e.Body) {
			text, ended := bytes.CutSuffix(line, []byte{'\n'})
			s.body = append(s.body, mask(text)...)
			if ended {
				s.body = append(s.body, '\n')
			}
		}
	}
	return s.body
}

// masked tells whether something of the body is.
func (s *seen) masked() bool { return !bytes.Equal(s.Body(), s.Envelope.Body) }

// count is how many messages the letter has. The number that it came with may be any.
func (s *seen) count() int { return max(1, min(s.Envelope.Count, message.MaxEnvelopeMessages)) }

// id is that of the letter, or of the one message that it has.
func (s *seen) id() string {
	e := &s.Envelope
	if id := (message.Message{Line: e.Body}).RawID(); e.Count == 1 && !e.Foreign && len(id) > 0 && len(id) <= broker.MaxID {
		return broker.Clip(string(id), maxText)
	}
	return broker.Clip(e.ID, maxText)
}

// existed tells whether it was a dead letter at a time, which is in milliseconds. One
// whose time is not known, or is still to come, counts only if it is named.
func (s *seen) existed(at time.Time, named bool) bool {
	if s.Time.IsZero() || s.Time.After(time.Now()) {
		return named
	}
	return !s.Time.Truncate(time.Millisecond).After(at)
}

// stamp is a time as it is told: UTC, in milliseconds; nil if it is not known.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Millisecond)
	return &t
}

// String is the filter for an audit, on one line.
func (f *Filter) String() string {
	text, _ := json.Marshal(f) // it has nothing that can fail
	return string(text)
}
