package embedded

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"

	"async-data-processor/durable"
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
//
// Nor is it believed about the time of a delivery that lies ahead, as it does
// after a clock was set back: the server would wait for an acknowledgement
// until then.
type consumerState struct {
	progress

	dir      string
	filters  []string
	wrong    bool                // the state contradicts itself
	suspects map[uint64]struct{} // messages that it calls settled, met alive
}

// readConsumers reads the consumers of a stream. One whose configuration cannot
// be read is removed: it holds no message, and the next consumer makes it anew.
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
			var ok bool
			s.progress, ok = readProgress(state)
			s.wrong = !ok
		}
		c.consumers = append(c.consumers, s)
	}
	return nil
}

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
	return errors.Join(ignoreMissing(os.Remove(filepath.Join(c.dir, stateName))), durable.SyncDir(c.dir))
}

// rewrite replaces the state by what is known of it. Without space for that
// the consumer starts over.
func (c *consumerState) rewrite() error {
	temp := filepath.Join(c.dir, stateName+".tmp")
	if err := writeSynced(temp, c.encode()); err != nil {
		return errors.Join(ignoreMissing(os.Remove(temp)), c.reset())
	}
	return errors.Join(os.Rename(temp, filepath.Join(c.dir, stateName)), durable.SyncDir(c.dir))
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
