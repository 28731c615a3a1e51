package runner

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxName = 48
	// mostOfHost is how many runners of a machine get a name by themselves.
	mostOfHost = 1000
)

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// Claim takes a name among the runners of this machine, until the process ends or held is
// closed. An empty name stands for that of the host, with -2, -3 and so on if other runners
// have it. So a runner that starts again has its name again, and finds what it has left.
func Claim(name string) (claimed string, held io.Closer, err error) {
	if name != "" {
		if !validName.MatchString(name) || len(name) > maxName {
			return "", nil, fmt.Errorf("the name is %q, want at most %d letters, digits, '.', '_' and '-'", name, maxName)
		}
		held, err = hold(name)
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("another runner of this machine has the name %s; give this one another, or none", name)
		}
		return name, held, err
	}
	host, _ := os.Hostname() // any other name will do
	host = nameOf(host)
	for n := 1; ; n++ {
		name = host
		if n > 1 {
			name = fmt.Sprintf("%s-%d", host, n)
		}
		held, err = hold(name)
		if !errors.Is(err, unix.EADDRINUSE) || n == mostOfHost {
			return name, held, err
		}
	}
}

// nameOf returns a valid name for a host.
func nameOf(host string) string {
	host = strings.Map(func(c rune) rune {
		if c < 0x80 && validName.MatchString("a"+string(c)) {
			return c
		}
		return '-'
	}, host)
	if host = strings.TrimLeft(host, "-_."); host == "" {
		return "runner"
	}
	return host[:min(len(host), maxName-len("-1000"))]
}

// hold takes a name by an abstract socket (unix(7)), which ends with the process, however
// that ends, and is in no folder.
func hold(name string) (io.Closer, error) {
	return net.Listen("unix", "@async-data-processor/runner/"+name)
}
