package bus

const (
	// maxWaiting and maxWaitingBytes bound what waits for one receiver.
	maxWaiting      = 1000
	maxWaitingBytes = 8 << 20
)

// item is a message that waits.
type item struct {
	body  []byte
	reply func(answer []byte) // of a question
}

// queue is what waits for one receiver. Its user holds a lock.
type queue struct {
	items  []item // the oldest first
	bytes  int
	missed int  // how many were dropped since the last take
	begun  bool // the receiver is to be told first that it hears from here on
}

// add makes room by dropping the oldest.
func (q *queue) add(it item) {
	q.items = append(q.items, it)
	q.bytes += len(it.body)
	for len(q.items) > maxWaiting || q.bytes > maxWaitingBytes {
		q.pop()
		q.missed++
	}
}

// begin forgets what waits: the receiver is about to hear everything anew.
func (q *queue) begin() { *q = queue{begun: true} }

func (q *queue) empty() bool { return len(q.items) == 0 && !q.begun }

func (q *queue) pop() item {
	it := q.items[0]
	q.items[0] = item{} // its body can go
	q.items = q.items[1:]
	q.bytes -= len(it.body)
	return it
}
