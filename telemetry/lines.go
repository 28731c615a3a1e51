package telemetry

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"async-data-processor/event"
)

// Tell logs an event: the one of these that knows it does. After Close it is for what the
// hub does not tell any more.
func (l *Log) Tell(e event.Event) {
	l.process(e)
	l.request(e)
	l.broker(e)
	l.shard(e)
	tellCommand(l, e)
	tellDeadLetters(l, e)
	l.extraShard(e)
	tellFiles(l, e)
	tellNode(l, e)
	tellJobs(l, e)
	l.worker(e)
	l.batch(e)
}

func (l *Log) process(e event.Event) {
	switch e := e.(type) {
	case event.Started:
		if e.Shards > fewShards {
			l.many = true
		}
		line := l.line(l.routine, place{component: e.Component, shard: -1})
		if e.Addr != "" {
			line = line.Str("addr", e.Addr)
		}
		if e.Broker != "" {
			line = line.Str("broker", e.Broker).Int("shards", e.Shards)
		}
		switch e.Component {
		case "server":
			line = line.Int("tokens", e.Tokens)
		case "message-consumer":
			line = line.Str("output", e.Output)
		}
		what := e.Component
		if what == "admin" {
			what = "health endpoints"
		}
		line.Msg(what + " started")
		if e.Open {
			l.line(zerolog.WarnLevel, place{component: e.Component, shard: -1}).Str("addr", e.Addr).
				Msg("other machines can reach this address and no token protects it, as --insecure-no-auth accepts")
		}
	case event.ControlFailed:
		l.line(zerolog.WarnLevel, place{component: "broker", shard: -1}).Err(e.Err).Msg("no control socket, so no command reaches the dead letters of this process")
	case event.FolderInMemory:
		l.line(zerolog.WarnLevel, place{component: e.Component, shard: -1}).Str("folder", e.Dir).
			Msg("the folder is on a file system in memory, so a restart of the machine loses what is in it")
	case event.CertificateLoaded:
		l.certificate(e)
	case event.Draining:
		line := l.logger.Info()
		if e.Cause != nil {
			line = l.logger.Error().Err(e.Cause) // a part failed
		}
		line.Msg("draining")
	case event.Drained:
		text := "stopped"
		if l.people {
			text = "drained: " + l.done.tally().text(l.done.rolls.Load(), true)
		}
		l.logger.Info().Msg(text)
	}
}

var ofServer = place{component: "server", shard: -1}

func (l *Log) certificate(e event.CertificateLoaded) {
	level, what := zerolog.InfoLevel, "certificate loaded"
	switch {
	case e.Err != nil:
		level, what = zerolog.WarnLevel, "cannot take the changed certificate, keeping the one before"
	case time.Now().After(e.Expires):
		level, what = zerolog.WarnLevel, "certificate loaded, but it has expired"
	}
	l.line(level, ofServer).AnErr("error", e.Err).Time("expires", e.Expires).Msg(what)
}

func (l *Log) request(e event.Event) {
	switch e := e.(type) {
	case event.Submitted:
		request(l.line(zerolog.DebugLevel, ofServer), e.Request).
			Str("submission", e.Submission).Int("accepted", e.Accepted).Msg("request answered")
	case event.Served:
		request(l.line(zerolog.DebugLevel, ofServer), e.Request).Msg("request answered")
	case event.Refused:
		var line *zerolog.Event
		switch {
		case e.Stack != nil:
			line = l.line(zerolog.ErrorLevel, ofServer).Bytes("stack", e.Stack)
		case e.Status >= 500:
			line = l.repeating(zerolog.WarnLevel, fmt.Sprint("request 5xx ", e.Kind), ofServer)
		default:
			line = l.repeating(zerolog.InfoLevel, fmt.Sprint("request 4xx ", e.Kind), ofServer)
		}
		request(line, e.Request).Str("submission", e.Submission).Msg("request answered")
	case event.Probed:
		// Probes come every few seconds; only the first and what changes is worth a line.
		level := zerolog.DebugLevel
		if e.Readiness && e.Status != l.status {
			l.status, level = e.Status, l.routine
		}
		request(l.line(level, ofServer), e.Request).Msg("health checked")
	case event.SocketClosed:
		request(l.line(zerolog.DebugLevel, ofServer), e.Request).
			Int("code", e.Code).Str("reason", e.Reason).Int("frames", e.Frames).Msg("WebSocket closed")
	case event.ConnectionFailed:
		l.repeating(zerolog.InfoLevel, "http", ofServer).Err(e.Err).Msg("connection failed")
	}
}

