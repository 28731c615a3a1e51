package store

import (
	"cmp"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// schemaName is where the tables are, unless the URL has a search_path.
const schemaName = "adp"

// postgresConfig reads a URL. Its error has no password.
func postgresConfig(rawURL string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(rawURL)
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = cmp.Or(config.ConnectTimeout, 5*time.Second)
	// A process that is stopped in a transaction must not keep its locks for ever.
	for name, value := range map[string]string{
		"application_name": "async-data-processor", "search_path": schemaName, "statement_timeout": "30s",
		"lock_timeout": "10s", "idle_in_transaction_session_timeout": "10s",
	} {
		if _, ok := config.RuntimeParams[name]; !ok {
			config.RuntimeParams[name] = value
		}
	}
	if err := checkName("search_path", config.RuntimeParams["search_path"]); err != nil {
		return nil, err
	}
	return config, nil
}

// openPostgres opens a database of PostgreSQL. It connects when it is used.
func openPostgres(rawURL string) (*database, error) {
	config, err := postgresConfig(rawURL)
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(2)
	db.SetConnMaxIdleTime(time.Minute)
	d := postgresDialect
	d.prepare = func(q session) error { return makeSchema(q, config.RuntimeParams["search_path"]) }
	return &database{write: db, read: db, dialect: &d}, nil
}

// makeSchema makes the schema for the tables, unless it is there: then no right to make one
// is needed. Two processes that begin at the same time do it one after the other.
func makeSchema(q session, name string) error {
	if _, err := q.exec("SELECT pg_advisory_xact_lock(hashtextextended('adp.schema', 0))"); err != nil {
		return err
	}
	var one int
	if found, err := q.one("SELECT 1 FROM pg_namespace WHERE nspname = $1", []any{name}, &one); found || err != nil {
		return err
	}
	_, err := q.exec("CREATE SCHEMA " + pgx.Identifier{name}.Sanitize())
	return err
}

var postgresDialect = dialect{
	words: map[string]string{
		"{now}":  "CAST(round(extract(epoch FROM statement_timestamp()) * 1000) AS bigint)",
		"{lock}": " FOR UPDATE OF r", "{skip}": " FOR UPDATE OF r SKIP LOCKED",
		"{id}": "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
		// As SQLite compares texts.
		"{text}": `text COLLATE "C"`, "{blob}": "bytea",
	},
	lockJob:   "SELECT pg_advisory_xact_lock(hashtextextended('adp.job.' || CAST($1 AS text), 0))",
	hasTable:  "SELECT 1 WHERE to_regclass($1) IS NOT NULL",
	transient: transientPostgres,
	patience:  5 * time.Second,
}

// transientPostgres tells whether a transaction was refused for a reason that passes, or
// whether the connection was lost. Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
func transientPostgres(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return slices.ContainsFunc([]string{
			"40",    // serialization, deadlock
			"08",    // connection
			"55P03", // lock_timeout
			"57P",   // the server stops, starts or has crashed
			"53300", // too many connections
			"25P03", // idle in a transaction
		}, func(class string) bool { return strings.HasPrefix(e.Code, class) })
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return isOneOf(err, driver.ErrBadConn, pgconn.ErrConnClosed, io.EOF, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err)
}
