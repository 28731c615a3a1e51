package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"async-data-processor/message"
)

// submit is POST /message. The cheap steps come first: a client that may not
// submit, or sends what cannot be read, is refused before its body is read.
func (s *Server) submit(ctx echo.Context) error {
	c := ctx.(*call)
	r, answer := c.Request(), c.Response().Header()
	var err error
	if c.client, err = s.authorize(s.tokens, submitSettings, r, answer); err != nil {
		return err
	}
	if s.draining.Load() {
		return &problem{kind: draining, detail: "the server is stopping; nothing was published, try again"}
	}
	if err := s.Intake.refusal(); err != nil {
		return err
	}
	key, err := idempotencyKey(r.Header)
	if err != nil {
		return err
	}
	format, err := bodyFormat(r.Header, answer)
	if err != nil {
		return err
	}
	coding, err := bodyCoding(r.Header, answer)
	if err != nil {
		return err
	}

	// The share is given back after the answer, not with the buffer: the messages
	// are copies of the body, and held until then.
	taken := share{of: &s.budget, client: s.clients.ofRequest(r, len(s.tokens) > 0)}
	defer func() { taken.give(taken.bytes) }()
	body, err := s.readBody(c.Response().Writer, r, coding, &taken)
	if err != nil {
		return err
	}
	c.request.Bytes = len(body.data)
	submission, err := decode(s.cfg.Rules, c.client, key, body.data, format)
	c.submission = submission.ID
	body.recycle()
	if err != nil {
		return refuseSubmission(err)
	}

	accepted := len(submission.Messages) // Recycle takes them
	waits := c.awaits(submission.ID)
	if waits != nil {
		defer waits.End()
	}
	var shards []message.ShardCount
	if err = s.Intake.enter(); err == nil { // else it was paused since the body began to arrive
		if shards, err = s.publish(submission); err != nil {
			err = refusePublish(err, key != "")
		}
	}
	submission.Recycle()
	if err != nil {
		return err
	}
	c.accepted = accepted
	if waits == nil {
		return c.created(receipt(submission.ID, accepted, shards, nil))
	}
	taken.give(taken.bytes)
	progress := waits.until(c, shards)
	return c.created(receipt(submission.ID, accepted, shards, &progress))
}

// created answers with the receipt of a submission and its place, as one string. To copy
// them would take two allocations more for each request.
func (c *call) created(location, body string) error {
	w := c.Response()
	c.location[0] = location
	w.Header()["Location"] = c.location[:]
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, err := io.WriteString(w.Writer, body)
	return err
}

// decode returns the submission that a body is. It has its id also if the body is refused.
//
// The key is hashed with the body as the client wrote it, so that a retry may compress
// it or not; and with its scope, so that no other client has it.
func decode(rules *message.Rules, scope, key string, body []byte, format message.Format) (message.Submission, error) {
	var id string
	if key != "" {
		id = message.ScopedID(scope, key, body)
	} else {
		id = message.NewID()
	}
	submission, err := rules.Decode(id, body, format)
	if err != nil {
		return message.Submission{ID: id}, err
	}
	submission.Number()
	return submission, nil
}

// publish publishes a submission that has entered, and waits for the confirms, for as
// long as the publish time-out allows.
//
// A client that goes away does not cancel it. The envelopes may be at the broker
// already: to give up would save nothing, and make the outcome unknown.
func (s *Server) publish(m message.Submission) ([]message.ShardCount, error) {
	defer s.Intake.leave()
	ctx := s.untilLate()
	shards, err := s.cfg.Submitter.Submit(ctx, m)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err) // which says that the time-out is over
	}
	return shards, err
}

// untilLate returns a context that ends after the publish time-out, or up to a
// fiftieth of it earlier. Requests share it, because a timer for each costs
// several percent of a small request.
func (s *Server) untilLate() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); !now.Before(s.renewal) {
		timeout := s.cfg.PublishTimeout
		ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, fmt.Errorf("no confirm within %v", timeout))
		context.AfterFunc(ctx, cancel)
		s.patience, s.renewal = ctx, now.Add(timeout/50)
	}
	return s.patience
}

func refuseSubmission(err error) error {
	if errors.Is(err, message.ErrTooLarge) {
		advice := "send it in parts"
		if errors.Is(err, message.ErrEntryTooLarge) {
			advice = "make the entry smaller; nothing was published"
		}
		return &problem{kind: tooLarge, detail: err.Error() + "; " + advice, cause: err}
	}
	invalid, ok := errors.AsType[*message.InvalidError](err)
	if !ok {
		return fmt.Errorf("decode the body: %w", err)
	}
	n, some := len(invalid.Entries), ""
	if n >= message.MaxReported {
		some = "the first "
	}
	return &problem{
		kind:    invalidSubmission,
		detail:  fmt.Sprintf("errors lists %s%d to correct; nothing was published", some, n),
		entries: invalid.Entries,
		// Not the error itself: its pointers quote names that the client chose.
		cause: fmt.Errorf("%d invalid, entry %d the first: %s", n, invalid.Entries[0].Index, invalid.Entries[0].Detail),
	}
}

func refusePublish(err error, keyed bool) *problem {
	if errors.Is(err, message.ErrNoRoom) {
		return &problem{kind: notPublished, detail: "the output takes nothing new now; nothing was published, try again", cause: err}
	}
	if errors.Is(err, message.ErrNotPublished) {
		return &problem{kind: notPublished, detail: "the broker cannot take it now; nothing was published, try again", cause: err}
	}
	detail := "the broker has not confirmed everything; a retry with the same Idempotency-Key and body is safe"
	if !keyed {
		detail = "the broker has not confirmed everything; a retry may be written twice, unless requests carry an Idempotency-Key"
	}
	return &problem{kind: outcomeUnknown, detail: detail, cause: err}
}

// receipt is the place and the body of a 201. progress is nil unless the client waits.
func receipt(id string, accepted int, shards []message.ShardCount, progress *Progress) (location, body string) {
	var room [512]byte // so only the text is allocated
	b := append(append(room[:0], ReceiptPath...), id...)
	place := len(b)
	b = appendReceipt(append(b, '{'), id, accepted, shards)
	if progress != nil {
		b = strconv.AppendInt(append(b, `,"written":`...), int64(progress.Written), 10)
		b = strconv.AppendInt(append(b, `,"dead":`...), int64(progress.Dead), 10)
		b = strconv.AppendBool(append(b, `,"done":`...), progress.Done)
	}
	text := string(append(b, "}\n"...))
	return text[:place], text[place:]
}

// appendReceipt appends the members that tell what was accepted. They need no escapes:
// they hold numbers, and an id of letters and digits.
func appendReceipt(b []byte, id string, accepted int, shards []message.ShardCount) []byte {
	b = append(b, `"id":"`...)
	b = append(b, id...)
	b = append(b, `","accepted":`...)
	b = strconv.AppendInt(b, int64(accepted), 10)
	b = append(b, `,"shards":{`...)
	for i, s := range shards {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = strconv.AppendInt(b, int64(s.Shard), 10)
		b = append(b, `":`...)
		b = strconv.AppendInt(b, int64(s.Messages), 10)
	}
	return append(b, '}')
}
