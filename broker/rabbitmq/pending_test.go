package rabbitmq

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// owed is a publication that the broker never confirms.
func owed(queue string, tag uint64) *publication {
	return &publication{queue: queue, confirm: &amqp.DeferredConfirmation{DeliveryTag: tag}}
}

// blames tells whether an error names the queue.
func blames(err error, queue string) bool { return err != nil && strings.Contains(err.Error(), queue) }

// TestOverdue: what is kept of confirms that come before an older one is
// bounded, whichever queue owes it.
func TestOverdue(t *testing.T) {
	var u unheard
	if err := u.overdue(1 << 40); err != nil {
		t.Errorf("nothing is unheard of: %v", err)
	}
	u.note(owed("young", 1000))
	u.note(owed("old", 9))
	u.note(owed("old", 7))
	if err := u.overdue(7 + maxUnconfirmed); err != nil {
		t.Errorf("too early: %v", err)
	}
	if err := u.overdue(8 + maxUnconfirmed); !blames(err, "old") {
		t.Errorf("%v, want an error that names the queue", err)
	}
}

// TestMute: a queue is mute by what it owes itself.
func TestMute(t *testing.T) {
	var u unheard
	for tag := range uint64(maxUnheard) {
		for _, queue := range []string{"a", "b"} {
			if err := u.mute(queue); err != nil {
				t.Fatalf("after %d: %v", tag, err)
			}
		}
		u.note(owed("a", tag+1))
	}
	if err := u.mute("a"); !blames(err, "a") {
		t.Errorf("%v, want an error that names the queue", err)
	}
	if err := u.mute("b"); err != nil {
		t.Errorf("the other queue: %v", err)
	}
}

// TestCheck: each debt has its own time.
func TestCheck(t *testing.T) {
	var u unheard
	u.note(owed("a", 1))
	for i := range maxChecks {
		if err := u.check(); err != nil {
			t.Fatalf("check %d: %v", i, err)
		}
		u.note(owed("b", uint64(i)+2))
	}
	if err := u.check(); !blames(err, "queue a") {
		t.Errorf("%v, want an error that names the queue", err)
	}
}
