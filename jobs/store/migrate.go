package store

import (
	"cmp"
	"context"
	"embed"
	"fmt"
)

// schema has the steps from each version of the schema to the next: N.sql makes version N.
// A step that was released is not changed any more.
//
//go:embed schema/*.sql
var schema embed.FS

// schemaVersion is the number of the last step.
const schemaVersion = 1

// tables are those of the schema.
var tables = []string{"runs", "inputs", "attempts", "logs", "files", "cursors", "audits"}

// own refuses a database that has a version and lacks a table, or has none and tables of others.
func (q session) own(version int) error {
	if version > 0 {
		for _, table := range tables {
			var one int
			if found, err := q.one(q.dialect.hasTable, []any{table}, &one); err != nil || !found {
				return cmp.Or(err, fmt.Errorf("%w: it lacks the table %s", ErrForeign, table))
			}
		}
		return nil
	}
	if q.dialect.otherTable == "" {
		return nil
	}
	var other string
	if found, err := q.one(q.dialect.otherTable, nil, &other); err != nil || !found {
		return err
	}
	return fmt.Errorf("%w: it has no version, and the table %.64q", ErrForeign, other)
}

// migrate brings the schema to schemaVersion, in one transaction, so that the steps are
// made once and whole.
func migrate(ctx context.Context, db *database) error {
	return db.update(ctx, "make tables", func(q session) error {
		if prepare := db.dialect.prepare; prepare != nil {
			if err := prepare(q); err != nil {
				return err
			}
		}
		if _, err := q.exec("CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL)"); err != nil {
			return err
		}
		var version int
		if _, err := q.one("SELECT version FROM schema_version", nil, &version); err != nil {
			return err
		}
		if version > schemaVersion {
			return fmt.Errorf("%w: its schema has the version %d, known is %d; start the newer program", ErrNewer, version, schemaVersion)
		}
		if err := q.own(version); err != nil || version == schemaVersion {
			return err
		}
		for step := version + 1; step <= schemaVersion; step++ {
			text, err := schema.ReadFile(fmt.Sprintf("schema/%d.sql", step))
			if err != nil {
				return err
			}
			if _, err := q.exec(string(text)); err != nil {
				return fmt.Errorf("step %d: %w", step, err)
			}
		}
		if _, err := q.exec("DELETE FROM schema_version"); err != nil {
			return err
		}
		_, err := q.exec("INSERT INTO schema_version (version) VALUES ($1)", schemaVersion)
		return err
	})
}
