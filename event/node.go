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

func (NodeCame) event()      {}
func (NodeGone) event()      {}
func (SharesChanged) event() {}
