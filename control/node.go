// Package control has the processes of a system know of each other. A process is a
// node: it tells on the bus that it is there, shares the shards with the other
// consumers, and answers for the whole system.
//
//	bus ◀──beats──▶ members ──▶ share ──Start, Stop──▶ consumer.Set
//	 ▲                              ▲
//	 │                              └── assign: which node is meant to own which shard
//	 └──ask, answer──▶ snapshots ──▶ GET /api/v1/…
//
// The work with entries never depends on it. Without the bus a consumer owns all
// shards that no other process owns.
package control

import (
	"cmp"
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// Config sets up a Node.
type Config struct {
	Bus broker.Bus
	// Skips counts what on the bus cannot be used; nil counts nothing.
	Skips *broker.Skips
	// Name is the beginning of the node's id; default: the host's name.
	Name string
	Info Info
	// Shards is the number of shards.
	Shards int
	// Owner owns shards, all of them at the start; nil in a process that consumes
	// nothing. Consumer returns what it has at the moment; Shards is set by the Node.
	Owner    Owner
	Consumer func() Consumer
	// Sought returns the shards for whose folder another process has waited since the last
	// call, which could write them. It may ask a disk. It is called while the bus is away
	// and the output or the broker takes nothing; nil for none.
	Sought func() []int
	// Intake has the server of this process do what holds for all servers, and returns
	// whether it does so by now. An error says that it never will. It is called often,
	// also when nothing has changed; nil in a process without a server.
	Intake func(Intake) (applied bool, err error)
	// Part returns this process's part of a snapshot: checks, shards, totals and disk.
	// Workers returns its workers, those that have ended, too; nil for none. Backlogs returns
	// the depth of each queue from a shard on.
	Part     func() Part
	Workers  func() []WorkerPart
	Backlogs func(ctx context.Context, from int) ([]broker.Backlog, error)
	// Events is told what happens.
	Events event.Sink
}

const (
	// stepInterval is how often a node looks at itself.
	stepInterval = 500 * time.Millisecond
	// stepPause is the least time between two looks, and so between two beats, however
	// much the others tell.
	stepPause = 50 * time.Millisecond
)

// Node is this process among the others. Its methods may be called concurrently.
type Node struct {
	// Workers are those of all nodes.
	Workers *Workers

	cfg Config
	id  string
	// woken wakes up Run; it holds one wake-up.
	woken    chan struct{}
	gathered gathering

	// failing is since when the output takes nothing; only used by Run.
	failing time.Time
	// looked tells that Sought was asked the last time, so that it says what is new now;
	// only used by Run.
	looked bool
	// pausedID is the command of the pause that was told last, at pausedTold; empty if the
	// server is not paused. Only used by Run.
	pausedID   string
	pausedTold time.Time

	partMu sync.Mutex // guards what follows
	part   []byte     // the node's own part, as of partAt
	partAt time.Time

	mu       sync.Mutex // guards what follows
	seq      uint64
	members  *members
	intake   *Intake // nil if it was never set; what it points to never changes
	share    *share  // nil in a process that consumes nothing
	told     Beat    // the last
	toldAt   time.Time
	owed     Kind // what the others are to be told soon; empty for nothing
	draining bool
	mine     int // how many shards are meant for this node, of so many consumers
	nodes    int
}

// New returns the node of this process.
func New(cfg Config) *Node {
	host, _ := os.Hostname() // empty if it has none
	cfg.Info.Host, cfg.Info.PID = clip(host), os.Getpid()
	for _, text := range []*string{&cfg.Info.Version, &cfg.Info.Address, &cfg.Info.Broker} { // a cluster has many addresses
		*text = broker.Clip(*text, maxText)
	}
	cfg.Info.Started = stamp(time.Now())
	id := message.NewID()
	n := &Node{cfg: cfg, woken: make(chan struct{}, 1)}
	n.id = clip(cmp.Or(cfg.Name, host, "node")) + "-" + id[len(id)-6:]
	n.Workers = &Workers{node: n, asking: make(chan struct{}, maxAsking)}
	n.members = newMembers(n.id)
	n.failing = time.Now().Add(-failAfter) // until it has worked once
	if cfg.Owner != nil {
		n.share = newShare(time.Now(), n.id, cfg.Shards, cfg.Owner)
		n.mine, n.nodes = cfg.Shards, 1
	}
	return n
}

// clip cuts a name to what others take.
func clip(name string) string { return broker.Clip(name, maxName-10) }

// ID is the name of the node among the others.
func (n *Node) ID() string { return n.id }

// Mine returns how many shards are meant for this node.
func (n *Node) Mine() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mine
}

// Others returns the names of the other nodes that are there and have the role, never nil.
func (n *Node) Others(role string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := []string{}
	for name, k := range n.members.all {
		if k.here && slices.Contains(k.beat.Info.Roles, role) {
			names = append(names, name)
		}
	}
	return names
}

// Awaited returns the names of the other nodes that are there, or were before the bus went
// away, and whether the bus is there.
func (n *Node) Awaited() (others []string, connected bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, k := range n.members.all {
		if k.here || k.lost {
			others = append(others, name)
		}
	}
	return others, !n.members.away(time.Now())
}

