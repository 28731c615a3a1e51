package rabbitmq

import (
	"fmt"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// maxUnheard is how many publications a queue may owe their confirm before it
	// gets no more. RabbitMQ lets a channel have 32 on their way to a quorum queue;
	// then it reads nothing of the channel any more, and no queue gets anything.
	maxUnheard = 16
	// maxUnconfirmed is how many publications may follow one that the broker does
	// not confirm. The library takes a note of each confirm until those before it
	// have come, some 50 bytes; more than this of them cost the connection.
	maxUnconfirmed = 1 << 18
	// maxChecks is after how many checks in vain a confirm is not hoped for any more.
	maxChecks = 4
)

// unheard knows of each queue the publications that have waited for their confirm
// in vain, as they do while it has no leader. A confirm that comes late is noticed.
type unheard struct {
	mu     sync.Mutex // guards what follows
	queues map[string][]*debt
}

// debt is a confirm that a queue owes. It does not hold the publication, whose
// body belongs to its caller again.
type debt struct {
	confirm *amqp.DeferredConfirmation
	checks  int // that it has outlived
}

// note notes that a caller has given up waiting.
func (u *unheard) note(p *publication) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.queues == nil {
		u.queues = map[string][]*debt{}
	}
	u.queues[p.queue] = append(u.queues[p.queue], &debt{confirm: p.confirm})
}

// left drops what a queue owes no more, and returns the rest. mu is held.
func (u *unheard) left(queue string) []*debt {
	debts := slices.DeleteFunc(u.queues[queue], func(d *debt) bool {
		select {
		case <-d.confirm.Done():
			return true
		default:
			return false
		}
	})
	if len(debts) == 0 {
		delete(u.queues, queue)
		return nil
	}
	u.queues[queue] = debts
	return debts
}

// mute is an error if a queue gets nothing until it has confirmed something.
func (u *unheard) mute(queue string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.queues) == 0 || len(u.left(queue)) < maxUnheard {
		return nil
	}
	return confirmsNothing(queue)
}

// overdue is an error if too many publications, up to that of the tag, have
// followed one without a confirm.
func (u *unheard) overdue(tag uint64) error {
	return u.find(func(d *debt) bool { return d.confirm.DeliveryTag+maxUnconfirmed < tag })
}

// check is an error if a confirm has not come for maxChecks of its calls.
func (u *unheard) check() error {
	return u.find(func(d *debt) bool {
		d.checks++
		return d.checks > maxChecks
	})
}

// find is an error that names the queue of a debt which is hopeless.
func (u *unheard) find(hopeless func(*debt) bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for queue := range u.queues {
		if slices.ContainsFunc(u.left(queue), hopeless) {
			return confirmsNothing(queue)
		}
	}
	return nil
}

func confirmsNothing(queue string) error { return fmt.Errorf("the queue %s confirms nothing", queue) }
