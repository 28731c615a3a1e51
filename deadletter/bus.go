package deadletter

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"async-data-processor/broker"
	"async-data-processor/event"
)

// Topics of the bus. Each node answers with those of its tasks that are asked for.
const (
	tasksTopic  = "dead-letters.tasks"
	cancelTopic = "dead-letters.cancel"
)

// maxGathered bounds the tasks of all nodes that are told.
const maxGathered = 2000

// question asks for tasks: those of an id, or all.
type question struct {
	V    int    `json:"v"`
	Node string `json:"node"`
	ID   string `json:"id,omitempty"`
	By   string `json:"by,omitempty"`
	From string `json:"from,omitempty"`
}

// told is the answer of a node.
type told struct {
	V     int    `json:"v"`
	Node  string `json:"node"`
	Tasks []Task `json:"tasks"`
}

// mine returns the tasks of this process that have the id, or all; the newest first.
func (l *Letters) mine(id string) (mine []*task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range slices.Backward(l.tasks) {
		if id == "" || t.told.ID == id { // an id never changes
			mine = append(mine, t)
		}
	}
	return mine
}

func views(tasks []*task) []Task {
	views := make([]Task, 0, len(tasks))
	for _, t := range tasks {
		views = append(views, t.view())
	}
	return views
}

// answer is what this node tells of its tasks; nil if it has none that was asked for. It
// leaves out the oldest that do not fit.
func (l *Letters) answer(q *question, tasks []Task) []byte {
	if q.ID != "" && len(tasks) == 0 {
		return nil
	}
	for {
		body := broker.Body(told{broker.BusVersion, l.cfg.Node(), tasks})
		if len(body) <= broker.MaxBusBody || len(tasks) == 0 {
			return body
		}
		tasks = tasks[:len(tasks)*3/4]
	}
}

// answerTasks answers another node, or this one.
func (l *Letters) answerTasks(body []byte) []byte {
	var q question
	if broker.ReadBody(body, &q) != nil {
		return nil
	}
	return l.answer(&q, views(l.mine(q.ID)))
}

// answerCancel cancels a task that another node was asked to cancel.
func (l *Letters) answerCancel(body []byte) []byte {
	var q question
	if broker.ReadBody(body, &q) != nil || q.ID == "" || q.Node == l.cfg.Node() {
		return nil
	}
	mine := l.mine(q.ID)
	if len(mine) == 0 {
		return nil
	}
	l.stop(mine[0], broker.Clip(q.By, maxText), broker.Clip(q.From, maxText))
	return l.answer(&q, views(mine))
}

// stop cancels a task, and waits a moment for its end.
func (l *Letters) stop(t *task, by, from string) {
	v := t.view()
	if v.State != Running {
		return
	}
	l.cfg.Tell(event.DeadLettersChange{Do: "cancel", Task: v.ID, Letters: -1, By: by, From: from})
	why := errCancelled
	if by != "" {
		why = fmt.Errorf("%w by %s", errCancelled, by)
	}
	t.cancel(why)
	wait := time.NewTimer(cancelWait)
	defer wait.Stop()
	select {
	case <-t.ended:
	case <-wait.C:
	}
}

// ask asks the other nodes, and returns what they tell. all tells that each has answered.
func (l *Letters) ask(ctx context.Context, topic string, q question, within time.Duration, enough func([]Task) bool) (tasks []Task, all bool) {
	left := l.cfg.Nodes() - 1
	if left <= 0 {
		return nil, true
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	q.V, q.Node = broker.BusVersion, l.cfg.Node()
	heard := map[string]bool{q.Node: true}
	err := l.cfg.Broker.Ask(ctx, topic, broker.Body(q), func(answer []byte) bool {
		var a told
		if broker.ReadBody(answer, &a) != nil || heard[a.Node] || len(a.Node) > maxText || len(a.Tasks) > maxTasks {
			return true
		}
		heard[a.Node] = true
		for _, t := range a.Tasks {
			if t.Node != a.Node || len(tasks) >= maxGathered {
				continue
			}
			t.ID, t.By, t.Reason, t.Error = broker.Clip(t.ID, maxText), broker.Clip(t.By, maxText), broker.Clip(t.Reason, maxWhy), broker.Clip(t.Error, maxReason)
			tasks = append(tasks, t)
		}
		left--
		return left > 0 && !enough(tasks)
	})
	return tasks, err == nil && left <= 0
}

// Tasks are the tasks of all nodes that answer, the newest first.
type Tasks struct {
	Head
	Tasks []Task `json:"tasks"`
}

func (l *Letters) allTasks(ctx context.Context) Tasks {
	began := time.Now()
	out := Tasks{Tasks: views(l.mine(""))}
	others, all := l.ask(ctx, tasksTopic, question{}, broker.AskTimeout, func([]Task) bool { return false })
	out.Tasks = append(out.Tasks, others...)
	slices.SortStableFunc(out.Tasks, func(a, b Task) int { return cmp.Or(b.Started.Compare(a.Started), cmp.Compare(b.ID, a.ID)) })
	out.Head = l.head(began, all)
	return out
}

func some(tasks []Task) bool { return len(tasks) > 0 }

// Task returns the task of an id, of whatever node.
func (l *Letters) Task(ctx context.Context, id string) (Task, error) {
	if mine := l.mine(id); len(mine) > 0 {
		return mine[0].view(), nil
	}
	if others, _ := l.ask(ctx, tasksTopic, question{ID: id}, broker.AskTimeout, some); len(others) > 0 {
		return others[0], nil
	}
	return Task{}, ErrNoTask
}

// Cancel ends a task after the letter that it is at, and returns it as it is then. One
// that has ended stays as it is.
func (l *Letters) Cancel(ctx context.Context, id, by, from string) (Task, error) {
	if l.cfg.ReadOnly {
		return Task{}, ErrReadOnly
	}
	if mine := l.mine(id); len(mine) > 0 {
		l.stop(mine[0], by, from)
		return mine[0].view(), nil
	}
	q := question{ID: id, By: by, From: from}
	if others, _ := l.ask(ctx, cancelTopic, q, broker.AskTimeout+cancelWait, some); len(others) > 0 {
		return others[0], nil
	}
	return Task{}, ErrNoTask
}
