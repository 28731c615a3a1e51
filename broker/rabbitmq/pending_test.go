package rabbitmq

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// unconfirmed is a publication that the broker never confirms.
func unconfirmed(queue string, tag uint64) *publication {
	return &publication{queue: queue, confirm: &amqp.DeferredConfirmation{DeliveryTag: tag}}
}

// blames tells whether an error names the queue.
func blames(err error, queue string) bool { return err != nil && strings.Contains(err.Error(), queue) }

// TestOverdue: what is kept of confirms that come before an older one is
// bounded, for all queues together.
func TestOverdue(t *testing.T) {
	var p pendingConfirms
	if err := p.overdue(1 << 40); err != nil {
		t.Errorf("nothing is pending: %v", err)
	}
	p.add(unconfirmed("young", 1000))
	p.add(unconfirmed("old", 9))
	p.add(unconfirmed("old", 7))
	if err := p.overdue(7 + maxUnconfirmed); err != nil {
		t.Errorf("too early: %v", err)
	}
	if err := p.overdue(8 + maxUnconfirmed); !blames(err, "old") {
		t.Errorf("%v, want an error that names the queue", err)
	}
}

// TestStalled: a queue is stalled by the confirms of its own.
func TestStalled(t *testing.T) {
	var p pendingConfirms
	for tag := range uint64(maxPending) {
		for _, queue := range []string{"a", "b"} {
			if err := p.stalled(queue); err != nil {
				t.Fatalf("after %d: %v", tag, err)
			}
		}
		p.add(unconfirmed("a", tag+1))
	}
	if err := p.stalled("a"); !blames(err, "a") {
		t.Errorf("%v, want an error that names the queue", err)
	}
	if err := p.stalled("b"); err != nil {
		t.Errorf("the other queue: %v", err)
	}
}

// TestCheck: each pending confirm has its own time.
func TestCheck(t *testing.T) {
	var p pendingConfirms
	p.add(unconfirmed("a", 1))
	for i := range maxChecks {
		if err := p.check(); err != nil {
			t.Fatalf("check %d: %v", i, err)
		}
		p.add(unconfirmed("b", uint64(i)+2))
	}
	if err := p.check(); !blames(err, "queue a") {
		t.Errorf("%v, want an error that names the queue", err)
	}
}
