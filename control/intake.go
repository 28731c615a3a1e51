package control

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"async-data-processor/event"
)

const (
	// intakeTarget is the target of commands to all servers.
	intakeTarget = "intake"
	// intakeRecent bounds how many commands to the intake are remembered.
	intakeRecent = 8
	// maxRev bounds the numbers of an Intake, so that each has a next one.
	maxRev = 1 << 53
	// intakeInterval is how often a pause is told again.
	intakeInterval = 10 * time.Minute
)

// Intake is whether the servers take submissions, as the last command says. Every node
// keeps the latest one that it has heard of, and tells it in its beats. So it is known for
// as long as one process of the system lives, and a new one takes it from the others.
type Intake struct {
	// Rev is higher than that of the Intake which this one follows. Of two that follow
	// the same, the one with the higher ID holds.
	Rev uint64 `json:"rev"`
	// ID is of the command.
	ID     string    `json:"id"`
	Paused bool      `json:"paused,omitempty"`
	Since  time.Time `json:"since"`
	// Until is when a pause ends by itself; zero for never. Each server measures that
	// with its own clock.
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
	// Recent are the ids of the commands before.
	Recent []string `json:"recent,omitempty"`

	// Applied tells that the node which tells it is a server, and does so. Error is why
	// it never will.
	Applied bool   `json:"applied,omitempty"`
	Error   string `json:"error,omitempty"`
}

// later tells whether i holds, and not o.
func (i *Intake) later(o *Intake) bool {
	return o == nil || i.Rev > o.Rev || i.Rev == o.Rev && i.ID > o.ID
}

// paused tells whether no submission is to be taken.
func (i *Intake) paused(now time.Time) bool {
	return i != nil && i.Paused && (i.Until.IsZero() || now.Before(i.Until))
}

// check bounds what another process has told.
func (i *Intake) check() error {
	if i == nil {
		return nil
	}
	long := len(i.ID) > maxName || len(i.Recent) > intakeRecent
	for _, text := range append([]string{i.Reason, i.By, i.Error}, i.Recent...) {
		long = long || len(text) > maxOutcomeText
	}
	if long || i.Rev > maxRev {
		return errors.New("an intake with too long a text, or too high a number")
	}
	return nil
}

// text describes it for people.
func (i *Intake) text(now time.Time) string {
	switch {
	case !i.paused(now):
		return "open"
	case i.Until.IsZero():
		return "paused"
	}
	return "paused until " + i.Until.UTC().Format(time.RFC3339)
}

// pause is what a snapshot tells of it, nil unless it is paused.
func (i *Intake) pause(now time.Time) *Pause {
	if !i.paused(now) {
		return nil
	}
	return &Pause{Since: i.Since, Until: i.Until, Why: i.Reason, By: i.By}
}

// errSuperseded: a later command to the intake holds.
var errSuperseded = errors.New("a later command to the intake came before every server had done it")

// setIntake makes the command the latest one, and tells it soon. before describes what
// held until then. A command that is the latest already is not set again.
func (n *Node) setIntake(c Command) (set Intake, before string, err error) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.intake
	before = was.text(now)
	set = Intake{Rev: 1, ID: c.ID, Paused: c.Verb == "pause", Since: stamp(now), Until: c.Until.UTC(), Reason: c.Reason, By: c.By}
	if was != nil {
		switch {
		case was.ID == c.ID:
			return *was, before, nil
		case slices.Contains(was.Recent, c.ID):
			return set, before, errSuperseded
		case was.Rev >= maxRev:
			return set, before, errors.New("another program has told of too many commands to the intake; stop all processes once")
		}
		set.Rev = was.Rev + 1
		set.Recent = append(slices.Clone(was.Recent[max(0, len(was.Recent)-intakeRecent+1):]), was.ID)
		if set.Paused && was.paused(now) {
			set.Since = was.Since
		}
	}
	n.intake = &set
	n.wake()
	return set, before, nil
}

// adoptIntake takes what another node has told, if it is later. mu is held.
func (n *Node) adoptIntake(told *Intake) {
	if told == nil || !told.later(n.intake) {
		return
	}
	heard := *told
	heard.Applied, heard.Error = false, ""
	n.intake = &heard
}

// applyIntake has this process's server do what holds, and tells of a pause. It is only
// called by Run.
func (n *Node) applyIntake(now time.Time) {
	n.mu.Lock()
	holds := n.intake
	n.mu.Unlock()
	if holds == nil || n.cfg.Intake == nil {
		return
	}
	applied, err := n.cfg.Intake(*holds)
	next := *holds
	next.Applied, next.Error = applied && err == nil, Why(err)
	if next.Applied != holds.Applied || next.Error != holds.Error {
		n.mu.Lock()
		if n.intake == holds {
			n.intake = &next
		}
		n.mu.Unlock()
	}
	if err != nil {
		return
	}
	switch paused := holds.paused(now); {
	case paused && (n.pausedID != holds.ID || now.Sub(n.pausedTold) >= intakeInterval):
		n.pausedID, n.pausedTold = holds.ID, now
		n.cfg.Events.Send(event.IntakeIsPaused{Since: holds.Since, Until: holds.Until, Reason: holds.Reason, By: holds.By})
	case !paused && n.pausedID != "":
		n.pausedID = ""
		n.cfg.Events.Send(event.IntakeResumed{By: holds.By, Expired: holds.Paused})
	}
}

// intakeTold returns what the servers that are there have told of what was set, and how
// many have not told anything. It fails with errSuperseded.
func (n *Node) intakeTold(set *Intake, before string) (told map[string]ShardOutcome, waiting int, err error) {
	now := time.Now()
	told = make(map[string]ShardOutcome)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.intake.later(set) {
		return told, 0, errSuperseded
	}
	count := func(node string, i *Intake) {
		switch {
		case i == nil || i.Rev != set.Rev || i.ID != set.ID || !i.Applied && i.Error == "":
			waiting++
		case i.Error != "":
			told[node] = ShardOutcome{Node: node, Before: before, Error: i.Error}
		default:
			told[node] = ShardOutcome{Node: node, Before: before, After: set.text(now)}
		}
	}
	if n.cfg.Intake != nil {
		count(n.id, n.intake)
	}
	for name, k := range n.members.all {
		if (k.here || k.lost) && slices.Contains(k.beat.Info.Roles, ServerRole) {
			count(name, k.beat.Intake)
		}
	}
	// Without the bus, or a server, it is not known that each has told it.
	if n.members.away(now) || len(told)+waiting == 0 {
		waiting++
	}
	return told, waiting, nil
}

// takeIntake pursues a command to the intake until every server has told that it has done
// it, or patience ends. The nodes tell each other of it in the meantime.
func (c *Commands) takeIntake(r *record) {
	set, before, err := c.cfg.Nodes.setIntake(r.Command)
	again := time.NewTicker(intakeLook)
	defer again.Stop()
	for began := time.Now(); err == nil && time.Since(began) < commandPatience; {
		var told map[string]ShardOutcome
		var waiting int
		told, waiting, err = c.cfg.Nodes.intakeTold(&set, before)
		c.mu.Lock()
		r.servers, r.silent = told, waiting
		c.mu.Unlock()
		if waiting == 0 {
			break
		}
		select {
		case <-again.C:
		case <-c.context().Done():
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		r.failure = fmt.Sprint("intake: ", err)
	}
	if err != nil || r.silent == 0 {
		close(r.done)
	}
}

// intakeLook is how often it is looked whether every server has done it.
const intakeLook = 50 * time.Millisecond
