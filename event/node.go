package event

import "time"

// NodeCame tells that another process of the system is there.
type NodeCame struct {
	Node  string
	Roles []string
	Host  string
}

// NodeGone tells that another process was silent for too long.
type NodeGone struct {
	Node   string
	Silent time.Duration
}

// SharesChanged tells how many of the shards are meant for this process, and how many
// message-consumers share them.
type SharesChanged struct{ Consumers, Shards, Mine int }

// IntakeIsPaused tells that the server takes no submissions, at once and every 10 minutes.
type IntakeIsPaused struct {
	Since, Until time.Time // Until is zero if it does not end by itself
	Reason, By   string
}

// IntakeResumed tells that the server takes submissions again.
type IntakeResumed struct {
	By      string // who has paused or resumed it
	Expired bool   // the pause has ended by itself
}

func (NodeCame) event()       {}
func (NodeGone) event()       {}
func (SharesChanged) event()  {}
func (IntakeIsPaused) event() {}
func (IntakeResumed) event()  {}
