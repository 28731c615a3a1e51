package embedded

import (
	"encoding/binary"
	"maps"
	"slices"
)

// progress is what a consumer's state file says: what it was delivered and has
// acknowledged. Messages have a sequence in the stream, and a place among the
// consumer's deliveries.
type progress struct {
	ackedPlace, acked         uint64 // all up to here are acknowledged
	deliveredPlace, delivered uint64 // the last delivery
	pending                   map[uint64]inHand
	again                     []recount
}

// inHand is a delivery that was not settled.
type inHand struct {
	place uint64 // of the first delivery
	at    int64  // Unix time of the last in seconds; the acknowledgement is waited for from then on
}

// recount is how often a message was delivered again.
type recount struct {
	distance uint64 // of its sequence from progress.acked
	times    uint64
}

const (
	stateMagic   = 22
	stateVersion = 2
)

// readProgress reads a state (the server's store.go, encodeConsumerState);
// false if it is none that the server writes. What has no checksum is held to
// all that is true of each: deliveries are numbered in the order of the
// stream, and nothing is pending that was acknowledged or not delivered. A
// place that is not in order would let the server forget a message.
func readProgress(state []byte) (p progress, ok bool) {
	if len(state) < 2 || state[0] != stateMagic || state[1] != stateVersion {
		return p, false
	}
	state, ok = state[2:], true
	number := func() uint64 {
		v, n := binary.Uvarint(state)
		if n <= 0 {
			ok, state = false, nil
			return 0
		}
		state = state[n:]
		return v
	}
	p.ackedPlace, p.acked = number(), number()
	p.deliveredPlace, p.delivered = number(), number()
	count := number()
	// The server makes room for this many before it looks for them.
	if !ok || p.acked > p.delivered || p.ackedPlace > p.deliveredPlace || count > uint64(len(state)) {
		return p, false
	}
	var base int64
	if count > 0 {
		base = signed(number())
	}
	p.pending = make(map[uint64]inHand, count)
	for range count {
		sequence, place, age := number(), number(), signed(number())
		if sequence == 0 || sequence > p.delivered-p.acked || place == 0 || place > p.deliveredPlace-p.ackedPlace {
			return p, false
		}
		at := base - age
		if at < 0 { // the server would overflow
			return p, false
		}
		p.pending[p.acked+sequence] = inHand{p.ackedPlace + place, at}
	}
	if uint64(len(p.pending)) < count || !p.inOrder() {
		return p, false
	}
	count = number()
	if count > uint64(len(state)) {
		return p, false
	}
	for range count {
		p.again = append(p.again, recount{number(), number()})
	}
	return p, ok && len(state) == 0
}

func (p *progress) inOrder() bool {
	last := uint64(0)
	for _, sequence := range slices.Sorted(maps.Keys(p.pending)) {
		place := p.pending[sequence].place
		if place <= last {
			return false
		}
		last = place
	}
	return true
}

// clampFuture moves to now what says that it was delivered later, and would be
// waited for until then. It returns whether there was any.
func (p *progress) clampFuture(now int64) (changed bool) {
	for sequence, d := range p.pending {
		if d.at > now {
			d.at = now
			p.pending[sequence] = d
			changed = true
		}
	}
	return changed
}

// encode is the reverse of readProgress.
func (p *progress) encode() []byte {
	state := []byte{stateMagic, stateVersion}
	number := func(n uint64) { state = binary.AppendUvarint(state, n) }
	number(p.ackedPlace)
	number(p.acked)
	number(p.deliveredPlace)
	number(p.delivered)
	number(uint64(len(p.pending)))
	if len(p.pending) > 0 {
		state = binary.AppendVarint(state, 0) // what ages are counted back from
	}
	for sequence, d := range p.pending {
		number(sequence - p.acked)
		number(d.place - p.ackedPlace)
		state = binary.AppendVarint(state, -d.at)
	}
	number(uint64(len(p.again)))
	for _, r := range p.again {
		number(r.distance)
		number(r.times)
	}
	return state
}

// signed undoes the encoding of a signed number as an unsigned one
// (encoding/binary, Varint).
func signed(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