func request(line *zerolog.Event, r event.Request) *zerolog.Event {
	return line.Str("request", r.ID).Str("peer", r.Peer).
		Str("method", r.Method).Str("path", r.Path).Int("status", r.Status).Int("bytes", r.Bytes).
		Dur("elapsed_ms", r.Elapsed).AnErr("error", r.Err)
}

func (l *Log) broker(e event.Event) {
	at := place{component: "broker", shard: -1}
	switch e := e.(type) {
	case event.Connection:
		l.connection(e)
	case event.DeadLettered:
		at.shard = e.Shard
		line := l.repeating(zerolog.WarnLevel, fmt.Sprint("dead-lettered ", e.Shard), at).Err(e.Err)
		if e.Envelope != "" {
			line = line.Str("envelope", e.Envelope)
		}
		line.Msg("dead-lettered")
	case event.DeadLetterFailed:
		at.shard = e.Shard
		text := "dead letter cannot be kept, the broker will deliver the envelope again"
		if e.Retry > 0 {
			text = "dead letter cannot be kept, the envelope waits for the dead-letter queue"
		}
		line := l.repeating(zerolog.WarnLevel, fmt.Sprint(text, " ", e.Shard), at).Err(e.Err)
		if e.Retry > 0 {
			line = line.Dur("retry_ms", e.Retry)
		}
		if e.Envelope != "" {
			line = line.Str("envelope", e.Envelope)
		}
		line.Msg(text)
	case event.StoreCreated:
		l.line(zerolog.InfoLevel, at).Str("dir", e.Dir).Msg("there was no broker store, made a new, empty one")
	case event.PoliciesUnknown:
		const text = "cannot ask the management API for policies that throw messages away, trying again"
		l.repeating(zerolog.WarnLevel, text, at).Err(e.Err).Msg(text)
	case event.QueueLost:
		const text = "a queue was deleted, and what was in it is lost; making it again"
		l.repeating(zerolog.ErrorLevel, text+" "+e.Name, at).Str("queue", e.Name).Msg(text)
	case event.StoreChecked:
		l.line(zerolog.InfoLevel, at).Str("dir", e.Dir).Int64("checked", e.Done).Int64("envelopes", e.Total).Msg("checking the broker's store")
	}
}

