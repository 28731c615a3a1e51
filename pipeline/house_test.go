package pipeline

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "async-data-processor/"

// house is who may import whom: folders of this module, and the modules of
// others, the standard library aside. A folder that is missing here is not
// part of the house.
var house = map[string]struct{ ours, theirs []string }{
	"cmd/async-data-processor": {
		ours: []string{"pipeline", "telemetry", "output/verify", "broker/local", "client", "jobs/runner", "jobs/runner/guard", "yamldoc"},
		theirs: []string{
			"github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/rs/zerolog",
			"github.com/mattn/go-isatty", "go.yaml.in/yaml/v3", "github.com/dustin/go-humanize", "golang.org/x/sys/unix",
		},
	},
	// In a module of its own.
	"cmd/adp-parquet": {ours: []string{"message", "durable"}, theirs: []string{
		"github.com/parquet-go/parquet-go", "github.com/minio/minio-go/v7", "github.com/minio/minio-go/v7/pkg/credentials",
		"github.com/go-json-experiment/json/jsontext", "golang.org/x/sys/unix",
	}},
	"pipeline": {
		ours: []string{
			"event", "server", "publisher", "broker", "broker/rabbitmq", "broker/jetstream", "broker/local",
			"backoff", "broker/door", "batcher", "consumer", "workerpool", "control", "dashboard", "deadletter", "jobs", "jobs/files", "jobs/frame", "jobs/store", "live", "output", "shard", "durable", "telemetry", "telemetry/metrics", "message",
		},
		theirs: []string{"github.com/rs/zerolog", "golang.org/x/sync/errgroup", "golang.org/x/sys/unix"},
	},
	"telemetry": {ours: []string{"event"}, theirs: []string{"github.com/rs/zerolog", "github.com/dustin/go-humanize"}},
	"telemetry/metrics": {ours: []string{"event"}, theirs: []string{
		"github.com/prometheus/client_golang/prometheus", "github.com/prometheus/client_golang/prometheus/collectors",
		"github.com/prometheus/client_golang/prometheus/promhttp",
	}},
	"live":       {ours: []string{"broker", "httpstream", "message", "problem"}, theirs: []string{"github.com/go-json-experiment/json/jsontext"}},
	"dashboard":  {ours: []string{"broker", "httpstream", "problem"}},
	"deadletter": {ours: []string{"backoff", "broker", "event", "message", "problem", "shard"}},
	"control":    {ours: []string{"backoff", "broker", "event", "message", "problem"}},
	"jobs":       {ours: []string{"backoff", "broker", "event", "httpstream", "jobs/frame", "jobs/store", "message", "problem", "reload", "yamldoc"}, theirs: []string{"go.yaml.in/yaml/v3"}},
	"jobs/frame": {},
	"consumer": {ours: []string{
		"broker", "batcher", "workerpool", "output", "message", "event", "backoff",
	}},
	"client": {ours: []string{"message", "backoff"}, theirs: []string{
		"github.com/coder/websocket", "github.com/go-json-experiment/json/jsontext",
	}},
	"jobs/runner": {
		ours:   []string{"backoff", "client", "jobs/frame", "jobs/runner/guard"},
		theirs: []string{"github.com/coder/websocket", "golang.org/x/sys/unix"},
	},
	"jobs/runner/guard": {theirs: []string{"golang.org/x/sys/unix"}},
	"message":           {theirs: []string{"github.com/go-json-experiment/json/jsontext", "github.com/oklog/ulid/v2"}},
	"event":             {},
	// What it checks exchanges with stays out of the binary: only tests may import it.
	"dashboard/openapitest": {ours: []string{"dashboard"}, theirs: []string{"github.com/getkin/kin-openapi/openapi3"}},
	"backoff":               {},
	"reload":                {ours: []string{"backoff"}},
	"yamldoc":               {theirs: []string{"go.yaml.in/yaml/v3"}},
	"durable":               {theirs: []string{"golang.org/x/sys/unix"}},
	"server": {
		ours: []string{"message", "event", "reload"},
		theirs: []string{
			"github.com/labstack/echo/v4", "github.com/klauspost/compress/gzip", "github.com/klauspost/compress/zstd",
			"github.com/coder/websocket",
		},
	},
	"jobs/store": {ours: []string{"backoff", "durable", "jobs/frame"}, theirs: []string{
		"github.com/jackc/pgx/v5", "github.com/jackc/pgx/v5/pgconn", "github.com/jackc/pgx/v5/stdlib", "modernc.org/sqlite",
	}},
	// What tests need to have databases of their own; they alone import it.
	"jobs/store/storetest":  {theirs: []string{"github.com/jackc/pgx/v5/stdlib"}},
	"publisher":             {ours: []string{"shard", "broker", "message"}},
	"shard":                 {},
	"problem":               {},
	"httpstream":            {},
	"httpstream/streamtest": {}, // only tests import it
	"broker":                {ours: []string{"message"}},
	"broker/bus":            {ours: []string{"broker"}},
	"broker/conn":           {ours: []string{"broker", "backoff", "event"}},
	"broker/rabbitmq": {
		ours:   []string{"broker", "broker/bus", "broker/conn", "message", "event", "backoff"},
		theirs: []string{"github.com/rabbitmq/amqp091-go"},
	},
	"broker/jetstream": {ours: []string{"broker", "broker/bus", "broker/conn", "message", "event"}, theirs: []string{
		"github.com/nats-io/nats.go", "github.com/nats-io/nats.go/jetstream",
	}},
	"broker/door": {ours: []string{"broker"}, theirs: []string{"golang.org/x/net/netutil"}},
	"broker/local": {
		ours:   []string{"broker", "broker/bus", "broker/conn", "message", "event", "backoff", "durable"},
		theirs: []string{"go.etcd.io/bbolt", "golang.org/x/sys/unix"},
	},
	// The suite is a library for tests, so testing tools are in its product code.
	"broker/brokertest": {ours: []string{"broker", "broker/local", "message", "event"}, theirs: []string{"go.uber.org/goleak"}},
	"batcher":           {ours: []string{"message"}},
	"workerpool":        {ours: []string{"message", "event", "backoff"}, theirs: []string{"golang.org/x/sync/errgroup"}},
	"output/committed":  {},
	"output":            {ours: []string{"message", "output/committed", "durable"}, theirs: []string{"golang.org/x/sys/unix"}},
	"jobs/files":        {ours: []string{"backoff", "event", "jobs/frame", "jobs/store", "output"}},
	// What the tests of whole processes share; they alone import it.
	"faults/rig": {
		ours: []string{"shard", "output/verify", "broker/local", "faults/process"},
		theirs: []string{
			"github.com/nats-io/nats.go", "github.com/nats-io/nats.go/jetstream", "github.com/rabbitmq/amqp091-go",
		},
	},
	// A disk for tests, which only they may import.
	"faults/lossyfs": {ours: []string{"faults/process"}, theirs: []string{"github.com/hanwen/go-fuse/v2/fuse", "golang.org/x/sys/unix"}},
	"faults/process": {},
	"output/verify":  {ours: []string{"message", "shard", "output"}, theirs: []string{"github.com/oklog/ulid/v2"}},
	"bench": {
		ours:   []string{"message", "publisher", "faults/process"},
		theirs: []string{"github.com/labstack/echo/v4", "github.com/rabbitmq/amqp091-go", "go.etcd.io/bbolt"},
	},
}

