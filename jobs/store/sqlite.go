package store

import (
	"database/sql"
	"errors"
	"fmt"
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
	read.SetMaxOpenConns(4)
	for _, db := range []*sql.DB{write, read} {
		db.SetMaxIdleConns(1)
		db.SetConnMaxIdleTime(time.Minute) // each has a cache
	}
	return &database{write: write, read: read, dialect: &sqliteDialect}, nil
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
	transient: func(err error) bool {
		e, ok := errors.AsType[*sqlite.Error](err)
		return ok && (e.Code()&0xff == sqliteBusy || e.Code()&0xff == sqliteLocked)
	},
}
