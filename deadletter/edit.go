package deadletter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/shard"
)

// idsOf returns the ids of the messages in an envelope, in the order of its lines. It
// fails if they cannot be told: then another body could not have the same ones.
func idsOf(e *message.Envelope) ([]string, error) {
	if e.Foreign {
		return []string{e.ID}, nil
	}
	var ids []string
	known := make(map[string]bool)
	for line := range bytes.Lines(e.Body) {
		id := message.Dead{Line: line}.ID()
		switch {
		case id == "":
			return nil, fmt.Errorf("%w: line %d of it has no message_id that can be read", ErrNotEditable, len(ids)+1)
		case known[id]:
			return nil, fmt.Errorf("%w: two lines of it have the message_id %s", ErrNotEditable, id)
		}
		known[id] = true
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrNotEditable)
	}
	return ids, nil
}

// uneditable returns why the letter cannot be edited, nil if it can be.
func (s *seen) uneditable() error {
	switch _, err := idsOf(&s.Envelope); {
	case err != nil:
		return err
	case s.letters.cfg.Hidden:
		return fmt.Errorf("%w: LIVE_PAYLOAD=none hides its body", ErrNotEditable)
	case s.masked():
		return fmt.Errorf("%w: LIVE_REDACT masks a part of it", ErrNotEditable)
	}
	return nil
}

// mend returns the envelopes that take the place of a dead letter, with the same ids and
// another body. What is wrong with the body is a *message.InvalidError.
//
// A retry of the same edit has the same ids of envelopes. Another edit has others, and so
// does the same edit of a letter that comes back: the broker must not take the one for
// the other.
func (s *seen) mend(body string) ([]message.Envelope, error) {
	if err := s.uneditable(); err != nil {
		return nil, err
	}
	var messages []message.Message
	var err error
	if s.Envelope.Foreign {
		messages, err = s.mendEntry([]byte(body))
	} else {
		messages, err = s.mendLines([]byte(body))
	}
	if err != nil {
		return nil, err
	}
	var out []message.Envelope
	for _, m := range messages {
		n := s.shardOf(m)
		i := slices.IndexFunc(out, func(e message.Envelope) bool {
			return e.Shard == n && len(e.Body)+len(m.Line) < message.MaxEnvelopeBytes
		})
		if i < 0 {
			id := message.ScopedID(s.Key(), strconv.Itoa(len(out)), []byte(body))
			out = append(out, message.Envelope{ID: id, Shard: n, Attributes: s.Envelope.Attributes})
			i = len(out) - 1
		}
		out[i].Count++
		out[i].Body = append(append(out[i].Body, m.Line...), '\n')
	}
	return out, nil
}

// shardOf is the shard of a message: that of its time, as in a submission. A message whose
// time would be that of its arrival, which its id does not tell, stays in the shard that
// the letter came from.
func (s *seen) shardOf(m message.Message) int {
	all := s.letters.cfg.Shards
	_, ours := message.CountOf(m.ID())
	if from := s.Envelope.Shard; m.Time.IsZero() && !ours && from >= 0 && from < all {
		return from
	}
	return shard.Of(m.Time, all)
}

// mendEntry reads the new body of what another program published: one entry.
func (s *seen) mendEntry(body []byte) ([]message.Message, error) {
	rules := s.letters.cfg.Rules
	checked, err := rules.Decode(message.NewID(), body, message.JSON)
	if err == nil && len(checked.Messages) != 1 {
		err = &message.InvalidError{Entries: []message.EntryError{{Index: -1, Detail: "want one entry, as it was"}}}
	}
	if err != nil {
		return nil, invalid(err)
	}
	messages, _, err := rules.Open(message.Envelope{ID: s.Envelope.ID, Foreign: true, Count: 1, Body: body})
	if err != nil {
		return nil, invalid(err)
	}
	for i := range messages { // their time is unset
		m, err := rules.ParseLine(messages[i].Line)
		if err != nil {
			return nil, invalid(err)
		}
		messages[i] = m
	}
	return messages, nil
}

// mendLines reads the new body of an envelope of ours: lines with the ids that were there.
func (s *seen) mendLines(body []byte) (messages []message.Message, err error) {
	ids, err := idsOf(&s.Envelope)
	if err != nil {
		return nil, err
	}
	var found []message.EntryError
	report := func(index int, pointer, detail string) {
		if len(found) < message.MaxReported {
			found = append(found, message.EntryError{Index: index, Pointer: pointer, Detail: detail})
		}
	}
	left := make(map[string]bool, len(ids))
	for _, id := range ids {
		left[id] = true
	}
	index := 0
	for line := range bytes.Lines(body) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		m, faults := s.mendLine(line)
		switch id := m.ID(); {
		case len(faults) > 0:
			for _, f := range faults {
				report(index, "/"+strconv.Itoa(index)+f.Pointer, f.Detail)
			}
			delete(left, message.Dead{Line: line}.ID()) // it is there, and wrong
		case !left[id]:
			report(index, fmt.Sprintf("/%d/message_id", index), "the ids of the dead letter have to stay, each of them once; this is none of them")
		default:
			delete(left, id)
			messages = append(messages, m)
		}
		index++
	}
	for _, id := range ids {
		if left[id] {
			report(-1, "", fmt.Sprintf("the message %s is missing; what was accepted is not dropped by an edit", id))
		}
	}
	if len(found) > 0 {
		return nil, &message.InvalidError{Entries: found}
	}
	return messages, nil
}

