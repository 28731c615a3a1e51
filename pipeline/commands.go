package pipeline

import (
	"context"
	"errors"
	"net/http"
	"time"

	"async-data-processor/consumer"
	"async-data-processor/control"
	"async-data-processor/event"
	"async-data-processor/message"
	"async-data-processor/server"
)

// takeCommands has the process take commands, and apply those to the shards of its set;
// nil if it consumes nothing.
func (p *process) takeCommands(set *consumer.Set) {
	c := control.CommandConfig{
		Bus: p.broker, Node: p.node.ID(), Nodes: p.node.Node, Shards: p.cfg.Shards, ReadOnly: p.cfg.ReadOnly,
		Check: func(c control.Command) error {
			if err := ofShard(c).Check(time.Now()); err != nil {
				return badCommand{err}
			}
			return nil
		},
		Tell: func(e event.CommandTaken) { auditCommand(p, e) },
	}
	if set != nil {
		c.Apply = func(ctx context.Context, shard int, c control.Command) (control.Outcome, error) {
			if p.cfg.ReadOnly {
				return control.Outcome{}, readOnly(set.Status(), shard)
			}
			out, err := set.Command(ctx, shard, ofShard(c))
			if errors.Is(err, consumer.ErrNotOwner) {
				err = control.ErrNotOwned
			}
			return control.Outcome{Before: out.Before, After: out.After, Repeated: out.Repeated}, err
		}
	}
	p.commands = control.NewCommands(c)
	p.meanwhile = append(p.meanwhile, p.commands.Run)
}

// setIntake has the server of this process take submissions or not. A pause is applied
// once no submission is under way that came before it.
func (p *process) setIntake(i control.Intake) (applied bool, err error) {
	if p.cfg.ReadOnly {
		return false, control.ErrReadOnly
	}
	if !i.Paused {
		p.intake.Pause(nil)
		return true, nil
	}
	p.intake.Pause(&server.Pause{Until: i.Until})
	return p.intake.Idle(), nil
}

// badCommand is an error of a consumer's Check, as control knows it.
type badCommand struct{ error }

func (badCommand) Is(target error) bool { return target == control.ErrCommand }

// readOnly refuses a command to a shard that this process owns.
func readOnly(status consumer.Status, shard int) error {
	for _, sh := range status {
		if sh.Shard == shard && (sh.State == event.ShardRunning || sh.State == event.ShardPaused) {
			return control.ErrReadOnly
		}
	}
	return control.ErrNotOwned
}

// ofShard is the command as a shard takes it.
func ofShard(c control.Command) consumer.Command {
	return consumer.Command{ID: c.ID, Verb: consumer.Verb(c.Verb), Min: c.Min, Max: c.Max, Until: c.Until, Reason: c.Reason, By: c.By}
}

// commandRoutes take commands, and tell what became of them.
func (p *process) commandRoutes() []server.Route {
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.commands.Serve(w, r, server.Client(r)) })
	return []server.Route{
		{Method: http.MethodPost, Path: control.CommandPath, For: server.Admins, Handler: serve},
		{Method: http.MethodGet, Path: control.CommandPath, For: server.Viewers, Handler: serve},
		{Method: http.MethodGet, Path: control.CommandPath + "/*", For: server.Viewers, Handler: serve},
	}
}

// NewCommandID returns an id for a command.
func NewCommandID() string { return message.NewID() }
