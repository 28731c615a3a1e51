package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/event"
	"async-data-processor/output"
	"async-data-processor/server"
	"async-data-processor/space"
)

// teller turns what the stages tell into log lines.
type teller struct {
	log     zerolog.Logger
	repeats limiter

	// told is the records as last told, by worker; only used by history, which
	// has one caller at a time.
	told map[string]event.Worker
}

func newTeller(log zerolog.Logger) *teller {
	return &teller{log: log}
}

// repeating returns a line for something that may go on and on, at most one
// per key and repeatInterval; in between nil, which takes fields and writes
// nothing.
func (t *teller) repeating(level zerolog.Level, key string) *zerolog.Event {
	if level < t.log.GetLevel() {
		return nil
	}
	suppressed, ok := t.repeats.allow(key, time.Now())
	if !ok {
		return nil
	}
	e := t.log.WithLevel(level)
	if suppressed > 0 {
		e = e.Int("suppressed", suppressed)
	}
	return e
}

// connectionTexts are the log lines of the connections' states.
var connectionTexts = map[event.ConnectionState]string{
	event.Connected:    "broker connected",
	event.Unreachable:  "cannot connect to broker",
	event.Lost:         "broker connection lost",
	event.Blocked:      "broker blocks publishing",
	event.Unblocked:    "broker takes publishing again",
	event.Cancelled:    "broker cancelled the consumer",
	event.Unsubscribed: "cannot consume the shard's queue",
}

// brokerEvent logs what a broker tells.
func (t *teller) brokerEvent(e event.Event) {
	switch e := e.(type) {
	case event.Connection:
		line := t.log.Info()
		if e.State != event.Connected && e.State != event.Unblocked {
			line = t.repeating(zerolog.WarnLevel, fmt.Sprint(e.State, e.Role, e.Shard))
		}
		brokerLine(line, e.Shard, e.Retry).Str("role", e.Role).AnErr("error", e.Err).Msg(connectionTexts[e.State])
	case event.DeadLettered:
		brokerLine(t.repeating(zerolog.WarnLevel, fmt.Sprint("dead", e.Shard)), e.Shard, 0).Err(e.Err).Msg("dead-lettered")
	case event.DeadLetterFailed:
		brokerLine(t.repeating(zerolog.WarnLevel, fmt.Sprint("dead failed", e.Shard)), e.Shard, e.Retry).
			Str("envelope", e.Envelope).Err(e.Err).Msg("dead letter cannot be kept")
	case event.StoreRepaired: // data was given up: each item, always
		brokerLine(t.log.Error(), -1, 0).Err(e.Err).Msg("broker store repaired")
	}
}

func brokerLine(e *zerolog.Event, shard int, retry time.Duration) *zerolog.Event {
	if shard >= 0 {
		e = e.Int("shard", shard)
	}
	if retry > 0 {
		e = e.Dur("retry_ms", retry)
	}
	return e.Str("component", "broker")
}

func (t *teller) access(a server.Access) {
	var e *zerolog.Event
	switch {
	case a.Stack != nil:
		e = t.log.Error().Bytes("stack", a.Stack)
	case a.Status >= 500:
		e = t.repeating(zerolog.WarnLevel, "access 5xx")
	case a.Status >= 400:
		e = t.repeating(zerolog.InfoLevel, "access 4xx")
	default:
		e = t.log.Debug()
	}
	e.Str("component", "server").Str("request", a.RequestID).Str("peer", a.Peer).
		Str("method", a.Method).Str("path", a.Path).Int("status", a.Status).
		Str("submission", a.Submission).Int("accepted", a.Accepted).Int("bytes", a.Bytes).
		Dur("elapsed_ms", a.Elapsed).AnErr("error", a.Err).Msg("request answered")
}

// httpErrors is for net/http, which wants a *log.Logger.
func (t *teller) httpErrors() *stdlog.Logger {
	return stdlog.New(lineWriter(func(line string) {
		t.repeating(zerolog.InfoLevel, "http").Str("component", "server").Str("error", line).Msg("connection failed")
	}), "", 0)
}

type lineWriter func(line string)

func (w lineWriter) Write(p []byte) (int, error) {
	w(string(bytes.TrimSpace(p)))
	return len(p), nil
}

