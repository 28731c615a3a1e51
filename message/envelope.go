package message

import (
	"errors"
	"sync"
)

// MaxEnvelopeBytes bounds an envelope's body, so that it fits the default
// limits of every engine.
const MaxEnvelopeBytes = 512 << 10

// MaxEnvelopeMessages is how many messages an envelope of ours has at most: as many of
// the shortest lines as fit.
const MaxEnvelopeMessages = MaxEnvelopeBytes / len(`{"message_id":"01JD8Y6G5V3X9Q2R7T4B1C0D5E.0","timestamp":"2019-10-12T08:10:54Z"}`+"\n")

// Envelope is what travels through the broker: some messages of one shard,
// published and acknowledged together.
type Envelope struct {
	// ID is a ULID; a retried publish keeps it.
	ID string
	// Shard is the shard whose queue carries the envelope.
	Shard int
	// Count is the number of messages in Body.
	Count int
	// Body holds the messages' lines, each ended by a newline.
	Body []byte
	// Foreign marks an envelope that another program published: Body is one
	// entry without a message_id, ID whatever that program chose, if anything.
	Foreign bool
	// Attributes travel with the envelope. Programs that do not know one ignore it.
	// Package broker says how large they may be.
	Attributes map[string]string
}

// Outcome is what became of a delivery or of some of its messages. The order
// of the kinds is their weight: a delivery settles with the heaviest outcome
// of its messages.
type Outcome struct {
	Kind OutcomeKind
	// Reason says why, for DeadLetter and for logs.
	Reason string
	// Dead are the messages that DeadLetter is about, the envelope's others
	// being durable; none means the whole envelope.
	Dead []Dead
}

// Dead is a message of an envelope that can never be written.
type Dead struct {
	// Line is the message as it came, without the final newline.
	Line []byte
	// Reason says why.
	Reason string
}

// ID is the message's id, or empty if the line has none that every engine can
// carry.
func (d Dead) ID() string {
	if id := (Message{Line: d.Line}).ID(); validForeignID(id) {
		return id
	}
	return ""
}

// OutcomeKind is one of Ack, DeadLetter and Return.
type OutcomeKind uint8

const (
	// Ack: the messages are durable in a file; the broker may forget them.
	Ack OutcomeKind = iota
	// DeadLetter: the envelope can never be written; keep it apart, with the reason.
	DeadLetter
	// Return: not written; deliver it again.
	Return
)

func (k OutcomeKind) String() string {
	switch k {
	case Ack:
		return "ack"
	case DeadLetter:
		return "dead-letter"
	default:
		return "return"
	}
}

// Delivery is an envelope received from the broker, with the right to settle
// it once. A delivery whose messages went into several batches settles when
// the last of them is resolved.
type Delivery struct {
	Envelope
	// Redelivered tells that the broker handed this envelope out before.
	Redelivered bool
	// Ticket is for the user of OnSettle, who finds there what belongs to the delivery.
	Ticket int

	settle func(Outcome) error
	around Settler // nil if not hooked

	mu      sync.Mutex // guards what follows
	held    int        // messages in all; set by Expect
	open    int        // of them, not yet resolved
	worst   Outcome    // but for its Dead
	dead    []Dead
	whole   bool // a dead letter named no messages
	settled bool
}

// ErrSettled is returned when a delivery is settled a second time.
var ErrSettled = errors.New("delivery is already settled")

// NewDelivery couples an envelope with the broker's way to settle it. The
// delivery calls settle at most once, from any goroutine.
func NewDelivery(e Envelope, redelivered bool, settle func(Outcome) error) *Delivery {
	return &Delivery{Envelope: e, Redelivered: redelivered, settle: settle}
}

// Settle tells the broker the outcome of the whole delivery. The error says
// that the broker could not be told; it will deliver the envelope again.
func (d *Delivery) Settle(o Outcome) error {
	d.mu.Lock()
	if d.settled {
		d.mu.Unlock()
		return ErrSettled
	}
	d.settled = true
	d.mu.Unlock()
	return d.tell(o)
}

// Settler is called in place of telling the broker a delivery's outcome. It gets
// the way to tell the broker, which it calls once, now or later.
type Settler func(d *Delivery, o Outcome, tell func(Outcome) error) error

// OnSettle sets what settles the delivery, before it is settled or resolved.
func (d *Delivery) OnSettle(around Settler) { d.around = around }

func (d *Delivery) tell(o Outcome) error {
	if d.around != nil {
		return d.around(d, o, d.settle)
	}
	return d.settle(o)
}

// Expect announces that the delivery's n messages will be resolved one batch
// after the other. It is called once, before the first Resolve.
func (d *Delivery) Expect(n int) {
	d.mu.Lock()
	d.held, d.open = n, n
	d.mu.Unlock()
}

// Resolve records the outcome of n of the delivery's messages; DeadLetter names
// them in Dead, or else is about the whole envelope. The call that resolves the
// last one settles the delivery with the heaviest outcome. So an envelope with a
// message to return comes again as a whole. Then its written messages are
// duplicates, and its dead messages are found to be dead again.
func (d *Delivery) Resolve(n int, o Outcome) error {
	d.mu.Lock()
	if o.Kind > d.worst.Kind {
		d.worst = Outcome{Kind: o.Kind, Reason: o.Reason}
	}
	d.dead = append(d.dead, o.Dead...)
	d.whole = d.whole || o.Kind == DeadLetter && len(o.Dead) == 0
	d.open -= n
	if d.open > 0 {
		d.mu.Unlock()
		return nil
	}
	settled, result := d.settled, d.result()
	d.settled = true
	d.mu.Unlock()
	if settled {
		return ErrSettled
	}
	return d.tell(result)
}

// result is the outcome of the resolved messages. A dead message that was alone
// in its envelope is not taken out of it, so that its bytes stay as they came.
// mu is held.
func (d *Delivery) result() Outcome {
	o := d.worst
	if o.Kind == DeadLetter && d.held > 1 && !d.whole {
		o.Dead = d.dead
	}
	return o
}
