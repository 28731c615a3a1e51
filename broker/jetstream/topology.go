package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/broker"
	"async-data-processor/broker/conn"
	"async-data-processor/event"
)

// Names, a contract with other programs.
const (
	// ShardStream holds the envelopes of all shards.
	ShardStream = "ASYNC_DATA_PROCESSOR"
	// subjectPrefix and the shard's number make its subject.
	subjectPrefix = "async-data-processor.shard."
	// consumerPrefix and the shard's number name its durable consumer.
	consumerPrefix = "shard-"
	// group is the priority group whose pinned client is the only consumer. The
	// server takes names of up to 16 characters.
	group = "owner"
	// DeadStream holds the dead letters of all shards, apart from the shards'
	// stream: a work queue would forget them when they were read once, and
	// purging or limiting the one must not touch the other.
	DeadStream  = "ASYNC_DATA_PROCESSOR_DEAD"
	deadSubject = "async-data-processor.dead"
	// envelopeType marks our own envelopes in typeHeader. What has another type
	// was published by another program.
	envelopeType = "async-data-processor.envelope.v1"
	contentType  = "application/x-ndjson"
)

// Headers of an envelope. Beside them the server's own Nats-Msg-Id, by which a
// stream recognises a retried publish, is the shard and the id; of another
// program's message it is the id, unless that is a replayed dead letter.
const (
	idHeader          = "id"
	typeHeader        = "type"
	contentTypeHeader = "content-type"
	// countHeader is the number of messages in an envelope.
	countHeader = "count"
	// attributesHeader is there if the envelope has attributes: their text, as
	// package broker encodes them.
	attributesHeader = "attributes"
)

// Headers of a dead letter, beside those above.
const (
	reasonHeader  = "reason"  // why, as text
	shardHeader   = "shard"   // number of the shard it came from
	subjectHeader = "subject" // subject it was published to
	timeHeader    = "time"    // when it was moved, RFC 3339
	// envelopeHeader is the id of the envelope that a single message was of.
	envelopeHeader = "envelope"
)

// headerRoom is what the headers of an envelope or dead letter take at most, in
// bytes: the ids and types of another program, our reason, and the attributes.
const headerRoom = 4<<10 + broker.MaxAttributesBytes

// dedupe is how long a stream remembers an id. A publish is retried within
// seconds; later ones meet the ids behind the broker.
const dedupe = 2 * time.Minute

func subjectOf(shard int) string { return subjectPrefix + strconv.Itoa(shard) }

// retryID is what retries of a publish have in common. It holds the shard, since
// all shards share the stream and the id might be used in two.
func retryID(shard int, id string) string { return strconv.Itoa(shard) + "." + id }

// replayPrefix begins what takes its place in a replayed dead letter, also
// in one that another program published.
const replayPrefix = "async-data-processor.replay."

func consumerOf(shard int) string { return consumerPrefix + strconv.Itoa(shard) }

// shards is the stream of all shards. Its subject is a wildcard, because
// another number of shards must not need a change of the stream, which a full
// disk refuses.
func (b *Broker) shards() jetstream.StreamConfig {
	consumers := 0 // the server's default
	if b.cfg.Shards > fewShards {
		consumers = maxShards
	}
	return jetstream.StreamConfig{
		Name:        ShardStream,
		Description: "envelopes of async-data-processor, one subject per shard",
		Subjects:    []string{subjectPrefix + "*"},
		Retention:   jetstream.WorkQueuePolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		Replicas:    b.cfg.Replicas,
		Duplicates:  dedupe,

		MaxConsumers: consumers,
	}
}

// fewShards is how many a stream has room for by default: nats-server 2.15 allows
// 1,000 consumers where neither stream nor account has a limit. A larger limit is not
// asked for without need, since an account may have a smaller one.
const fewShards = 1000

// deadLetters is the stream at the end of the line: what it dropped would be
// lost, so it refuses instead, and the envelope stays in its shard.
func (b *Broker) deadLetters() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        DeadStream,
		Description: "dead letters of async-data-processor",
		Subjects:    []string{deadSubject},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		Replicas:    b.cfg.Replicas,
		Duplicates:  dedupe,
	}
}