func (t *teller) draining(intake context.Context) {
	e := t.log.Info()
	if cause := context.Cause(intake); !errors.Is(cause, context.Canceled) {
		e = t.log.Error().Err(cause) // a part failed; the cause of a signal says so itself
	}
	e.Msg("draining")
}

// stopped is the last word of a process that has drained. A failure is told by
// whoever gets the error.
func (t *teller) stopped() { t.log.Info().Msg("stopped") }

func (t *teller) standby(shard int) {
	t.log.Info().Int("shard", shard).Msg("another process owns the shard's folder, standing by")
}

func (t *teller) owned(shard, swept int, r output.Recalled) {
	if r.Damaged > 0 || r.Foreign > 0 {
		t.log.Warn().Int("shard", shard).Int("damaged", r.Damaged).Int("foreign", r.Foreign).Str("file", r.Example).
			Msg("not every file could be read for the ids of its messages, those may be written again")
	}
	e := t.log.Info().Int("shard", shard).Int("swept", swept).Int("ids", r.IDs).Int("files", r.Files)
	if r.Adopted > 0 {
		e = e.Int("adopted", r.Adopted)
	}
	if r.Cut > 0 {
		e = e.Int64("cut_bytes", r.Cut)
	}
	e.Dur("elapsed_ms", r.Took).Msg("shard owned")
}

func (t *teller) untaken(shard int, err error, retry time.Duration) {
	t.repeating(zerolog.WarnLevel, "untaken").Int("shard", shard).Err(err).Dur("retry_ms", retry).
		Msg("the shard cannot be taken, nothing of it is consumed")
}

func (t *teller) heldLong(shard int, err error) {
	t.repeating(zerolog.WarnLevel, "held long").Int("shard", shard).Err(err).
		Msg("what could not be written goes back to the broker, taking the shard anew")
}

// unrolled tells of a file that is not published, or of a shard of which nobody
// can tell whether it has one that is due.
func (t *teller) unrolled(shard int, err error, late bool) {
	what := "the shard's file cannot be looked after"
	if late {
		what = "the file cannot be published, what is in it is durable and waits"
	}
	t.repeating(zerolog.WarnLevel, "unrolled").Int("shard", shard).Err(err).Msg(what)
}

// space tells that the output's disk runs low, or has enough again.
func (t *teller) space(dir string, low *space.LowError) {
	if low == nil {
		t.log.Info().Str("output", dir).Msg("the output's disk has enough space again")
		return
	}
	t.log.Warn().Str("output", dir).Err(low).Msg("the output's disk runs low")
}

func (t *teller) folderLost(shard int, err error) {
	t.log.Error().Int("shard", shard).Err(err).Msg("the shard's folder was taken away, taking it anew")
}

// leftover tells of a queue beyond the number of shards. One that was not there
// at the start means that the processes do not agree on it.
func (t *teller) leftover(shard, envelopes int, first bool) {
	e := t.log.Info()
	if !first {
		e = t.log.Warn().Str("reason", "another process has a larger --shards")
	}
	e.Int("shard", shard).Int("envelopes", envelopes).Msg("queue of a larger number of shards found, draining it")
}

func (t *teller) drained(shard int) {
	t.log.Info().Int("shard", shard).
		Msg("queue of a larger number of shards drained; when no process with that number runs, stop this one to delete it")
}

func (t *teller) notLooked(err error) {
	t.repeating(zerolog.WarnLevel, "look").Str("component", "message-consumer").Err(err).
		Msg("queues of a larger number of shards cannot be looked for, trying again")
}

// published tells what became of the file that a crash has left in the folder of
// a shard beyond the number of shards.
func (t *teller) published(shard int, err error) {
	if err != nil {
		t.repeating(zerolog.WarnLevel, "published").Int("shard", shard).Err(err).
			Msg("unpublished file of a larger number of shards cannot be published, trying again")
		return
	}
	t.log.Info().Int("shard", shard).Msg("unpublished file of a larger number of shards published")
}

func (t *teller) notFound(err error) {
	t.repeating(zerolog.WarnLevel, "unpublished").Err(err).
		Msg("unpublished files of a larger number of shards cannot be looked for, trying again")
}

// undecodable tells of an envelope, or a line of one, that can never be
// written. That it is a dead letter the broker notices, as it does for those
// over its delivery limit.
func (t *teller) undecodable(shard int, envelope, why string) {
	t.log.Debug().Int("shard", shard).Str("envelope", envelope).Str("error", why).Msg("envelope cannot be decoded")
}

