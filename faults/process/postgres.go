package process

// Postgres is a folder of scripts/postgres, which makes it a private Postgres server.
// One that is started ends with this process.
type Postgres string

// Run runs scripts/postgres on the server and returns what it prints.
func (p Postgres) Run(args ...string) (string, error) {
	return script("postgres", "POSTGRES", string(p), args)
}
