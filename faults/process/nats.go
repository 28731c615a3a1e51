package process

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// natsTimeout bounds the start of a server that reads its store.
const natsTimeout = 2 * time.Minute

// NATS is a nats-server with JetStream. It syncs every message, because tests kill it.
type NATS struct {
	*Process        // what Start has started; its Addr is where clients connect
	Dir      string // its folder, set before Start
	Config   string // more of its configuration file, set before Start
}

// Start starts the server and waits until it listens. Started again, it has the
// same address and the same messages.
func (n *NATS) Start() error {
	program, err := natsServer()
	if err != nil {
		return err
	}
	addr, file := "127.0.0.1:-1", filepath.Join(n.Dir, "nats.conf") // -1 is any free port
	if n.Process != nil {
		addr = n.Addr
	}
	config := fmt.Sprintf("listen: %q\nports_file_dir: %q\njetstream { store_dir: %[2]q, sync_interval: always }\n%[3]s\n", addr, n.Dir, n.Config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	p, err := Spawn(nil, program, "-c", file)
	if err != nil {
		return err
	}
	n.Process = p
	limit := time.After(natsTimeout)
	for n.Addr == "" {
		select {
		case <-time.After(5 * time.Millisecond):
			n.Addr = n.listens()
		case <-n.Exited():
			return n.failure("exit %d before it listened", n.Code())
		case <-limit:
			return n.failure("it does not listen after %v", natsTimeout)
		}
	}
	return nil
}

// listens returns the address that the server has noted, empty if none yet.
func (n *NATS) listens() string {
	var ports struct{ NATS []string }
	text, err := os.ReadFile(filepath.Join(n.Dir, fmt.Sprintf("nats-server_%d.ports", n.PID())))
	if err != nil || json.Unmarshal(text, &ports) != nil || len(ports.NATS) == 0 {
		return "" // it may be half written
	}
	u, err := url.Parse(ports.NATS[0])
	if err != nil {
		return ""
	}
	return u.Host
}

// natsServer returns the path of the program that tools.mod pins. The go command
// builds it once and keeps it in its cache, for all packages.
var natsServer = sync.OnceValues(func() (string, error) {
	root, err := Repository()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "tool", "-modfile=tools.mod", "-n", "nats-server")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as scripts/test builds it
	return output(cmd)
})
