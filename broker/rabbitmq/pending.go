package rabbitmq

import (
	"fmt"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// maxPending is how many confirms of a queue may be pending before it gets no
	// more. RabbitMQ lets a channel have 32 on their way to a quorum queue;
	// then it reads nothing of the channel any more, and no queue gets anything.
	maxPending = 16
	// maxUnconfirmed is how many publications may follow one that the broker does
	// not confirm. The library takes a note of each confirm until those before it
	// have come, some 50 bytes; more than this of them cost the connection.
	maxUnconfirmed = 1 << 18
	// maxChecks is after how many checks in vain a confirm is not hoped for any more.
	maxChecks = 4
)

// pendingConfirms knows of each queue the publications that have waited for their
// confirm in vain, as they do while the queue has no leader. It notices a confirm
// that comes late.
type pendingConfirms struct {
	mu     sync.Mutex // guards what follows
	queues map[string][]*pendingConfirm
}

// pendingConfirm is a confirm that has not come. It does not hold the publication,
// whose body belongs to its caller again.
type pendingConfirm struct {
	confirm *amqp.DeferredConfirmation
	checks  int // that it has outlived
}

// add notes that a caller has given up waiting.
func (p *pendingConfirms) add(of *publication) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queues == nil {
		p.queues = map[string][]*pendingConfirm{}
	}
	p.queues[of.queue] = append(p.queues[of.queue], &pendingConfirm{confirm: of.confirm})
}

// left drops the confirms of a queue that have come, and returns the rest. mu is
// held.
func (p *pendingConfirms) left(queue string) []*pendingConfirm {
	pending := slices.DeleteFunc(p.queues[queue], func(c *pendingConfirm) bool {
		select {
		case <-c.confirm.Done():
			return true
		default:
			return false
		}
	})
	if len(pending) == 0 {
		delete(p.queues, queue)
		return nil
	}
	p.queues[queue] = pending
	return pending
}

// stalled is an error if a queue gets nothing until it has confirmed something.
func (p *pendingConfirms) stalled(queue string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queues) == 0 || len(p.left(queue)) < maxPending {
		return nil
	}
	return fmt.Errorf("the queue %s confirms nothing, it gets no more until it does", queue)
}

// overdue is an error if too many publications, up to that of the tag, have
// followed one without a confirm.
func (p *pendingConfirms) overdue(tag uint64) error {
	return p.find(func(c *pendingConfirm) bool { return c.confirm.DeliveryTag+maxUnconfirmed < tag })
}

// check is an error if a confirm has not come for maxChecks of its calls.
func (p *pendingConfirms) check() error {
	return p.find(func(c *pendingConfirm) bool {
		c.checks++
		return c.checks > maxChecks
	})
}

// find is an error that names the queue of a confirm for which waiting is hopeless.
func (p *pendingConfirms) find(hopeless func(*pendingConfirm) bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for queue := range p.queues {
		if slices.ContainsFunc(p.left(queue), hopeless) {
			return fmt.Errorf("the queue %s confirms nothing", queue)
		}
	}
	return nil
}
