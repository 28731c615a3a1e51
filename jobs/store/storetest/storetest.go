// Package storetest gives tests state databases of their own.
package storetest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver
)

// SQLite returns the URL of a database that is not there yet.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "state", "state.db")
}

// Postgres returns the URL of a schema of its own, which is not there yet, on the server of
// DATABASE_TEST_URL. The schema is removed when the test has ended.
func Postgres(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs PostgreSQL")
	}
	given := os.Getenv("DATABASE_TEST_URL")
	if given == "" {
		t.Fatal("DATABASE_TEST_URL is not set: run scripts/postgres start, and set it to what scripts/postgres url prints")
	}
	u, err := url.Parse(given)
	if err != nil {
		t.Fatal("DATABASE_TEST_URL is no URL")
	}
	schema := "test_" + strings.ToLower(rand.Text())
	query := u.Query()
	query.Set("search_path", schema)
	u.RawQuery = query.Encode()
	t.Cleanup(func() {
		db, err := sql.Open("pgx", given)
		if err != nil {
			t.Error(err)
			return
		}
		defer db.Close()
		if _, err := db.ExecContext(context.Background(), "DROP SCHEMA IF EXISTS "+schema+" CASCADE"); err != nil {
			t.Error(err)
		}
	})
	return u.String()
}

// Each runs a test over both engines.
func Each(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}
