package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// ErrDamaged: the store lacks something that it held, or holds what cannot be read.
// Nothing was changed.
var ErrDamaged = errors.New("the broker's store is damaged")

// Report is what a look at a store's file found.
type Report struct {
	Path  string
	Clean bool // the last process stopped in order
	// Queues has each shard of the file, and Dead.
	Queues map[int]*Queue
	// Damage is what is wrong with the file as a whole.
	Damage []string
}

// Queue is a queue of a store's file, or its dead letters.
type Queue struct {
	// Depth is the number of the envelopes that can be read.
	Depth int
	// Want is the number of envelopes that there must be. It is -1 if that cannot
	// be read.
	Want int
	// First and Last are the lowest and the highest sequence number of those that
	// can be read; 0 if there are none.
	First, Last uint64
	// Sequence is the last number that was given.
	Sequence uint64
	// Returns has how often an envelope came back, by its sequence number.
	Returns map[uint64]int
	// Damage is the first thing found wrong, or "".
	Damage string

	bucket, returns bucket
}

// checkFile looks at the opened file of a store, with reads only: bbolt would panic
// on a damaged file. It looks at the whole structure, and at the checksum of each
// envelope, if full, or if the file was not closed in order. The progress function may
// be nil; it gets envelopes, about once a second. If the error is ErrDamaged, the report
// has all that is readable. After the end of ctx it is that of ctx.
func checkFile(ctx context.Context, f *os.File, full bool, progress func(done, total int64)) (*Report, error) {
	s, err := newSurvey(ctx, f, full, runtime.GOMAXPROCS(0), progress)
	if err != nil {
		return nil, err
	}
	return s.report, s.check()
}

// Check looks at all of the store at dir, which no process may have. It changes
// nothing. If the error is ErrDamaged, the report has all that is readable. After the end
// of ctx it is that of ctx.
func Check(ctx context.Context, dir string, progress func(done, total int64)) (r *Report, err error) {
	err = withStore(dir, func(f *os.File) (err error) {
		r, err = checkFile(ctx, f, true, progress)
		return err
	})
	return r, err
}

// withStore locks a store, opens its file, both for reading, and calls do.
func withStore(dir string, do func(*os.File) error) error {
	lock, err := lockUnchanged(dir)
	if err != nil {
		return err
	}
	if lock != nil {
		defer lock.Close()
	}
	f, err := os.Open(filepath.Join(dir, FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(checkKind(dir), fmt.Errorf("%s holds no broker store: %w", dir, err))
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return do(f)
}

// Sorted returns the numbers of the queues, those of the shards first.
func (r *Report) Sorted() []int {
	numbers := slices.Sorted(maps.Keys(r.Queues))
	if len(numbers) > 0 && numbers[0] == Dead {
		numbers = append(numbers[1:], Dead)
	}
	return numbers
}

// Err is ErrDamaged with what is wrong, or nil.
func (r *Report) Err() error {
	wrong := slices.Clone(r.Damage)
	for _, n := range r.Sorted() {
		if q := r.Queues[n]; q.Damage != "" {
			wrong = append(wrong, fmt.Sprintf("%s: %s", QueueText(n), q.Damage))
		}
	}
	const most = 4
	if len(wrong) > most {
		wrong = append(wrong[:most], fmt.Sprintf("and %d more", len(wrong)-most))
	}
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", ErrDamaged, r.Path, strings.Join(wrong, "; "))
}

// QueueText is a queue in words.
func QueueText(queue int) string {
	if queue == Dead {
		return "the dead letters"
	}
	return fmt.Sprintf("shard %d", queue)
}