func (l *Log) shard(e event.Event) {
	switch e := e.(type) {
	case event.ShardChanged:
		l.shardChanged(e)
	case event.ShardOpened:
		if e.Damaged > 0 || e.Foreign > 0 {
			l.line(zerolog.WarnLevel, ofShard(e.Shard)).Int("damaged", e.Damaged).Int("foreign", e.Foreign).Str("file", e.Example).
				Msg("cannot read the ids of some files, their messages may be written again")
		}
		line := l.line(l.each(), ofShard(e.Shard)).Int("removed_temps", e.RemovedTemps).Int("ids", e.IDs).Int("files", e.Files)
		if e.Beforehand > 0 {
			line = line.Int("files_beforehand", e.Beforehand)
		}
		if e.Recovered > 0 {
			line = line.Int("recovered", e.Recovered)
		}
		if e.CutBytes > 0 {
			line = line.Int64("cut_bytes", e.CutBytes)
		}
		line.Dur("elapsed_ms", e.Took).Msg("shard owned")
	case event.ShardsOpened:
		if l.many {
			l.line(l.routine, ofShard(-1)).Int("shards", e.Shards).Int("owned", e.Owned).Int("standby", e.Standby).
				Dur("elapsed_ms", e.Took).Msg("shards owned")
		}
	case event.FileOverdue:
		text := "cannot check whether the open file is due"
		if e.Durable {
			text = "cannot publish the open file, what is in it is durable and waits"
		}
		level := zerolog.WarnLevel
		if e.Damaged {
			text, level = "the open file was removed or changed by another program, acknowledged entries are missing", zerolog.ErrorLevel
		}
		l.repeating(level, "file overdue", ofShard(e.Shard)).Err(e.Err).Msg(text)
	case event.FileRescued:
		l.repeating(zerolog.WarnLevel, "file rescued", ofShard(e.Shard)).Str("file", e.File).Int64("bytes", e.Bytes).
			Msg("another program removed or replaced the open file, wrote its acknowledged entries anew")
	case event.OutputChanged:
		l.outputChanged(e)
	case event.EnvelopeUndecodable:
		l.line(zerolog.DebugLevel, ofShard(e.Shard)).Str("envelope", e.Envelope).Err(e.Err).Msg("envelope cannot be decoded")
	}
}

func (l *Log) outputChanged(e event.OutputChanged) {
	text, again := "the output folder cannot be used", "the output folder can be used again"
	if e.Low {
		text, again = "the output's disk runs low", "the output's disk has enough space again"
	}
	if e.Err == nil {
		l.line(zerolog.InfoLevel, ofShard(-1)).Str("output", e.Dir).Msg(again)
		return
	}
	l.line(zerolog.WarnLevel, ofShard(-1)).Str("output", e.Dir).Err(e.Err).Msg(text)
}

func (l *Log) shardChanged(e event.ShardChanged) {
	switch e.State {
	case event.ShardOpening:
		if e.Err != nil {
			l.line(zerolog.WarnLevel, ofShard(e.Shard)).Err(e.Err).Msg("gave the shard's folder back, opening it again")
		}
	case event.ShardStandby:
		l.line(zerolog.InfoLevel, ofShard(e.Shard)).Msg("another process owns the shard's folder, standing by")
	case event.ShardRetrying:
		l.repeating(zerolog.WarnLevel, "shard retrying", ofShard(e.Shard)).Err(e.Err).Dur("retry_ms", e.Retry).
			Msg("cannot open the shard, consuming nothing of it")
	case event.ShardReturning:
		l.repeating(zerolog.WarnLevel, fmt.Sprint("shard returning", e.Shard), ofShard(e.Shard)).Err(e.Err).
			Msg("returning the messages to the broker, then reopening the shard")
	case event.ShardStopped:
		if e.Err != nil {
			l.line(zerolog.WarnLevel, ofShard(e.Shard)).Err(e.Err).Msg("shard stopped with an error")
			return
		}
		l.line(zerolog.DebugLevel, ofShard(e.Shard)).Msg("shard stopped")
	}
}

func (l *Log) extraShard(e event.Event) {
	switch e := e.(type) {
	case event.ExtraShardFound:
		line := l.line(zerolog.InfoLevel, ofShard(e.Shard))
		if !e.AtStart { // the processes do not agree on the number
			line = l.line(zerolog.WarnLevel, ofShard(e.Shard)).Str("reason", "another process has a larger --shards")
		}
		line.Int("envelopes", e.Envelopes).Msg("found a queue beyond SHARDS_COUNT, draining it")
	case event.ExtraShardDrained:
		l.line(zerolog.InfoLevel, ofShard(e.Shard)).
			Msg("drained a queue beyond SHARDS_COUNT; when no process with that number runs, stop this one to delete it")
	case event.LeftFile:
		if e.Err == nil {
			l.line(zerolog.InfoLevel, ofShard(e.Shard)).Msg("published the open file of a shard beyond SHARDS_COUNT")
			return
		}
		l.repeating(zerolog.WarnLevel, "left file", ofShard(e.Shard)).Err(e.Err).
			Msg("cannot publish the open file of a shard beyond SHARDS_COUNT, trying again")
	case event.LookFailed:
		l.repeating(zerolog.WarnLevel, "look "+e.What, ofShard(-1)).Err(e.Err).
			Msg("cannot look for " + e.What + " beyond SHARDS_COUNT, trying again")
	}
}

