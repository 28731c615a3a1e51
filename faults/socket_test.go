package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/coder/websocket"

	"async-data-processor/faults/rig"
)

// sockets is a client that sends numbered entries by WebSocket, in one session.
type sockets struct {
	t      *testing.T
	server *rig.Process
	waits  []int          // frames that are to be sent
	lacks  map[int]bool   // frames that were sent, and lack an answer
	ids    map[int]string // of the submissions that were accepted
	kinds  map[string]int // of answers, but for accepted
}

// stream sends and reads until the connection breaks or all is accepted. After each answer it
// calls step, which may hurt something.
func (s *sockets) stream(step func()) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), rig.Patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+s.server.Addr+"/message?session=01M8K523VDHDD60X1V378Z78QG",
		&websocket.DialOptions{Subprotocols: []string{"adp.ingest.v1"}})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	for ref := range s.lacks { // everything without an answer is sent again
		s.waits = append(s.waits, ref)
	}
	clear(s.lacks)
	for {
		for len(s.lacks) < 100 && len(s.waits) > 0 {
			ref := s.waits[0]
			s.waits = s.waits[1:]
			s.lacks[ref] = true
			if err := conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"ref":"%d","entries":%s}`, ref, rig.Entries(ref, 1))); err != nil {
				return err
			}
		}
		if len(s.lacks) == 0 {
			return conn.Close(websocket.StatusNormalClosure, "")
		}
		_, text, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		var answer struct {
			Type, Ref, ID, Kind string
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			return err
		}
		var ref int
		_, _ = fmt.Sscan(answer.Ref, &ref)
		switch answer.Type {
		case "accepted":
			if before := s.ids[ref]; before != "" || !s.lacks[ref] {
				s.t.Errorf("frame %d is answered twice", ref)
			}
			s.ids[ref] = answer.ID
			delete(s.lacks, ref)
		case "failed":
			s.kinds[answer.Kind]++
			delete(s.lacks, ref)
			s.waits = append(s.waits, ref)
			time.Sleep(time.Millisecond)
		default:
			s.kinds[answer.Type]++
		}
		step()
	}
}

// TestSocketSession kills the broker, kills the server and stops it while frames of a
// WebSocket lack their answers. What lacks one is sent again, and is in one file.
func TestSocketSession(t *testing.T) {
	t.Parallel()
	b := rig.NewNATS(t)
	dir := t.TempDir()
	settings := []string{"DATA_OUTPUT_DIR=" + dir, "SHARDS_COUNT=3"}
	_, server := b.Launch(t, settings...)
	n := either(3000, 60_000)
	s := &sockets{t: t, server: server, lacks: make(map[int]bool), ids: make(map[int]string), kinds: make(map[string]int)}
	for ref := range n {
		s.waits = append(s.waits, ref)
	}
	const (
		running = iota
		brokerGone
		brokerBack
		serverKilled
		serverStopped
	)
	state, stopped := running, make(chan int, 1)
	step := func() {
		switch done := len(s.ids); {
		case state == running && done > n/5:
			b.Stop()
			state = brokerGone
		case state == brokerGone && s.kinds["unavailable"]+s.kinds["unknown"] > 0:
			b.Start()
			state = brokerBack
		case state == brokerBack && done > 2*n/5:
			server.Kill()
			state = serverKilled
		case state == serverKilled && done > 3*n/5:
			go func(p *rig.Process) { stopped <- p.Stop() }(s.server)
			state = serverStopped
		}
	}
	for tries := 0; len(s.ids) < n; tries++ {
		before := state
		err := s.stream(step)
		if err == nil {
			continue
		}
		if state == before || tries > 10 {
			t.Fatalf("with %d of %d accepted: %v; %v", len(s.ids), n, err, s.kinds)
		}
		if state == serverStopped {
			if code := <-stopped; code != 0 || s.kinds["drain"] != 1 || websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("stopped with the exit %d, answers %v, the WebSocket ended by %v", code, s.kinds, err)
			}
		}
		s.server = b.LaunchServer(t, settings...)
	}
	if state != serverStopped || s.kinds["unavailable"]+s.kinds["unknown"] == 0 {
		t.Errorf("got the answers %v, in the state %d", s.kinds, state)
	}
	var ids []string
	for _, id := range s.ids {
		ids = append(ids, id+".0")
	}
	rig.Eventually(t, "every entry in a file", func() error {
		tree := rig.ReadTree(t, dir, 3, 5)
		if missing, example := tree.Missing(ids); missing > 0 {
			return fmt.Errorf("%d are missing, such as %s", missing, example)
		}
		if twice, example := tree.Twice(); twice > 0 || len(tree.Lines) != n {
			return fmt.Errorf("%d are there twice, such as %s; %d of %d in all", twice, example, len(tree.Lines), n)
		}
		return nil
	})
}
