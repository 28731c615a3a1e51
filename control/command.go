package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
	"async-data-processor/message"
)

// Topics of commands on the bus.
const (
	commandTopic = "commands"      // a Command is told
	outcomeTopic = "commands.done" // an Outcome is told: the acknowledgement
)

const (
	// commandWait is how long the client waits for the outcome.
	commandWait = 5 * time.Second
	// commandPatience is how long an owner is looked for. The command is told again
	// every commandInterval, as owners change; its id makes that safe.
	commandPatience = time.Minute
	commandInterval = time.Second
	// maxCommands is how many commands are remembered, maxWaiting how many of
	// this process are not done, and maxRate how many it takes a second.
	maxCommands = 1000
	maxWaiting  = 32
	maxRate     = 10
	// maxApplying bounds the commands to shards that are being applied here.
	maxApplying = 2048
)

// Command is what is wanted of shards, as it is told on the bus. Who may use the broker
// may send one.
type Command struct {
	V    int    `json:"v"`
	Node string `json:"node"` // that took it

	ID     string    `json:"id"`
	Verb   string    `json:"verb"`
	Target string    `json:"target"` // "shard:3", "shard:*" or "intake"
	Min    int       `json:"min,omitempty"`
	Max    int       `json:"max,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
	// Left are those of several shards whose outcome Node does not know; empty for all.
	Left Shards `json:"left,omitempty"`
}

// same tells whether both want the same.
func (c Command) same(o Command) bool {
	return c.Verb == o.Verb && c.Target == o.Target && c.Min == o.Min && c.Max == o.Max && c.Until.Equal(o.Until) && c.Reason == o.Reason
}

// shards returns those that the command is for; none if it is for the intake.
func (c Command) shards(all int) ([]int, error) {
	if c.Target == intakeTarget {
		if c.Verb != "pause" && c.Verb != "resume" {
			return nil, fmt.Errorf("%w: the intake can be paused and resumed, nothing else", ErrCommand)
		}
		return nil, nil
	}
	text, ok := strings.CutPrefix(c.Target, "shard:")
	if ok && text == "*" {
		shards := make([]int, all)
		for n := range shards {
			shards[n] = n
		}
		return shards, nil
	}
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 0 || strconv.Itoa(n) != text {
		return nil, fmt.Errorf("%w: the target is %.50q, want shard:<number>, shard:* or intake", ErrCommand, c.Target)
	}
	return []int{n}, nil
}

// Outcome is what a command has done to a shard, as its owner tells it.
type Outcome struct {
	V    int    `json:"v"`
	Node string `json:"node"`

	ID       string `json:"id"`
	Shard    int    `json:"shard"`
	Before   string `json:"before"`
	After    string `json:"after"`
	Repeated bool   `json:"repeated,omitempty"`
	// Error is why it was not applied; empty if it was.
	Error string `json:"error,omitempty"`
}

var (
	// ErrCommand: the command can never be applied.
	ErrCommand = errors.New("no such command")
	// ErrNotOwned: the shard is not owned by this process.
	ErrNotOwned = errors.New("the shard is not owned here")
	// ErrReadOnly: this process takes no commands.
	ErrReadOnly = errors.New("this process is read-only and takes no commands")
	// ErrTooMany: more commands wait, or come in a second, than the process takes.
	ErrTooMany = errors.New("too many commands at a time")
	// ErrStopping: this process starts, or stops.
	ErrStopping = errors.New("this process is not running")
	// ErrConflict: another command had the same id.
	ErrConflict = errors.New("another command has this id")
)

// CommandConfig sets up Commands.
type CommandConfig struct {
	// Bus reaches the other processes; nil if there are none.
	Bus broker.Bus
	// Node is the name of this process.
	Node string
	// Nodes keeps what commands say of the intake, and knows which shards there are.
	Nodes *Node
	// Shards is the number of shards.
	Shards int
	// Check returns ErrCommand unless the command can be applied to a shard.
	Check func(Command) error
	// Apply applies the command to a shard, and returns when it is done: see
	// consumer.Set.Command. It fails with ErrNotOwned if another process owns the shard.
	// It is called concurrently. nil in a process that owns no shards.
	Apply func(ctx context.Context, shard int, c Command) (Outcome, error)
	// Tell tells the audit, before the command is acted on.
	Tell func(event.CommandTaken)
	// ReadOnly refuses every command of a client.
	ReadOnly bool
}

// Commands takes commands for the whole system, and applies those for shards that this
// process owns. The owner of a shard is its only authority: what it tells is the
// acknowledgement. Its methods may be called concurrently.
//
//	client ──▶ Take ──bus──▶ owner: durable, act ──bus──▶ outcome ──▶ client
type Commands struct {
	cfg CommandConfig

	mu       sync.Mutex // guards what follows
	ctx      context.Context
	records  map[string]*record
	order    []string // of their ids, the oldest first
	waiting  int      // commands of this process that are not done
	applying map[string]bool
	second   time.Time // in which taken commands came
	taken    int
}

// record is what is known of a command.
type record struct {
	Command
	at       time.Time
	shards   []int
	outcomes map[int]Outcome
	done     chan struct{} // closed when every shard has an outcome, or every server
	pursued  bool          // this process tells it until then

	// Of a command to the intake: what servers have told, how many have not, and why it
	// can not be done any more.
	servers map[string]ShardOutcome
	silent  int
	failure string
}

// complete tells whether done is closed.
func (r *record) complete() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// NewCommands returns Commands that do nothing before Run.
func NewCommands(cfg CommandConfig) *Commands {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return &Commands{cfg: cfg, ctx: ctx, records: make(map[string]*record), applying: make(map[string]bool)}
}

// Run applies what others tell, and waits for outcomes, until ctx ends. It is called once.
func (c *Commands) Run(ctx context.Context) {
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	if c.cfg.Bus != nil {
		defer c.cfg.Bus.Listen(commandTopic, c.hear)()
		defer c.cfg.Bus.Listen(outcomeTopic, c.hearOutcome)()
	}
	<-ctx.Done()
}

// Take takes a command of a client, and waits until it is done, for commandWait at most.
// The view says what is known then. An error says that nothing was done.
func (c *Commands) Take(ctx context.Context, cmd Command, from string) (CommandView, error) {
	cmd.V, cmd.Node = broker.BusVersion, c.cfg.Node
	shards, err := cmd.shards(c.cfg.Shards)
	if err == nil {
		err = c.cfg.Check(cmd)
	}
	if err == nil {
		err = c.missing(shards)
	}
	if err != nil {
		return CommandView{}, err
	}
	if cmd.ID == "" {
		cmd.ID = message.NewID()
	}
	r, pursue, err := c.admit(cmd, shards)
	if err != nil {
		return CommandView{}, err
	}
	if pursue {
		c.cfg.Tell(event.CommandTaken{ID: cmd.ID, Verb: cmd.Verb, Target: cmd.Target, By: cmd.By, From: from, Reason: cmd.Reason})
		go c.pursue(r)
	}
	timeout := time.NewTimer(commandWait)
	defer timeout.Stop()
	select {
	case <-r.done:
	case <-timeout.C:
	case <-ctx.Done():
	}
	return c.view(r), nil
}

// missing returns ErrCommand for a shard that is not there: it is beyond the number, and
// neither a node nor the broker has told of it. Its owner would be awaited in vain.
func (c *Commands) missing(shards []int) error {
	if len(shards) != 1 || shards[0] < c.cfg.Shards {
		return nil
	}
	s := c.cfg.Nodes.System()
	if !s.Head().Complete || !s.Queues || slices.ContainsFunc(s.Shards, func(v ShardView) bool { return v.Shard == shards[0] }) {
		return nil
	}
	return fmt.Errorf("%w: there is no shard %d, there are shards 0 to %d", ErrCommand, shards[0], c.cfg.Shards-1)
}

// admit remembers the command, or finds it. It returns whether the caller has to pursue
// it: another process may have taken it first and be gone, or patience has ended before.
func (c *Commands) admit(cmd Command, shards []int) (r *record, pursue bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.ReadOnly {
		return nil, false, ErrReadOnly
	}
	r = c.records[cmd.ID]
	switch {
	case r != nil && !r.same(cmd):
		return nil, false, ErrConflict
	case r != nil && (r.pursued || r.complete()):
		return r, false, nil
	}
	if now := time.Now(); now.Sub(c.second) >= time.Second {
		c.second, c.taken = now, 0
	}
	if c.ctx.Err() != nil {
		return nil, false, ErrStopping
	}
	if c.taken++; c.taken > maxRate || c.waiting >= maxWaiting {
		return nil, false, ErrTooMany
	}
	c.waiting++
	if r == nil {
		r = c.remember(cmd, shards)
	}
	r.pursued = true
	return r, true, nil
}

// remember adds a record, and forgets the oldest. mu is held.
func (c *Commands) remember(cmd Command, shards []int) *record {
	r := &record{Command: cmd, at: time.Now(), shards: shards, outcomes: make(map[int]Outcome), done: make(chan struct{})}
	c.records[cmd.ID] = r
	c.order = append(c.order, cmd.ID)
	if len(c.order) > maxCommands {
		delete(c.records, c.order[0])
		c.order = c.order[1:]
	}
	return r
}

// pursue tells the command until every shard has an outcome, or patience ends; one to the
// intake goes its own way.
func (c *Commands) pursue(r *record) {
	defer func() {
		c.mu.Lock()
		c.waiting--
		r.pursued = false
		c.mu.Unlock()
	}()
	if r.Target == intakeTarget {
		c.takeIntake(r)
		return
	}
	again := time.NewTicker(commandInterval)
	defer again.Stop()
	for began := time.Now(); time.Since(began) < commandPatience; {
		c.apply(r.Command, r.shards)
		cmd := r.Command
		cmd.Node, cmd.Left = c.cfg.Node, c.left(r)
		c.tell(commandTopic, cmd)
		select {
		case <-r.done:
			return
		case <-again.C:
		case <-c.context().Done():
			return
		}
	}
}

// left returns the shards of several that have no outcome; nil for all.
func (c *Commands) left(r *record) (left Shards) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(r.outcomes) == 0 {
		return nil
	}
	for _, n := range r.shards {
		if _, known := r.outcomes[n]; !known {
			left.Add(n)
		}
	}
	return left
}

func (c *Commands) context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ctx
}

// tell tells a body. The bus may be away: what is told again is told when it is back.
func (c *Commands) tell(topic string, body any) {
	if c.cfg.Bus != nil {
		_ = c.cfg.Bus.Tell(topic, broker.Body(body))
	}
}
