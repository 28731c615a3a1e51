package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"modernc.org/sqlite"

	"async-data-processor/durable"
)

const sqlitePrefix = "sqlite:"

// Codes of SQLite: https://sqlite.org/rescode.html
const sqliteBusy, sqliteLocked = 5, 6

// checkPath refuses what SQLite would not take as a path of a file.
func checkPath(path string) error {
	if path == "" || strings.HasPrefix(path, "//") || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "?\x00\n") {
		return errors.New("the state database's URL has to be sqlite: and the path of a file")
	}
	return nil
}

// openSQLite opens a file of SQLite, and makes it, readable by its owner only. One
// connection writes, so that writers of this process wait in a queue and not for a lock.
func openSQLite(rawURL string) (*database, error) {
	path, err := filepath.Abs(strings.TrimPrefix(rawURL, sqlitePrefix))
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); err != nil {
		if err := durable.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	// The log beside the file is shared memory of the processes that use it.
	if err := durable.CheckLocal("folder of the state database", dir); err != nil {
		return nil, err
	}
	// What SQLite makes beside the file gets the file's mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Close(), durable.SyncDir(dir)); err != nil {
		return nil, err
	}
	write, err := sql.Open("sqlite", sqliteName(path, "&_txlock=immediate"))
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", sqliteName(path, "&_pragma=query_only(1)"))
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read.SetMaxOpenConns(5) // one of them is used's
	for _, db := range []*sql.DB{write, read} {
		db.SetMaxIdleConns(1)
		db.SetConnMaxIdleTime(time.Minute) // each has a cache
	}
	return &database{write: write, read: read, dialect: &sqliteDialect, used: used{path: path}}, nil
}

// used is the files of SQLite that are in use. The zero value is none.
type used struct {
	path  string
	conn  *sql.Conn // it stays open, as the files beside the database go with the last one
	files []os.FileInfo
}

// beside is what names the database's files: itself, its log and the log's index.
var beside = []string{"", "-wal", "-shm"}

// use notes which files are in use.
func (d *database) use(ctx context.Context) (err error) {
	u := &d.used
	if u.path == "" {
		return nil
	}
	if u.conn, err = d.read.Conn(ctx); err != nil {
		return err
	}
	var version int
	if err := u.conn.QueryRowContext(ctx, "SELECT version FROM schema_version").Scan(&version); err != nil {
		return err
	}
	for _, name := range beside {
		info, err := os.Stat(u.path + name)
		if err != nil {
			return err
		}
		u.files = append(u.files, info)
	}
	return nil
}

// moved fails if a file is another one than that in use, or is not there. SQLite would write
// on, and what it writes would be gone with the process.
func (u *used) moved() error {
	for i, was := range u.files {
		is, err := os.Stat(u.path + beside[i])
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err != nil || !os.SameFile(was, is) {
			return fmt.Errorf("the file %s is in use and was removed or replaced: put it back, or start the process again", u.path+beside[i])
		}
	}
	return nil
}

func (u *used) close() error {
	if u.conn == nil {
		return nil
	}
	return u.conn.Close()
}

// sqliteName returns the name of a data source: the file, and what each connection sets.
func sqliteName(path, more string) string {
	return fmt.Sprintf("file:%s?%s%s", (&url.URL{Path: path}).EscapedPath(), strings.Join([]string{
		"_pragma=busy_timeout(5000)", // first: the others may have to wait
		"_pragma=journal_mode(WAL)",
		"_pragma=synchronous(FULL)", // a commit is durable
		"_pragma=foreign_keys(1)",
		"_pragma=journal_size_limit(16777216)",
	}, "&"), more)
}

var sqliteDialect = dialect{
	words: map[string]string{
		"{now}":  "CAST(round(unixepoch('subsec') * 1000) AS integer)",
		"{lock}": "", "{skip}": "", // the transaction has the only lock
		"{id}": "integer PRIMARY KEY AUTOINCREMENT", "{text}": "text", "{blob}": "blob",
	},
	hasTable: "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1",
	otherTable: `SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_version'
		AND name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY name`,
	loose: true,
	transient: func(err error) bool {
		e, ok := errors.AsType[*sqlite.Error](err)
		return ok && (e.Code()&0xff == sqliteBusy || e.Code()&0xff == sqliteLocked)
	},
	// The lock is not fair: a process that writes without a pause, to a slow disk, keeps it from
	// another one for long.
	patience: 20 * time.Second,
}
