package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"async-data-processor/backoff"
)

// callTimeout bounds a call, with all its tries.
const callTimeout = 30 * time.Second

// database is the connections to an engine, and how it is spoken to.
type database struct {
	write, read *sql.DB // may be the same
	dialect     *dialect
	used        used
	// unwritten is set when a change fails, and reset when Writable has made one.
	unwritten atomic.Bool
}

// dialect is where the engines differ.
type dialect struct {
	// words are replaced in every text: {now} is the time in ms since 1970, {lock} and {skip} lock
	// the rows of the table called r, and {id}, {text} and {blob} are types.
	words map[string]string
	// lockJob waits until no other transaction claims runs of the job $1; empty if there can be none.
	lockJob string
	// prepare is called before the schema is looked at, in the same transaction; nil does nothing.
	prepare func(session) error
	// hasTable finds a row if there is a table $1, and otherTable the name of one that is not
	// schema_version; empty where others may have theirs beside ours.
	hasTable, otherTable string
	// loose tells that a column may have a value of another type than its own.
	loose bool
	// transient tells whether the same transaction may succeed soon. It is begun again for as
	// long as patience, which is less than callTimeout.
	transient func(error) bool
	patience  time.Duration
}

func (d *dialect) text(t string) string {
	for word, is := range d.words {
		t = strings.ReplaceAll(t, word, is)
	}
	return t
}

// Open opens the state database at a URL, see Check, and brings its schema up to date.
func Open(ctx context.Context, rawURL string) (*Store, error) {
	if err := Check(rawURL); err != nil {
		return nil, err
	}
	open := openPostgres
	if strings.HasPrefix(rawURL, sqlitePrefix) {
		open = openSQLite
	}
	db, err := open(rawURL)
	if err == nil {
		if err = migrate(ctx, db); err == nil {
			if err = db.use(ctx); err == nil {
				return &Store{db}, nil
			}
		}
		err = errors.Join(err, db.close())
	}
	return nil, fmt.Errorf("cannot open %s: %w", Redact(rawURL), err)
}

// Check refuses what is not the URL of a state database: sqlite:<path of a file>, or
// postgres://user:password@host:port/database?option=value.
func Check(rawURL string) error {
	if path, ok := strings.CutPrefix(rawURL, sqlitePrefix); ok {
		return checkPath(path)
	}
	if !strings.HasPrefix(rawURL, "postgres://") && !strings.HasPrefix(rawURL, "postgresql://") {
		return errors.New("the state database needs a URL that begins with sqlite: or postgres://")
	}
	_, err := postgresConfig(rawURL)
	return err
}

// Redact returns a URL without its password, and nothing of what is no URL of a database,
// where that may be anywhere.
func Redact(rawURL string) string {
	if rawURL == "" || strings.HasPrefix(rawURL, sqlitePrefix) {
		return rawURL
	}
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "the state database"
	}
	u.RawQuery, u.Fragment = "", "" // which may have a password, too
	return u.Redacted()
}

func (d *database) close() error {
	err := errors.Join(d.used.close(), d.read.Close())
	if d.write != d.read {
		err = errors.Join(d.write.Close(), err) // the last one to close tidies up
	}
	return err
}

// view runs statements that change nothing.
func (d *database) view(ctx context.Context, noun string, f func(session) error) error {
	return d.try(ctx, noun, func(ctx context.Context, again bool) error {
		return f(session{ctx: ctx, sql: d.read, dialect: d.dialect, again: again})
	})
}

// update runs f in a transaction, and again if that is worth it. So f changes nothing
// but what it sets anew each time.
func (d *database) update(ctx context.Context, noun string, f func(session) error) error {
	err := d.try(ctx, noun, func(ctx context.Context, again bool) error {
		tx, err := d.write.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := f(session{ctx: ctx, sql: tx, dialect: d.dialect, again: again}); err != nil {
			return errors.Join(err, ignoreDone(tx.Rollback()))
		}
		return tx.Commit()
	})
	if err != nil && Away(err) {
		d.unwritten.Store(true)
	}
	return err
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// try repeats what fails for a reason that passes.
func (d *database) try(ctx context.Context, noun string, f func(ctx context.Context, again bool) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pauses := backoff.Backoff{Min: 5 * time.Millisecond, Max: 500 * time.Millisecond, Jitter: 0.5}
	began := time.Now()
	for again := false; ; again = true {
		err := d.used.moved()
		if err == nil {
			err = f(ctx, again)
		}
		if err == nil {
			return nil
		}
		if !d.dialect.transient(err) || time.Since(began) > d.dialect.patience || !backoff.Sleep(ctx, pauses.Next()) {
			if !Away(err) {
				return err
			}
			return fmt.Errorf("state database: %s: %w", noun, err)
		}
	}
}

// session runs SQL that both engines understand.
type session struct {
	ctx context.Context
	sql interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
	dialect *dialect
	again   bool // an earlier try may have been committed
	// odd, if it is set, gets the columns of rows that have a value of another type.
	odd *[]string
}

// exec returns how many rows were changed.
func (q session) exec(text string, args ...any) (int64, error) {
	result, err := q.sql.ExecContext(q.ctx, q.dialect.text(text), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// each calls f for each row. A value of another type than the column's, which another hand
// has written, is left out, so that one row does not keep the others from anyone.
func (q session) each(text string, args []any, f func(scan func(...any) error) error) (err error) {
	rows, err := q.sql.QueryContext(q.ctx, q.dialect.text(text), args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		err := f(func(dest ...any) error {
			err := rows.Scan(dest...)
			if err != nil && q.dialect.loose {
				return q.scanSome(rows, dest)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return rows.Err()
}

// scanSome scans what fits of a row.
func (q session) scanSome(rows *sql.Rows, dest []any) error {
	names, err := rows.Columns()
	if err != nil || len(names) != len(dest) {
		return errors.Join(err, fmt.Errorf("%d columns for %d values", len(names), len(dest)))
	}
	for i, to := range dest {
		one := make([]any, len(dest))
		for j := range one {
			one[j] = new(any)
		}
		one[i] = to
		if rows.Scan(one...) != nil && q.odd != nil {
			*q.odd = append(*q.odd, names[i])
		}
	}
	return nil
}

// one reads the first row, and tells whether there is one.
func (q session) one(text string, args []any, dest ...any) (found bool, err error) {
	err = q.each(text, args, func(scan func(...any) error) error {
		if found {
			return nil
		}
		found = true
		return scan(dest...)
	})
	return found, err
}

// list returns n groups of k parameters, as "($1, $2), ($3, $4)". The kinds are the types
// of a group, for a place where PostgreSQL cannot tell them; none elsewhere.
func list(n, k int, kinds ...string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString([]string{"(", ", ("}[min(i, 1)])
		for j := range k {
			if j > 0 {
				b.WriteString(", ")
			}
			if kinds != nil {
				fmt.Fprintf(&b, "CAST($%d AS %s)", i*k+j+1, kinds[j])
			} else {
				fmt.Fprintf(&b, "$%d", i*k+j+1)
			}
		}
		b.WriteByte(')')
	}
	return b.String()
}

// latest is the end of the year 9999, the last time that JSON has, in ms since 1970.
const latest = 253402300799999

// at turns a time of the database into one of Go.
func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(min(max(ms, 0), latest)).UTC()
}

// zeroOne is a bool as the engines keep it.
func zeroOne(b bool) int {
	if b {
		return 1
	}
	return 0
}
