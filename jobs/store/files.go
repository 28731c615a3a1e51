package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"async-data-processor/jobs/frame"
)

const (
	// positionLen is the length of a Position, a ULID.
	positionLen = 26
	fileSuffix  = ".ndjson"
	// rows is how many rows one statement inserts.
	rows = 100
)

// Position returns the part of a published file's name that tells the order of the files of
// a shard: the ULID. The names of workers, which come before it, do not.
func Position(name string) (string, error) {
	stem, ok := strings.CutSuffix(name, fileSuffix)
	if cut := strings.LastIndexByte(stem, '_'); ok && cut >= 0 {
		if position := stem[cut+1:]; checkPosition(position) == nil {
			return position, nil
		}
	}
	return "", fmt.Errorf("%w name of a file: %.300q", ErrInvalid, name)
}

// checkPosition refuses what is not 26 capital letters and digits.
func checkPosition(position string) error {
	for _, c := range []byte(position) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return fmt.Errorf("%w position: %.40q", ErrInvalid, position)
		}
	}
	if len(position) != positionLen {
		return fmt.Errorf("%w position: %.40q", ErrInvalid, position)
	}
	return nil
}

// checkFile holds a published file to the bounds.
func checkFile(f frame.Published) error {
	err := checkName("name of a file", f.Name)
	if f.Shard < 0 || f.Shard > 1<<30 || f.Lines < 0 || f.Bytes < 0 {
		err = errors.Join(err, fmt.Errorf("%w file: shard %d, %d lines, %d bytes", ErrInvalid, f.Shard, f.Lines, f.Bytes))
	}
	return err
}

// Cursor returns the Position up to which every file of a shard is recorded; empty if that
// is not known of any.
func (s *Store) Cursor(ctx context.Context, shard int) (position string, err error) {
	err = s.db.view(ctx, "read a cursor", func(q session) error {
		position = ""
		_, err := q.one("SELECT position FROM cursors WHERE shard = $1", []any{shard}, &position)
		return err
	})
	return position, err
}

// Record keeps the names of published files, and moves the cursors of their shards, all in
// one transaction. A file that is known stays as it is. A cursor moves forward only. A shard
// may be given once, and at most MaxRecorded files.
func (s *Store) Record(ctx context.Context, shards []Recorded) error {
	shards = slices.SortedFunc(slices.Values(shards), func(x, y Recorded) int { return cmp.Compare(x.Shard, y.Shard) })
	n := 0
	for i, r := range shards {
		n += len(r.Files)
		if r.Cursor != "" {
			if err := checkPosition(r.Cursor); err != nil {
				return err
			}
		}
		if i > 0 && shards[i-1].Shard == r.Shard {
			return fmt.Errorf("%w record: shard %d is there twice", ErrInvalid, r.Shard)
		}
		for _, f := range r.Files {
			_, err := Position(f.Name)
			if err = errors.Join(err, checkFile(f)); err != nil {
				return err
			}
			if f.Shard != r.Shard {
				return fmt.Errorf("%w record: a file of shard %d in shard %d", ErrInvalid, f.Shard, r.Shard)
			}
		}
	}
	if n > MaxRecorded || len(shards) > MaxRecorded {
		return fmt.Errorf("%w record: %d files of %d shards, at most %d are allowed", ErrInvalid, n, len(shards), MaxRecorded)
	}
	return s.db.update(ctx, "record files", func(q session) error {
		for _, r := range shards {
			if err := q.record(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// record keeps the files of a shard and moves its cursor. The lock of the cursor's row keeps
// out those that forget files.
func (q session) record(r Recorded) error {
	if _, err := q.exec("INSERT INTO cursors (shard) VALUES ($1) ON CONFLICT (shard) DO NOTHING", r.Shard); err != nil {
		return err
	}
	var position, forgotten string
	if _, err := q.one("SELECT position, forgotten FROM cursors r WHERE shard = $1{lock}", []any{r.Shard}, &position, &forgotten); err != nil {
		return err
	}
	var args []any
	for _, f := range r.Files {
		place, err := Position(f.Name)
		if err != nil {
			return err
		}
		if place > forgotten { // else it was recorded long ago
			args = append(args, f.Name, place, f.Shard, f.Lines, f.Bytes)
		}
	}
	const columns = 5
	for some := range slices.Chunk(args, rows*columns) {
		text := strings.Replace(list(len(some)/columns, columns), ")", ", {now})", -1)
		if _, err := q.exec("INSERT INTO files (name, position, shard, lines, bytes, at) VALUES "+text+
			" ON CONFLICT (name) DO NOTHING", some...); err != nil {
			return err
		}
	}
	if r.Cursor <= position {
		return nil
	}
	_, err := q.exec("UPDATE cursors SET position = $2 WHERE shard = $1", r.Shard, r.Cursor)
	return err
}

// Spawn makes a run of each job for each recorded file that has none yet, the oldest
// recorded first, for at most max files, and returns how many runs it made. The key of a run
// is the file's name. Without jobs it does nothing: the files wait. Several processes may do
// it side by side.
func (s *Store) Spawn(ctx context.Context, jobs []New, most int) (created int, err error) {
	if len(jobs) == 0 {
		return 0, nil
	}
	if len(jobs) > maxJobs || most < 1 || most > MaxRecorded {
		return 0, fmt.Errorf("%w spawn of %d files for %d jobs", ErrInvalid, most, len(jobs))
	}
	for _, n := range jobs {
		if err := n.check(); err != nil {
			return 0, err
		}
	}
	const waiting = " FROM files r WHERE r.spawned = 0 ORDER BY r.at, r.name LIMIT $1"
	var found bool
	err = s.db.view(ctx, "look for files", func(q session) (err error) {
		var name string
		found, err = q.one("SELECT r.name"+waiting, []any{1}, &name)
		return err
	})
	if err != nil || !found {
		return 0, err
	}
	err = s.db.update(ctx, "make runs of files", func(q session) error {
		created = 0
		var files []frame.Published
		err := q.each("SELECT r.name, r.shard, r.lines, r.bytes"+waiting+"{skip}", []any{most}, func(scan func(...any) error) error {
			var f frame.Published
			err := scan(&f.Name, &f.Shard, &f.Lines, &f.Bytes)
			files = append(files, f)
			return err
		})
		if err != nil {
			return err
		}
		for _, f := range files {
			n, err := q.spawn(jobs, f)
			if err != nil {
				return err
			}
			created += n
		}
		return nil
	})
	return created, err
}

// spawn makes the runs of a file.
func (q session) spawn(jobs []New, f frame.Published) (created int, err error) {
	for _, n := range jobs {
		n.File = &f
		_, made, err := q.create(n, storedKey(f.Name))
		if err != nil {
			return 0, err
		}
		created += zeroOne(made)
	}
	_, err = q.exec("UPDATE files SET spawned = 1 WHERE name = $1", f.Name)
	return created, err
}