// Run tells the others of this node, and hears of them, until ctx ends; then it says
// goodbye. It is called once.
func (n *Node) Run(ctx context.Context) {
	defer n.cfg.Bus.Answer(snapshotTopic, n.answer)()
	defer n.cfg.Bus.Answer(workersTopic, n.Workers.answer)()
	defer n.cfg.Bus.Listen(nodesTopic, n.hear)()
	tick := time.NewTicker(stepInterval)
	defer tick.Stop()
	for {
		n.step(time.Now(), false)
		if !backoff.Sleep(ctx, stepPause) {
			break
		}
		select {
		case <-tick.C:
		case <-n.woken:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	n.step(time.Now(), true)
}

// Drain tells, soon, that this node gives up its shards. It does not wait.
func (n *Node) Drain() {
	n.mu.Lock()
	n.draining = true
	n.mu.Unlock()
	n.wake()
}

// hear takes what another node has told.
func (n *Node) hear(body []byte, missed int) {
	if missed == broker.Reconnected {
		n.mu.Lock()
		n.owed = Hello
		n.mu.Unlock()
		n.wake()
		return
	}
	b, err := parseBeat(body)
	if err != nil {
		n.cfg.Skips.Add(err)
		return
	}
	n.mu.Lock()
	if b.Node == n.id && b.Seq <= n.seq { // its own
		n.members.heardSelf(time.Now())
		n.mu.Unlock()
		return
	}
	came := n.members.heard(time.Now(), b)
	n.adoptIntake(b.Intake)
	if n.owed == "" && (came || b.Kind == Hello) {
		n.owed = Still
	}
	n.mu.Unlock()
	if came {
		n.cfg.Events.Send(event.NodeCame{Node: b.Node, Roles: b.Info.Roles, Host: b.Info.Host})
	}
	n.wake()
}

func (n *Node) wake() {
	select {
	case n.woken <- struct{}{}:
	default:
	}
}

// failAfter is how long the output of this node fails before others take its shards.
const failAfter = 5 * time.Second

// consumer returns what the process has of shards, nil if it consumes nothing.
func (n *Node) consumer(now time.Time) *Consumer {
	if n.cfg.Owner == nil {
		return nil
	}
	c := n.cfg.Consumer()
	c.Shards = n.cfg.Shards
	if c.Works {
		n.failing = time.Time{}
	} else if n.failing.IsZero() {
		n.failing = now
	}
	c.Works = n.failing.IsZero() || now.Sub(n.failing) < failAfter
	return &c
}

// lookAround asks which shards others wait for, if this node does not hear of them and cannot
// write.
func (n *Node) lookAround(now time.Time, own *Consumer) {
	if own == nil || n.cfg.Sought == nil {
		return
	}
	n.mu.Lock()
	blind := !own.Works && n.members.away(now)
	n.mu.Unlock()
	was := n.looked
	if n.looked = blind; !blind {
		return
	}
	for _, shard := range n.cfg.Sought() {
		if was {
			own.sought.Add(shard)
		}
	}
}

// step lets the time pass, decides about shards, and tells the others what is new.
func (n *Node) step(now time.Time, leaves bool) {
	own := n.consumer(now)
	n.applyIntake(now)
	n.lookAround(now, own)
	var news []event.Event
	n.mu.Lock()
	for _, name := range n.members.pass(now) {
		news = append(news, event.NodeGone{Node: name, Silent: goneAfter})
	}
	if n.share != nil && !n.draining {
		if nodes, mine := n.share.step(now, *own, n.members); nodes != n.nodes || mine != n.mine {
			n.nodes, n.mine = nodes, mine
			news = append(news, event.SharesChanged{Consumers: nodes, Shards: n.cfg.Shards, Mine: mine})
		}
	}
	var body []byte
	if leaves {
		n.owed = Goodbye
	}
	if n.due(now, own) {
		body = n.beat(now, own)
	}
	n.mu.Unlock()
	for _, e := range news {
		n.cfg.Events.Send(e)
	}
	if body != nil {
		_ = n.cfg.Bus.Tell(nodesTopic, body) // the bus may be away; the next beat comes soon
	}
}

// due tells whether the others should hear of this node now. mu is held.
func (n *Node) due(now time.Time, own *Consumer) bool {
	if n.owed != "" || now.Sub(n.toldAt) >= beatInterval || n.told.Draining != n.draining || n.told.Intake != n.intake {
		return true
	}
	return own != nil && !own.equal(n.told.Consumer)
}

// beat returns what tells of this node. mu is held.
func (n *Node) beat(now time.Time, own *Consumer) []byte {
	n.seq++
	n.told = Beat{V: broker.BusVersion, Node: n.id, Seq: n.seq, Kind: cmp.Or(n.owed, Still), Info: n.cfg.Info, Draining: n.draining, Consumer: own, Intake: n.intake}
	n.toldAt, n.owed = now, ""
	return broker.Body(n.told)
}