func (l *Log) worker(e event.Event) {
	switch e := e.(type) {
	case event.WorkerStarted:
		l.line(l.each(), ofWorker(e.Worker)).Str("reason", e.Worker.WhyStarted).Msg("worker started")
	case event.WorkerStopped:
		l.line(l.each(), ofWorker(e.Worker)).Str("reason", e.Worker.WhyStopped).
			Int64("messages", e.Worker.Messages).Int64("batches", e.Worker.Batches).
			Int64("duplicates", e.Worker.Duplicates).Int64("dead", e.Worker.Dead).Msg("worker stopped")
	case event.WorkerTimedOut:
		l.line(zerolog.WarnLevel, ofWorker(e.Worker)).Bool("returned", e.Returned).Msg("worker timed out")
	case event.WorkerPanicked:
		l.line(zerolog.ErrorLevel, ofWorker(e.Worker)).Str("panic", fmt.Sprint(e.Value)).Bytes("stack", e.Stack).Msg("worker panicked")
	}
}

func (l *Log) batch(e event.Event) {
	switch e := e.(type) {
	case event.BatchWritten:
		if e.Duplicates > 0 {
			l.line(zerolog.DebugLevel, ofWorker(e.Worker)).Int("duplicates", e.Duplicates).Msg("duplicates not written again")
		}
		if e.Messages > 0 {
			l.line(zerolog.DebugLevel, ofWorker(e.Worker)).Int("messages", e.Messages).Int("batches", e.Batches).Str("cause", e.Cause).
				Str("file", e.File).Dur("elapsed_ms", e.Took).Msg("batch written")
		}
	case event.BatchHeld:
		l.repeating(zerolog.WarnLevel, "batch held", ofWorker(e.Worker)).Int("attempt", e.Attempt).
			Err(e.Err).Dur("retry_ms", e.Retry).Msg("cannot write the batch, keeping it and trying again")
	case event.BatchReturned:
		l.repeating(zerolog.WarnLevel, "batch returned", ofWorker(e.Worker)).Int("messages", e.Messages).
			Err(once(e.Err)).Msg("batch returned to the broker")
	case event.MessageDied:
		l.repeating(zerolog.WarnLevel, "message died", ofWorker(e.Worker)).Str("message_id", e.ID).Err(once(e.Err)).
			Msg("message cannot be written")
	case event.SettleFailed:
		l.repeating(zerolog.WarnLevel, "settle failed", ofWorker(e.Worker)).Err(once(e.Err)).
			Msg("batch is written but the broker could not be told, it will deliver it again")
	}
}

// once returns an error in which each line of err is once, and few are. A lost
// connection fails the settle of each delivery in a batch, all for the same reason.
func once(err error) error {
	const few = 5
	if err == nil {
		return nil
	}
	var texts []string
	times, others := map[string]int{}, 0
	for text := range strings.SplitSeq(err.Error(), "\n") {
		switch {
		case times[text] > 0:
		case len(texts) < few:
			texts = append(texts, text)
		default:
			others++
			continue
		}
		times[text]++
	}
	for i, text := range texts {
		if n := times[text]; n > 1 {
			texts[i] = fmt.Sprintf("%s (%d times)", text, n)
		}
	}
	if others > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", others))
	}
	return errors.New(strings.Join(texts, "\n"))
}
