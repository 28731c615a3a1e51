package control

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"async-data-processor/broker"
)

// WorkerPart is a worker.
type WorkerPart struct {
	// Worker is "<shard>-<number>"; that with the number 0 is the sum of earlier ones.
	Worker     string     `json:"worker"`
	Shard      int        `json:"shard"`
	State      string     `json:"state"`
	Started    time.Time  `json:"started"`
	WhyStarted string     `json:"why_started"`
	Stopped    *time.Time `json:"stopped,omitempty"` // nil while it lives
	WhyStopped string     `json:"why_stopped,omitempty"`
	Messages   int64      `json:"messages"`
	Batches    int64      `json:"batches"`
	Duplicates int64      `json:"duplicates"`
	Dead       int64      `json:"dead"`
	LastFile   string     `json:"last_file,omitempty"`
}

// WorkerView is a worker of a node.
type WorkerView struct {
	// Key is "<node>/<worker>".
	Key  string    `json:"key"`
	Node string    `json:"node"`
	AsOf time.Time `json:"as_of,omitzero"`
	WorkerPart
}

// WorkersAnswer is the answer of /api/v1/workers, in the order of shards and numbers.
type WorkersAnswer struct {
	Head
	Workers []WorkerView `json:"workers"`
	// Next is the key after which there may be others; empty if there are none.
	Next string `json:"next,omitempty"`
}

// WorkerQuery says which workers.
type WorkerQuery struct {
	// Shard is whose; nil for all.
	Shard *int `json:"shard,omitempty"`
	// History adds those that have ended.
	History bool `json:"history,omitempty"`
	// After is the key of the last one that is known; empty for none.
	After string `json:"after,omitempty"`
	// Limit is how many at most, 1 to MaxPage.
	Limit int `json:"limit"`
}

// MaxPage is how many rows a page of a list has at most, and unless the query says less.
const MaxPage = 1024

// workersQuestion asks the nodes for their workers, workersPart is an answer.
type workersQuestion struct {
	V int `json:"v"`
	WorkerQuery
}

type workersPart struct {
	V       int          `json:"v"`
	Node    string       `json:"node"`
	AsOf    time.Time    `json:"as_of"`
	Workers []WorkerPart `json:"workers"`
	// More tells that there are others behind them.
	More bool `json:"more,omitempty"`
}

// place is where a worker is in the list.
type place struct {
	shard, number int
	node          string
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.shard, o.shard), cmp.Compare(p.number, o.number), cmp.Compare(p.node, o.node))
}

// placeOf reads a key.
func placeOf(key string) (p place, err error) {
	i := strings.LastIndexByte(key, '/')
	shard, number, _ := strings.Cut(key[i+1:], "-")
	n, err1 := strconv.ParseUint(shard, 10, 31)
	m, err2 := strconv.ParseUint(number, 10, 31)
	if i < 1 || i > maxName || err1 != nil || err2 != nil {
		return place{}, fmt.Errorf("%.200q is not <node>/<worker>", key)
	}
	return place{int(n), int(m), key[:i]}, nil
}

// Workers asks all nodes for their workers, and answers for this one. Its methods may be
// called concurrently.
type Workers struct {
	node *Node
	// asking holds one for each request that asks.
	asking chan struct{}

	mu    sync.Mutex  // guards what follows
	own   []ownWorker // of this node, as of ownAt; nil if they have to be looked at
	ownAt time.Time
}

// answer is asked of the node's workers.
func (l *Workers) answer(body []byte) []byte {
	n := l.node
	var q workersQuestion
	err := broker.ReadBody(body, &q)
	after := place{shard: -1}
	if err == nil && q.After != "" {
		after, err = placeOf(q.After)
	}
	if err != nil {
		n.cfg.Skips.Add(err)
		return nil
	}
	rows, asOf := l.look()
	p := workersPart{V: broker.BusVersion, Node: n.id, AsOf: asOf}
	room := broker.MaxBusBody - 1024 // for what is around the rows
	begin, _ := slices.BinarySearchFunc(rows, after, func(r ownWorker, at place) int { return r.place.compare(at) })
	for _, r := range rows[begin:] {
		if r.place == after || q.Shard != nil && *q.Shard != r.Shard || r.Stopped != nil && !q.History {
			continue
		}
		text, _ := json.Marshal(r.WorkerPart)
		if room -= len(text) + 1; room < 0 || len(p.Workers) >= min(q.Limit, MaxPage) {
			p.More = true
			break
		}
		p.Workers = append(p.Workers, r.WorkerPart)
	}
	return broker.Body(p)
}

// ownWorker is a worker of this node.
type ownWorker struct {
	WorkerPart
	place place
}

// look returns those of this node, in the order of the list.
func (l *Workers) look() ([]ownWorker, time.Time) {
	n := l.node
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own != nil {
		return l.own, l.ownAt
	}
	l.own, l.ownAt = []ownWorker{}, stamp(time.Now())
	if n.cfg.Workers != nil {
		for _, w := range n.cfg.Workers() {
			if at, err := placeOf(n.id + "/" + w.Worker); err == nil {
				l.own = append(l.own, ownWorker{w, at})
			}
		}
	}
	l.own = inOrder(l.own)
	time.AfterFunc(partAge, func() { // a history may be long
		l.mu.Lock()
		defer l.mu.Unlock()
		l.own = nil
	})
	return l.own, l.ownAt
}

// inOrder sorts workers. What several pools of a shard have summed up becomes one.
func inOrder(all []ownWorker) []ownWorker {
	slices.SortStableFunc(all, func(a, b ownWorker) int { return a.place.compare(b.place) })
	kept := all[:0]
	for _, w := range all {
		if len(kept) == 0 || kept[len(kept)-1].place != w.place {
			kept = append(kept, w)
			continue
		}
		sum := &kept[len(kept)-1]
		sum.Messages += w.Messages
		sum.Batches += w.Batches
		sum.Duplicates += w.Duplicates
		sum.Dead += w.Dead
		sum.Stopped, sum.WhyStopped, sum.LastFile = w.Stopped, w.WhyStopped, cmp.Or(w.LastFile, sum.LastFile)
	}
	return kept
}
