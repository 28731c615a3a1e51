package conn

import (
	"errors"
	"time"

	"async-data-processor/backoff"
)

// Pauses is how long a client waits, and for what.
type Pauses struct {
	// Min and Max bound the wait before the next attempt. Attempts that fail wait
	// longer and longer. The wait is at random, so that many clients do not come
	// back at once.
	Min, Max time.Duration
	// Refused is the wait after a refusal, about.
	Refused time.Duration
	// Cancelled is the wait before a consumer that the broker has cancelled
	// subscribes again; 0 for that of any failure.
	Cancelled time.Duration
	// Close bounds what a silent broker may take when a connection is closed.
	Close time.Duration
}

// PausesUpTo returns the pauses of an engine: the longest wait before an attempt
// leaves time for a handshake within the ten seconds in which a process has to be
// ready again.
func PausesUpTo(longest time.Duration) Pauses {
	return Pauses{
		Min: 100 * time.Millisecond,
		Max: longest,
		// Wrong password, virtual host, arguments of a queue.
		Refused: 15 * time.Second,
		// The part of the drain that a silent broker may take.
		Close: 3 * time.Second,
	}
}

// refusal is a failure that waiting alone does not repair: an operator has to act.
type refusal struct {
	error
	after int // how many of them in a row are taken for another failure
}

func (r refusal) Unwrap() error { return r.error }

// Refused marks an error that waiting alone does not repair.
func Refused(err error) error { return refusal{err, 0} }

// RefusedAfter marks an error that other failures cause, too. After so many of them
// in a row it counts as a refusal.
func RefusedAfter(failures int, err error) error { return refusal{err, failures} }

// IsRefused tells whether an error counts as a refusal after that many failures in
// a row.
func IsRefused(err error, failures int) bool {
	r, ok := errors.AsType[refusal](err)
	return ok && failures >= r.after
}

// attempts is a row of attempts that fail. Its user is one goroutine.
type attempts struct {
	pauses   Pauses
	failures int
	backoff  backoff.Backoff
}

func (p Pauses) attempts() *attempts {
	return &attempts{pauses: p, backoff: backoff.Backoff{Min: p.Min, Max: max(p.Min, p.Max), Jitter: 1}}
}

// failed returns the wait before the next attempt.
func (a *attempts) failed(err error) time.Duration {
	a.failures++
	if IsRefused(err, a.failures-1) {
		refused := backoff.Backoff{Min: a.pauses.Refused, Max: a.pauses.Refused, Jitter: 0.5}
		return refused.Next()
	}
	return a.backoff.Next()
}

// lasted forgets the failures if what began then has lasted for long. Else it flaps,
// and is treated as failing.
func (a *attempts) lasted(began time.Time) {
	if time.Since(began) > a.pauses.Max {
		a.failures = 0
		a.backoff.Reset()
	}
}
