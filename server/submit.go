package server

import (
	"context"
	"errors"
	"fmt"
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
	scope, err := s.tokens.authorize(r.Header, answer)
	if err != nil {
		return err
	}
	if s.draining.Load() {
		return &problem{kind: draining, detail: "the server is stopping; nothing was published, try again"}
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
	// The key is hashed with the body as the client wrote it, so that a retry
	// may compress it or not; and with its scope, so that no other client has it.
	if key != "" {
		c.submission = message.ScopedID(scope, key, body.data)
	} else {
		c.submission = message.NewID()
	}
	submission, err := s.cfg.Rules.Decode(c.submission, body.data, format)
	body.recycle()
	if err != nil {
		return refuseSubmission(err)
	}

	accepted := len(submission.Messages) // Recycle takes them
	shards, err := s.publish(submission)
	submission.Recycle()
	if err != nil {
		return refusePublish(err, key != "")
	}
	c.accepted = accepted
	return c.Blob(http.StatusCreated, "application/json", receipt(submission.ID, accepted, shards))
}

// publish publishes the submission and waits for the confirms, for as long as the
// publish time-out allows.
//
// A client that goes away does not cancel it. The envelopes may be at the broker
// already: to give up would save nothing, and make the outcome unknown.
func (s *Server) publish(m message.Submission) ([]message.ShardCount, error) {
	ctx := s.untilLate()
	shards, err := s.cfg.Submitter.Submit(ctx, m)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
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

// receipt is the body of a 201. It needs no escapes: it holds numbers, and an id of
// letters and digits.
func receipt(id string, accepted int, shards []message.ShardCount) []byte {
	b := make([]byte, 0, 64+16*len(shards))
	b = append(b, `{"id":"`...)
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
	return append(b, "}}\n"...)
}