// TestHouse holds the imports of the product code to the table, and the table to
// the imports: an allowance that is not used goes.
func TestHouse(t *testing.T) {
	var out []byte
	for _, root := range []string{"..", "../cmd/adp-parquet"} { // the folders of modules
		list := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...")
		list.Dir = root
		more, err := list.Output()
		if err != nil {
			t.Fatalf("go list in %s: %v", root, err)
		}
		out = append(out, more...)
	}
	type use struct{ folder, path string }
	used := make(map[use]bool)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		folder := strings.TrimPrefix(fields[0], module)
		room, ok := house[folder]
		if !ok && len(fields) > 1 {
			t.Errorf("folder %s is not in the house", folder)
			continue
		}
		for _, path := range fields[1:] {
			allowed := room.theirs
			ours, isOurs := strings.CutPrefix(path, module)
			switch {
			case isOurs:
				path, allowed = ours, room.ours
			case !strings.Contains(path, "."):
				continue // the standard library has no dot in its paths
			}
			used[use{folder, path}] = true
			if !slices.Contains(allowed, path) {
				t.Errorf("%s imports %s, which the house does not allow", folder, path)
			}
		}
	}
	for folder, room := range house {
		for _, path := range slices.Concat(room.ours, room.theirs) {
			if !used[use{folder, path}] {
				t.Errorf("%s may import %s, and does not", folder, path)
			}
		}
	}
}

// TestSizes keeps every part of the house readable: files, functions, and types
// by the number of their methods.
func TestSizes(t *testing.T) {
	const lines, functionLines, methods = 400, 70, 25
	files, count := token.NewFileSet(), make(map[string]int)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		if n := files.File(file.Pos()).LineCount(); n > lines {
			t.Errorf("%s has %d lines, want at most %d", path, n, lines)
		}
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1; n > functionLines {
				t.Errorf("%s: %s has %d lines, want at most %d", path, f.Name, n, functionLines)
			}
			if f.Recv != nil {
				count[filepath.Dir(path)+"."+receiver(f.Recv.List[0].Type)]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range count {
		if n > methods {
			t.Errorf("%s has %d methods, want at most %d", name, n, methods)
		}
	}
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
