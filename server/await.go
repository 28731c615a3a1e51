package server

import "async-data-processor/message"

// Waiter is the server's view of what knows which messages are in files. Its methods
// may be called concurrently, and must not block.
type Waiter interface {
	// Await begins to watch the messages of a client's submission. It is called before the
	// submission is published, so that nothing is missed: what happens after Await is told,
	// also what happened to an earlier submission with the same id.
	//
	// told is called at most once: when each of the messages is written or dead. That may be
	// before Await returns, or before the submission's Submit does. It is called on a
	// goroutine of the Waiter, and returns soon.
	//
	// Await returns false, and watches nothing, if it watches as many as it may: 10,000
	// in a process, 5,000 of them of one client, as ClientKey tells clients apart. Else End
	// is called, at least once, whatever becomes of the submission.
	Await(id, client string, told func(Progress)) (w Waiting, ok bool)
}

// Waiting is the watch of one submission. After End its methods do nothing.
type Waiting interface {
	// Accepted tells that the submission is published, and which shards have how many
	// of its messages, in the order of the shards. It is not called for a submission that
	// failed. The slice must not be changed.
	Accepted(shards []message.ShardCount)
	// Progress returns what is known now. It never goes back.
	Progress() Progress
	// End ends the watch, and frees what it holds. A call of told that has begun may end
	// after it.
	End()
}

// Progress is how far the messages of a submission have come.
type Progress struct {
	// Written is how many are durable in a file, and Dead how many are dead letters.
	Written, Dead int
	// Done tells that there are no others.
	Done bool
}
