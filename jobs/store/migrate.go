package store

import (
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
		if version == schemaVersion {
			return nil
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
