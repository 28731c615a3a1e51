// Package event is what a running pipeline tells: small value structs, which the
// stages send to a Sink. Events inform, they never decide: the pipeline works the
// same when each of them is lost.
//
//	worker.go   workers, batches, messages
//	shard.go    shards, their files and folders, the disk
//	broker.go   connections, dead letters
//	request.go  HTTP requests
//	process.go  start and end
//	jobs.go     jobs, their runs and runners
//
// Package event is a leaf: it imports the standard library only.
package event

// Sink takes events. It is called concurrently, on the goroutine that has
// something to tell; it must not block, and may drop what it gets. A nil Sink
// drops everything.
type Sink func(Event)

// Send hands e to the sink, if there is one.
func (s Sink) Send(e Event) {
	if s != nil {
		s(e)
	}
}

// Event is one of the struct types of this package.
type Event interface{ event() }
