package rabbitmq

// ledger knows which deliveries of a channel the broker still has to be told of.
// Their tags count from 1, in the order in which they came.
type ledger struct {
	first    uint64 // the tag of the first fate; those before it are told
	fates    []fate
	gathered int // how many are acked
	lowest   int // the first of them, if any
}

// fate is what became of a delivery.
type fate uint8

const (
	held  fate = iota
	acked      // and the broker is to be told
	told       // in a frame that is written, or will be before the next that frames makes
)

// frame is an acknowledgement as AMQP knows it: of a tag, or of all up to it
// that the broker was not told of.
type frame struct {
	tag      uint64
	multiple bool
}

// receive notes a delivery. A tag that was never seen counts as held.
func (l *ledger) receive(tag uint64) {
	if len(l.fates) == 0 && l.first == 0 {
		l.first = 1
	}
	for l.first+uint64(len(l.fates)) <= tag {
		l.fates = append(l.fates, held)
	}
}

// ack gathers an acknowledgement, for frames.
func (l *ledger) ack(tag uint64) {
	i := int(tag - l.first)
	l.fates[i] = acked
	if l.gathered == 0 || i < l.lowest {
		l.lowest = i
	}
	l.gathered++
}

// tell notes that the broker was told otherwise.
func (l *ledger) tell(tag uint64) { l.fates[tag-l.first] = told }

// frames appends what tells the broker of all that is gathered: one frame for
// what comes before the first delivery in hand, and one for each that follows
// it. They must be written before those of the next call.
func (l *ledger) frames(to []frame) []frame {
	run, last, n := 0, 0, 0
	for ; run < len(l.fates) && l.fates[run] != held; run++ {
		if l.fates[run] == acked {
			last = run
			n++
		}
	}
	if n > 0 {
		to = append(to, frame{l.first + uint64(last), n > 1})
	}
	l.gathered -= n
	l.fates = l.fates[:copy(l.fates, l.fates[run:])]
	l.first += uint64(run)
	// Not all that came after one delivery in hand is looked at each time.
	for i := max(l.lowest-run, 0); l.gathered > 0; i++ {
		if l.fates[i] == acked {
			l.fates[i] = told
			l.gathered--
			to = append(to, frame{l.first + uint64(i), false})
		}
	}
	return to
}
