package control

import (
	"slices"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
)

// Part is what a node tells about itself when it is asked for a snapshot.
type Part struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	// AsOf is the node's own time.
	AsOf     time.Time `json:"as_of"`
	Info     Info      `json:"info"`
	Draining bool      `json:"draining"`
	// Checks are those of readiness.
	Checks []Check `json:"checks"`
	// Mine is how many shards are meant for it.
	Mine   int         `json:"mine"`
	Shards []ShardPart `json:"shards,omitempty"`
	// Accepted is how many messages a server has accepted since it started.
	Accepted *int64 `json:"accepted,omitempty"`
	// Totals since the process started.
	Totals Totals `json:"totals"`
	Disk   *Disk  `json:"disk,omitempty"`
	// Skipped counts what it could not read on the bus.
	Skipped Skipped `json:"skipped"`
	// Intake is of a server: open or paused, and then why.
	Intake      string `json:"intake,omitempty"`
	IntakePause *Pause `json:"intake_pause,omitempty"`
	// LeftOut counts what did not fit into the answer.
	LeftOut LeftOut `json:"left_out,omitzero"`
}

// Check is a condition of being ready. Why is empty if it holds.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Why  string `json:"why,omitempty"`
}

// ShardPart is a shard that a node runs, or that it has started.
type ShardPart struct {
	Shard int              `json:"shard"`
	State event.ShardState `json:"state"`
	Since time.Time        `json:"since"`
	Why   string           `json:"why,omitempty"` // it does not run
	Pause *Pause           `json:"pause,omitempty"`
	// InHand is how many envelopes were received and not settled, Held how many workers
	// keep a batch that the output does not take.
	InHand int `json:"in_hand"`
	Held   int `json:"held"`
	// OldestAge is how long ago the oldest message was accepted that is in no file, in
	// seconds: 0 if there is none, nil if that is not known.
	OldestAge *float64 `json:"oldest_unwritten_age_s"`
	// IDs is how many ids of written messages are remembered, IDsAge since how many
	// seconds.
	IDs    int     `json:"ids_remembered"`
	IDsAge float64 `json:"ids_remembered_s"`
	// Workers is how many there are, within their bounds.
	Workers    int `json:"workers"`
	WorkersMin int `json:"workers_min"`
	WorkersMax int `json:"workers_max"`
	Totals
}

// Pause is why nothing of a shard is consumed.
type Pause struct {
	Since time.Time `json:"since"`
	// Until is when it ends by itself; zero for never.
	Until time.Time `json:"until,omitzero"`
	// Why and By are what the command said.
	Why string `json:"why,omitempty"`
	By  string `json:"by,omitempty"`
}

// Totals count messages.
type Totals struct {
	Written    int64 `json:"written"`
	Duplicates int64 `json:"duplicates"`
	Dead       int64 `json:"dead"`
}

// Add adds others.
func (t *Totals) Add(o Totals) {
	t.Written += o.Written
	t.Duplicates += o.Duplicates
	t.Dead += o.Dead
}

// Disk is that of a node's output, in bytes.
type Disk struct {
	Folder  string `json:"folder"`
	Free    int64  `json:"free"`
	MinFree int64  `json:"min_free"`
}

// Skipped counts bodies of a version that the node does not know, others that it cannot
// read, and beats for which it has no room or that have its own name.
type Skipped struct {
	Version int64 `json:"version"`
	Broken  int64 `json:"broken"`
	Refused int64 `json:"refused"`
}

// LeftOut counts what a Part lacks because it would be too long for the bus.
type LeftOut struct {
	Shards int `json:"shards,omitempty"`
}

const (
	// maxWhy bounds the text of an error in a Part, in bytes.
	maxWhy = 500
	// maxChecks bounds the checks of a Part.
	maxChecks = 32
)

// Why returns the text of an error for a Part; empty for nil.
func Why(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	return text[:min(len(text), maxWhy)]
}

// partAge is how old a node's own Part may be, so that many questions cost one look.
const partAge = 250 * time.Millisecond

// answer is asked of the node's part.
func (n *Node) answer([]byte) []byte {
	n.partMu.Lock()
	defer n.partMu.Unlock()
	if n.part == nil || time.Since(n.partAt) >= partAge {
		n.part, n.partAt = n.look(), time.Now()
	}
	return n.part
}

// look returns the node's part as of now.
func (n *Node) look() []byte {
	p := n.cfg.Part()
	p.V, p.Node, p.AsOf, p.Info = broker.BusVersion, n.id, stamp(time.Now()), n.cfg.Info
	n.mu.Lock()
	p.Draining, p.Mine, p.Skipped.Refused = n.draining, n.mine, int64(n.members.refused)
	if n.cfg.Intake != nil {
		p.Intake, p.IntakePause = IntakeOpen, n.intake.pause(time.Now())
		if p.IntakePause != nil {
			p.Intake = IntakePaused
		}
	}
	n.mu.Unlock()
	p.Skipped.Version, p.Skipped.Broken = n.cfg.Skips.Counts()
	return fit(p, broker.MaxBusBody)
}

// stamp is a time as it is told: UTC, in milliseconds.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// fit returns the part's JSON. It leaves out what makes it longer than most: first
// errors and reasons of shards, then shards.
func fit(p Part, most int) []byte {
	for {
		body := broker.Body(p)
		hasWhy := slices.ContainsFunc(p.Shards, func(s ShardPart) bool { return s.Why != "" || s.Pause != nil && s.Pause.Why+s.Pause.By != "" })
		switch {
		case len(body) <= most:
			return body
		case hasWhy:
			p.Shards = slices.Clone(p.Shards)
			for i := range p.Shards {
				p.Shards[i].Why = ""
				if was := p.Shards[i].Pause; was != nil {
					p.Shards[i].Pause = &Pause{Since: was.Since, Until: was.Until}
				}
			}
		case len(p.Shards) > 0:
			p.LeftOut.Shards += (len(p.Shards) + 1) / 2
			p.Shards = p.Shards[:len(p.Shards)/2]
		default:
			return nil // its checks alone are too long
		}
	}
}