// mendLine reads a line, whose white space does not matter.
func (s *seen) mendLine(line []byte) (message.Message, []message.EntryError) {
	var compact bytes.Buffer
	if json.Compact(&compact, line) == nil {
		line = compact.Bytes()
	}
	rules := s.letters.cfg.Rules
	m, err := rules.ParseLine(line)
	if err == nil {
		return m, nil
	}
	// The entry in it says the same, and where.
	id := message.Message{Line: line}.ID()
	if rest, ok := bytes.CutPrefix(line, []byte(`{"message_id":"`+id+`"`)); ok && id != "" {
		submission, _, _ := strings.Cut(id, ".")
		entry := append([]byte{'{'}, bytes.TrimPrefix(rest, []byte{','})...)
		_, err2 := rules.Decode(submission, entry, message.JSON)
		if faults, ok := errors.AsType[*message.InvalidError](err2); ok {
			return m, faults.Entries
		}
	}
	return m, []message.EntryError{{Detail: oneLine(err)}}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// invalid is an error of decoding as one that lists what is wrong.
func invalid(err error) error {
	if list, ok := errors.AsType[*message.InvalidError](err); ok {
		return list
	}
	return &message.InvalidError{Entries: []message.EntryError{{Index: -1, Detail: oneLine(err)}}}
}

// Change is what is wanted of one dead letter, and who wants it.
type Change struct {
	Key string
	// Body replaces the body; nil leaves it as it is.
	Body   *string
	Reason string
	By     string // the name of the client
	From   string // its address
}

// Replayed is what became of a dead letter.
type Replayed struct {
	ID    string `json:"id"`
	Shard int    `json:"shard"`
	// Shards are all that its messages went to.
	Shards []int `json:"shards"`
}

// Replay publishes a dead letter to its queue again, as it is or edited, and then removes
// it. An error that wraps broker.ErrUnknown says that it may be published, or may be
// there still. The ids keep it from being written twice, if its shard stays the same.
func (l *Letters) Replay(c Change) (out Replayed, err error) {
	l.mu.Lock()
	ctx := l.ctx
	switch {
	case l.cfg.ReadOnly:
		err = ErrReadOnly
	case l.stopping():
		err = ErrStopping
	case l.changes >= maxChanges:
		err = ErrTooMany
	default:
		l.changes++
		defer func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.changes--
		}()
	}
	l.mu.Unlock()
	if err != nil {
		return out, err
	}
	var failure error
	found, sent, settled := false, false, false
	whole, err := l.visit(ctx, changeTime, func(s *seen) (broker.Verdict, bool) {
		if found {
			settled = true
			return broker.Keep, false
		}
		if s.late || s.Key() != c.Key {
			return broker.Keep, true
		}
		var verdict broker.Verdict
		found = true
		out, verdict, failure = l.replay(s, c)
		sent = verdict != broker.Keep
		return verdict, sent
	})
	switch {
	case failure != nil:
		return out, failure
	case sent && (settled || err == nil && whole):
		return out, nil
	case sent && err == nil: // it ended before the next letter, and what was decided is not known
		err = broker.ErrUnknown
		fallthrough
	case sent:
		if !errors.Is(err, broker.ErrRejected) || c.Body != nil {
			err = broker.Unknown(err)
		}
		return out, err
	case err != nil:
		return out, err
	case !whole:
		return out, ErrTooFar
	}
	return out, ErrNotFound
}

// replay decides on the letter that is to be replayed. An edited one is published here,
// and confirmed, before it may be removed.
func (l *Letters) replay(s *seen, c Change) (out Replayed, v broker.Verdict, err error) {
	told := event.DeadLettersChange{Do: "replay", Key: c.Key, IDs: []string{s.id()}, Letters: 1, By: c.By, From: c.From, Reason: c.Reason}
	out.ID = s.id()
	if c.Body == nil {
		if s.Envelope.Shard < 0 {
			return out, broker.Keep, broker.ErrNoOrigin
		}
		l.cfg.Tell(told)
		out.Shard, out.Shards = s.Envelope.Shard, []int{s.Envelope.Shard}
		return out, broker.Replay, nil
	}
	envelopes, err := s.mend(*c.Body)
	if err != nil {
		return out, broker.Keep, err
	}
	for _, e := range envelopes {
		if !slices.Contains(out.Shards, e.Shard) {
			out.Shards = append(out.Shards, e.Shard)
		}
	}
	out.Shard = out.Shards[0]
	told.Do = "edit"
	l.cfg.Tell(told)
	if err := l.publish(envelopes); err != nil {
		return out, broker.Keep, err
	}
	l.tellMoved(envelopes, s.Envelope.Shard)
	return out, broker.Remove, nil
}

// publish returns nil once every envelope is durable.
func (l *Letters) publish(envelopes []message.Envelope) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), broker.PublishTimeout, fmt.Errorf("no confirm within %v", broker.PublishTimeout))
	defer cancel()
	outcomes := make([]error, len(envelopes))
	l.cfg.Broker.Publish(ctx, envelopes, func(i int, outcome error) { outcomes[i] = outcome })
	err := errors.Join(outcomes...)
	if err != nil && len(envelopes) > 1 {
		return broker.Unknown(err) // some of them may be there
	}
	return err
}

// tellMoved tells of the submissions whose messages went to another shard.
func (l *Letters) tellMoved(envelopes []message.Envelope, from int) {
	if l.cfg.Moved == nil {
		return
	}
	told := make(map[string]bool)
	for _, e := range envelopes {
		if e.Shard == from {
			continue
		}
		for line := range bytes.Lines(e.Body) {
			submission, _, _ := strings.Cut(message.Message{Line: line}.ID(), ".")
			if _, ours := message.CountOf(submission); ours && !told[submission] {
				told[submission] = true
				l.cfg.Moved(submission)
			}
		}
	}
}
