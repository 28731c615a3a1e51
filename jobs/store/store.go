// Package store keeps what is known of jobs in a database: runs, their attempts and logs,
// the published files that runs begin for, and the commands that people gave.
//
// The database is SQLite or PostgreSQL, and decides what is true: each change is one
// transaction, and times are the database's. So several processes may use one database.
//
// A run has a lease while a runner has it, and the number of its attempt is the fence:
// what an earlier attempt tells changes nothing. A lease that is over can be renewed until
// Expire has taken the run.
//
// A call tries again, for some seconds, while the database is away or busy. A commit whose
// outcome is not known is made again, which is safe:
//
//	Create, Spawn          the key of a run is unique in its job; without one, a random one is made
//	Claim                  runs keep a random mark of the call that took them
//	Start, Renew, Unclaim,
//	End, Expire            act on an attempt that is current, and only once
//	Cancel, Retry          leave a run as it is that is where they would bring it
//	AppendLog              knows the parts by their offset
//	Record, Audit          know the files and commands by their names
//	Retain                 removes what is still too old
package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what is stored. What is beyond them is ErrInvalid, but for texts that say why:
// those are cut.
const (
	// MaxName bounds the names of jobs, runners, engines and files, keys, and who asked, in bytes.
	MaxName = 256
	// MaxArgs bounds Args, in bytes.
	MaxArgs = 64 << 10
	// MaxWhy bounds a text that says why, in bytes.
	MaxWhy = 4 << 10
	// MaxAttempts bounds the attempts of a run in all, those that are not spent, too. Then it is
	// dead. A retry by hand begins to count again.
	MaxAttempts = 100
	// MaxRecorded bounds the files of one Record.
	MaxRecorded = 1000
	// maxFences bounds a Renew, maxJobs the jobs of a Claim or a Spawn, and maxClaim its runs.
	maxFences, maxJobs, maxClaim = 256, 256, 256
	// maxBackoff bounds the pause between two attempts.
	maxBackoff = time.Hour
)

// Store is an open state database. Its methods may be called concurrently.
type Store struct{ db *database }

// Close ends the connections. Calls that still go on fail.
func (s *Store) Close() error { return s.db.close() }

// Writable tells whether the database takes changes. It asks only if one has failed, since a
// disk may be full while the database answers.
func (s *Store) Writable(ctx context.Context) error {
	if !s.db.unwritten.Load() {
		return nil
	}
	err := s.db.update(ctx, "write", func(q session) error {
		// SQLite does not write a page for an UPDATE that changes nothing.
		if _, err := q.exec("INSERT INTO schema_version (version) VALUES (-1)"); err != nil {
			return err
		}
		_, err := q.exec("DELETE FROM schema_version WHERE version = -1")
		return err
	})
	if err == nil {
		s.db.unwritten.Store(false)
	}
	return err
}

// Away tells whether a call failed because the database could not be used, not because of
// what was asked. The same call may succeed later.
func Away(err error) bool {
	return err != nil && !isOneOf(err, ErrNotFound, ErrState, ErrConflict, ErrInvalid, ErrNewer, ErrForeign, context.Canceled)
}

func isOneOf(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// checkName refuses a name that is no text of 1 to MaxName bytes.
func checkName(noun, name string) error {
	if name == "" {
		return fmt.Errorf("%w %s: it is empty", ErrInvalid, noun)
	}
	return checkText(noun, name, MaxName)
}

// checkText refuses what is too long, or not UTF-8, or has a NUL, which PostgreSQL cannot store.
func checkText(noun, text string, limit int) error {
	switch {
	case len(text) > limit:
		return fmt.Errorf("%w %s: it has %d bytes, at most %d are allowed", ErrInvalid, noun, len(text), limit)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return fmt.Errorf("%w %s: it is not text in UTF-8", ErrInvalid, noun)
	}
	return nil
}

// clean makes any text one that can be stored, of at most MaxWhy bytes.
func clean(why string) string {
	why = why[:min(len(why), MaxWhy)]
	return strings.ReplaceAll(strings.ToValidUTF8(why, ""), "\x00", "")
}
