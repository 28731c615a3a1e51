package embedded

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	metaName  = "meta.inf"
	sumName   = "meta.sum"
	stateName = "o.dat" // what a consumer was delivered and has acknowledged
)

// consumerState is what the store knows of a consumer of a stream. Its state has no
// checksum, and the server believes it: a message that the state calls
// acknowledged is removed at the next start, one that it calls delivered waits
// for ever. But a work queue removes what is acknowledged. So a message that is
// still there although the state says otherwise proves the state wrong, or
// older than the last crash; without its state a consumer is delivered all
// that is there, and nothing is lost but the count of earlier deliveries.
type consumerState struct {
	dir       string
	filters   []string
	delivered uint64
	floor     uint64 // acknowledged up to here
	pending   map[uint64]struct{}

	wrong    bool                // the state contradicts itself
	suspects map[uint64]struct{} // messages that it calls settled, met alive
}

// readConsumers reads the consumers of a stream. One whose configuration cannot
// be read is removed: it holds no message, and whoever consumes makes it anew.
func (c *streamCheck) readConsumers() error {
	entries, err := os.ReadDir(c.dir(consumerPath))
	if err != nil {
		return ignoreMissing(err)
	}
	for _, e := range entries {
		path := c.dir(consumerPath, e.Name())
		var config struct {
			Filter  string   `json:"filter_subject"`
			Filters []string `json:"filter_subjects"`
		}
		if err := readMeta(path, c.name+"/"+e.Name(), &config); err != nil {
			if !errors.Is(err, errBadMeta) {
				return err
			}
			c.repairs = append(c.repairs, func() error { return os.RemoveAll(path) })
			continue
		}
		s := &consumerState{dir: path, filters: config.Filters, suspects: map[uint64]struct{}{}}
		if config.Filter != "" {
			s.filters = append(s.filters, config.Filter)
		}
		state, err := os.ReadFile(filepath.Join(path, stateName))
		if ignoreMissing(err) != nil {
			return err
		}
		if len(state) > 0 {
			s.wrong = !s.decode(state)
		}
		c.consumers = append(c.consumers, s)
	}
	return nil
}

// decode reads a state (the server's store.go, encodeConsumerState); false if
// it is none.
func (c *consumerState) decode(state []byte) bool {
	const magic, version = 22, 2
	if len(state) < 2 || state[0] != magic || state[1] != version {
		return false
	}
	state, ok := state[2:], true
	number := func() uint64 {
		v, n := binary.Uvarint(state)
		if n <= 0 {
			ok, state = false, nil
			return 0
		}
		state = state[n:]
		return v
	}
	acked := number()
	c.floor = number()
	delivered := number()
	c.delivered = number()
	count := number()
	// The server makes room for this many before it looks for them.
	if !ok || c.floor > c.delivered || acked > delivered || count > uint64(len(state)) {
		return false
	}
	var base int64
	if count > 0 {
		base = signed(number())
	}
	c.pending = make(map[uint64]struct{}, count)
	latest := time.Now().Add(time.Minute).Unix()
	for range count {
		c.pending[c.floor+number()] = struct{}{}
		place, age := acked+number(), signed(number())
		// One delivered in the future would come again after that.
		if place > delivered || base-age > latest {
			return false
		}
	}
	redelivered := number()
	if redelivered > uint64(len(state)) {
		return false
	}
	for range 2 * redelivered {
		number()
	}
	return ok && len(state) == 0
}

// signed undoes the encoding of a signed number as an unsigned one
// (encoding/binary, Varint).
func signed(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// see compares the state with a record.
func (c *consumerState) see(r record) {
	if r.gone {
		delete(c.suspects, r.sequence)
		return
	}
	if _, pending := c.pending[r.sequence]; r.sequence > c.delivered || pending || !c.wants(r.subject) {
		return
	}
	c.suspects[r.sequence] = struct{}{}
}

func (c *consumerState) wants(subject []byte) bool {
	for _, f := range c.filters {
		if server.SubjectMatchesFilter(string(subject), f) {
			return true
		}
	}
	return len(c.filters) == 0
}

// contradicted tells whether the state is wrong, once all records of the
// stream were seen; last is the last sequence.
func (c *consumerState) contradicted(last uint64) bool {
	return c.wrong || len(c.suspects) > 0 || c.delivered > last
}

// reset makes the consumer start over.
func (c *consumerState) reset() error {
	return errors.Join(ignoreMissing(os.Remove(filepath.Join(c.dir, stateName))), syncDir(c.dir))
}

var errBadMeta = errors.New("it does not fit its checksum")

// readMeta reads the configuration in a folder of the server's; errBadMeta if
// it is not as it was written, under the given name.
func readMeta(dir, name string, into any) error {
	text, err := os.ReadFile(filepath.Join(dir, metaName))
	if ignoreMissing(err) != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(dir, sumName))
	if ignoreMissing(err) != nil {
		return err
	}
	hash, err := hashFor(name)
	if err != nil {
		return err
	}
	_, _ = hash.Write(text)
	if hexSum(hash) != string(sum) || json.Unmarshal(text, into) != nil {
		return errBadMeta
	}
	return nil
}