// consumer is the shard's durable consumer. It knows no delivery limit, at
// which JetStream would just stop delivering.
func (b *Broker) consumer(shard int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:        consumerOf(shard),
		FilterSubject:  subjectOf(shard),
		DeliverPolicy:  jetstream.DeliverAllPolicy,
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        b.timing.ackWait,
		MaxDeliver:     -1,
		MaxAckPending:  -1, // what is unsettled is bounded here, by the prefetch
		PriorityPolicy: jetstream.PriorityPolicyPinned,
		PriorityGroups: []string{group},
		PinnedTTL:      b.timing.pin,
	}
}

// ensure makes sure that the streams exist as they have to be. They are looked
// up first: creating them again writes their metadata, which fails on a full
// disk, and so would draining it.
func (s *session) ensure() error {
	ctx, cancel := context.WithTimeout(s.broker.conns.Context(), s.broker.timing.rpc)
	defer cancel()
	b := s.broker
	subjects := make([]string, b.cfg.Shards)
	for shard := range subjects {
		subjects[shard] = subjectOf(shard)
	}
	if err := s.ensureStream(ctx, b.shards(), subjects); err != nil {
		return err
	}
	return s.ensureStream(ctx, b.deadLetters(), []string{deadSubject})
}

func (s *session) ensureStream(ctx context.Context, want jetstream.StreamConfig, subjects []string) error {
	known := s.broker.known(want.Name)
	stream, err := s.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if known {
			s.broker.conns.Send(event.QueueLost{Name: want.Name})
		}
		stream, err = s.js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // by another process, just now
			stream, err = s.js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return clarified(fmt.Errorf("the stream %s: %w", want.Name, err))
	}
	s.broker.know(want.Name)
	if field := conflict(stream.CachedInfo().Config, want, subjects); field != "" {
		return conn.Refused(fmt.Errorf("the stream %s exists with another configuration: %s; "+
			"change it at the server, or drain and delete the stream, which is then created anew", want.Name, field))
	}
	return nil
}

// known tells whether a stream was there before.
func (b *Broker) known(stream string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.streams[stream]
}

func (b *Broker) know(stream string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.streams[stream] = true
}

// ensureConsumer makes sure that the shard's consumer exists as it has to be.
func (s *session) ensureConsumer(ctx context.Context, shard int) (*jetstream.ConsumerInfo, error) {
	want := s.broker.consumer(shard)
	c, err := s.js.Consumer(ctx, ShardStream, want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c, err = s.js.CreateConsumer(ctx, ShardStream, want)
		if errors.Is(err, jetstream.ErrConsumerExists) {
			c, err = s.js.Consumer(ctx, ShardStream, want.Durable)
		}
	}
	if err != nil {
		return nil, clarified(fmt.Errorf("the consumer %s of the stream %s: %w", want.Durable, ShardStream, err))
	}
	if field := consumerConflict(c.CachedInfo().Config, want); field != "" {
		return nil, otherConsumer(want.Durable, field)
	}
	return c.CachedInfo(), nil
}

// otherConsumer refuses a consumer because of a field.
func otherConsumer(name, field string) error {
	return conn.Refused(fmt.Errorf("the consumer %s of the stream %s exists with another configuration: %s; "+
		"delete it, it is then created anew and no envelope is lost", name, ShardStream, field))
}

// clarified makes an answer a refusal if only an operator can change it,
// and says what no answer means.
func clarified(err error) error {
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("JetStream does not answer, it is not enabled or has no leader: %w", err)
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return err
	}
	switch api.ErrorCode {
	case jetstream.JSErrCodeMaximumConsumersLimit:
		return conn.Refused(fmt.Errorf("%w: raise max_consumers of the stream or of the account, each shard is a consumer", err))
	case codeOverlap, codeNotUnique, codeNoReplicas:
		return conn.Refused(err)
	default:
		return err
	}
}

// The server's error codes that the library has no names for
// (nats-server/server/errors.json).
const (
	codeOverlap    jetstream.ErrorCode = 10065 // another stream has the subjects
	codeNoReplicas jetstream.ErrorCode = 10074 // replicas without a cluster
	codeNotUnique  jetstream.ErrorCode = 10100 // another consumer of the work queue has the subject

	codeAccountFull jetstream.ErrorCode = 10002 // the account's limits
	codeNoResources jetstream.ErrorCode = 10023 // the server's limits, or a failed disk
	codeMemoryFull  jetstream.ErrorCode = 10028
	codeStorageFull jetstream.ErrorCode = 10047
	codeStoreFailed jetstream.ErrorCode = 10077 // the stream's limits, or its file
	codeInProcess   jetstream.ErrorCode = 10158 // an earlier publish of the same id is under way
)
