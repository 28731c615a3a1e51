package jobs

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
)

// TestArgsFitALine: podman and docker read the longest arguments.
func TestArgsFitALine(t *testing.T) {
	if line := len("ADP_ARGS=\n") + MaxArgs; line >= bufio.MaxScanTokenSize {
		t.Errorf("a line has %d bytes, want less than %d", line, bufio.MaxScanTokenSize)
	}
}

// nestedArgs are arguments of that depth, with brackets in texts, too.
func nestedArgs(depth int, pair string) string {
	member := `"[\"[{",`
	if pair == "{}" {
		member = `"[\"[{":`
	}
	return strings.Repeat(pair[:1]+member, depth-1) + pair + strings.Repeat(pair[1:], depth-1)
}

// TestDeepArgs: the deepest arguments reach a client over the bus, too.
func TestDeepArgs(t *testing.T) {
	a := newAPI(t, nil)
	answering(t, a.local)
	_, base := a.newRemote("e1")
	for i, pair := range []string{"[]", "{}"} {
		args := nestedArgs(MaxArgsDepth, pair)
		if depth := depthOf([]byte(args)); depth != MaxArgsDepth {
			t.Fatalf("the depth is %d", depth)
		}
		want[RunView](t, 202, "POST", base+"/api/jobs/hello-world", args)
		url := fmt.Sprint("/api/jobs/", i+1)
		for _, node := range []string{a.base, base} {
			if r := want[RunDetail](t, 200, "GET", node+url, ""); string(r.Args) != args {
				t.Errorf("the arguments are %s", r.Args)
			}
		}
	}
}