// unburied tells of an envelope whose dead letters the broker did not take.
func (t *teller) unburied(shard int, envelope string, err error) {
	const what = "dead letters could not be kept, their envelope will come again"
	t.repeating(zerolog.WarnLevel, what).Int("shard", shard).Str("envelope", envelope).Err(err).Msg(what)
}

// event logs what a pool tells.
func (t *teller) event(e event.Event) {
	switch e := e.(type) {
	case event.WorkerStarted:
		worker(t.log.Info(), e.Worker).Str("reason", e.Worker.WhyStarted).Msg("worker started")
	case event.WorkerStopped:
		worker(t.log.Info(), e.Worker).Str("reason", e.Worker.WhyStopped).
			Int64("messages", e.Worker.Messages).Int64("batches", e.Worker.Batches).
			Int64("duplicates", e.Worker.Duplicates).Int64("dead", e.Worker.Dead).Msg("worker stopped")
	case event.WorkerTimedOut:
		worker(t.log.Warn(), e.Worker).Bool("returned", e.Returned).Msg("worker timed out")
	case event.WorkerPanicked:
		worker(t.log.Error(), e.Worker).Str("panic", fmt.Sprint(e.Value)).Bytes("stack", e.Stack).Msg("worker panicked")
	case event.MessageDied:
		worker(t.repeating(zerolog.WarnLevel, "died"), e.Worker).Str("message_id", e.ID).Err(e.Err).
			Msg("message cannot be written")
	case event.BatchWritten:
		if e.Duplicates > 0 {
			worker(t.log.Debug(), e.Worker).Int("duplicates", e.Duplicates).Msg("duplicates not written again")
		}
		if e.Messages > 0 {
			worker(t.log.Debug(), e.Worker).Int("messages", e.Messages).Int("batches", e.Batches).Str("cause", e.Cause).
				Str("file", e.File).Dur("elapsed_ms", e.Took).Msg("batch written")
		}
	case event.BatchHeld:
		worker(t.repeating(zerolog.WarnLevel, "held"), e.Worker).Int("attempt", e.Attempt).
			Err(e.Err).Dur("retry_ms", e.Retry).Msg("output cannot take the batch, holding it")
	case event.BatchReturned:
		worker(t.repeating(zerolog.WarnLevel, "returned"), e.Worker).Int("messages", e.Messages).
			Err(e.Err).Msg("batch returned to the broker")
	case event.SettleFailed:
		worker(t.repeating(zerolog.WarnLevel, "settle"), e.Worker).Err(e.Err).
			Msg("batch is written but the broker could not be told, it will deliver it again")
	}
}

func worker(e *zerolog.Event, w event.Worker) *zerolog.Event {
	return e.Str("component", "workerpool").Int("shard", w.Shard).Str("worker", w.ID)
}

// history logs the records that changed since they were last told, or all.
func (t *teller) history(workers []event.Worker, all bool) {
	told := make(map[string]event.Worker, len(workers))
	for _, w := range workers {
		told[w.ID] = w
		if all || t.told[w.ID] != w {
			t.record(w)
		}
	}
	t.told = told
}

func (t *teller) record(w event.Worker) {
	e := worker(t.log.Info(), w).Str("state", string(w.State)).Time("started", w.Started).
		Str("why_started", w.WhyStarted).Int64("messages", w.Messages).Int64("batches", w.Batches).
		Int64("duplicates", w.Duplicates).Int64("dead", w.Dead)
	if w.LastFile != "" {
		e = e.Str("file", w.LastFile)
	}
	if w.State == event.Stopped {
		e = e.Time("stopped", w.Stopped).Str("why_stopped", w.WhyStopped)
	}
	e.Msg("worker history")
}

// repeatInterval is how often one kind of trouble is told.
const repeatInterval = 10 * time.Second

// limiter lets one line per key and repeatInterval through. Keys are kinds of
// trouble, not data, so there are few.
type limiter struct {
	mu   sync.Mutex
	last map[string]repeat
}

type repeat struct {
	at         time.Time
	suppressed int
}

func (l *limiter) allow(key string, now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = make(map[string]repeat)
	}
	r, seen := l.last[key]
	if seen && now.Sub(r.at) < repeatInterval {
		r.suppressed++
		l.last[key] = r
		return 0, false
	}
	l.last[key] = repeat{at: now}
	return r.suppressed, true
}
