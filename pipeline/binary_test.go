package pipeline

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// TestBinaryDropsMethods: the linker can see which methods the program calls. Where a
// method is called by a name that only the running program knows, as templates do, the
// linker keeps every exported method of every type: 5 MB more.
func TestBinaryDropsMethods(t *testing.T) {
	cmd := exec.Command("go", "build", "-o", os.DevNull, "-ldflags=-dumpdep", module+"cmd/async-data-processor")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("<UsedInIface>")) {
		t.Fatalf("go build: %v, and what it tells has no marks: %s", err, out[:min(len(out), 1000)])
	}
	for line := range bytes.Lines(out) {
		if bytes.Contains(line, []byte("<ReflectMethod>")) {
			t.Fatalf("a method is called by its name: %s", line)
		}
	}
}
