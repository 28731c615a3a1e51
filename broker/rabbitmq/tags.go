package rabbitmq

// tags knows which deliveries of a channel the broker still has to be told of.
// Their delivery tags count from 1, in the order in which they came.
type tags struct {
	first    uint64 // the tag of the first state; the broker was told of those before it
	states   []tagState
	gathered int // how many are acked
	lowest   int // the first of them, if any
}

// tagState is what became of a delivery.
type tagState uint8

const (
	unsettled tagState = iota
	acked              // and the broker is to be told
	told               // in a frame that is written, or will be before the next that frames makes
)

// frame is an acknowledgement as AMQP knows it: of a tag, or of all up to it
// that the broker was not told of.
type frame struct {
	tag      uint64
	multiple bool
}

// receive notes a delivery. A tag that was never seen counts as unsettled.
func (t *tags) receive(tag uint64) {
	if len(t.states) == 0 && t.first == 0 {
		t.first = 1
	}
	for t.first+uint64(len(t.states)) <= tag {
		t.states = append(t.states, unsettled)
	}
}

// ack gathers an acknowledgement, for frames.
func (t *tags) ack(tag uint64) {
	i := int(tag - t.first)
	t.states[i] = acked
	if t.gathered == 0 || i < t.lowest {
		t.lowest = i
	}
	t.gathered++
}

// tell notes that the broker was told otherwise.
func (t *tags) tell(tag uint64) { t.states[tag-t.first] = told }

// frames appends what tells the broker of all that is gathered: one frame for
// what comes before the first unsettled delivery, and one for each that follows
// it. They must be written before those of the next call.
func (t *tags) frames(to []frame) []frame {
	run, last, n := 0, 0, 0
	for ; run < len(t.states) && t.states[run] != unsettled; run++ {
		if t.states[run] == acked {
			last = run
			n++
		}
	}
	if n > 0 {
		to = append(to, frame{t.first + uint64(last), n > 1})
	}
	t.gathered -= n
	t.states = t.states[:copy(t.states, t.states[run:])]
	t.first += uint64(run)
	// Not all that came after one unsettled delivery is looked at each time.
	for i := max(t.lowest-run, 0); t.gathered > 0; i++ {
		if t.states[i] == acked {
			t.states[i] = told
			t.gathered--
			to = append(to, frame{t.first + uint64(i), false})
		}
	}
	return to
}
