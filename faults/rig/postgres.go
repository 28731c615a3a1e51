package rig

import (
	"testing"

	"async-data-processor/faults/process"
)

// Postgres is a private Postgres server, which its test may kill.
type Postgres struct{ process.Postgres }

// StartPostgres starts a server, which ends with the test.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	p := &Postgres{process.Postgres(t.TempDir())}
	t.Cleanup(func() { p.Do(t, "stop") })
	p.Do(t, "start")
	return p
}

// Do runs scripts/postgres on the server and returns what it prints.
func (p *Postgres) Do(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.Run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// URL is the STATE_URL of its database.
func (p *Postgres) URL(t testing.TB) string { return p.Do(t, "url") }
