package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"async-data-processor/broker"
	"async-data-processor/broker/door"
	"async-data-processor/broker/local"
	"async-data-processor/deadletter"
)

// DeadLetter is what could not be written, as the broker keeps it.
type DeadLetter = broker.DeadLetter

// DeadLetterFilter says which dead letters are meant.
type DeadLetterFilter = deadletter.Filter

// DeadLetterKey names a dead letter for as long as there is one.
func DeadLetterKey(l *DeadLetter) string { return deadletter.Key(l) }

// HasDeadLetterID tells whether an id is that of the dead letter, or of a message in it.
func HasDeadLetterID(l *DeadLetter, id string) bool { return deadletter.HasID(l, id) }

// DeadLetters are those of a broker. Each call opens it and closes it again.
type DeadLetters struct {
	// Config says which broker; its shards do not matter. It must be valid.
	Config Config
	// Timeout bounds the wait for the connection.
	Timeout time.Duration

	open opener // openBroker, or a test's
}

// Each shows all dead letters, the oldest first.
func (d DeadLetters) Each(ctx context.Context, show func(DeadLetter)) error {
	return d.walk(ctx, func(l DeadLetter) broker.Verdict {
		show(l)
		return broker.Keep
	})
}

// Replay puts the chosen ones back into the queues they came from, and returns
// how many. Those of unknown origin stay, and are an error.
func (d DeadLetters) Replay(ctx context.Context, chosen func(DeadLetter) bool) (int, error) {
	return d.apply(ctx, broker.Replay, chosen)
}

// Remove forgets the chosen ones, for good, and returns how many.
func (d DeadLetters) Remove(ctx context.Context, chosen func(DeadLetter) bool) (int, error) {
	return d.apply(ctx, broker.Remove, chosen)
}

func (d DeadLetters) apply(ctx context.Context, verdict broker.Verdict, chosen func(DeadLetter) bool) (done int, err error) {
	var errs []error
	last := 0 // 1 while it is not known whether the latest verdict was carried out
	err = d.walk(ctx, func(l DeadLetter) broker.Verdict {
		done, last = done+last, 0
		switch {
		case !chosen(l):
			return broker.Keep
		case verdict == broker.Replay && l.Envelope.Shard < 0:
			errs = append(errs, fmt.Errorf("%q stays a dead letter: %w", l.Envelope.ID, broker.ErrNoOrigin))
			return broker.Keep
		}
		last = 1
		return verdict
	})
	if err == nil {
		done += last
	}
	return done, errors.Join(append(errs, err)...)
}

var errNoAnswer = errors.New("the broker does not answer")

// retryInterval is how often a store that is in use, but has no door yet or any
// more, is tried again.
const retryInterval = 50 * time.Millisecond

// walk shows the dead letters to decide. It asks the process that has the store,
// and if there is none, or no store, it opens the broker and closes it again.
func (d DeadLetters) walk(ctx context.Context, decide func(DeadLetter) broker.Verdict) error {
	dir, err := storeDir(d.Config.BrokerURL)
	if err != nil {
		return err
	}
	for giveUp := time.Now().Add(d.Timeout); ; {
		if dir != "" {
			err := d.within(ctx, door.Process{Dir: dir}, decide)
			if !errors.Is(err, door.ErrNoProcess) {
				return err
			}
		}
		b, err := d.openBroker(ctx, dir)
		if err == nil {
			return errors.Join(d.within(ctx, b, decide), b.Close())
		}
		if !errors.Is(err, local.ErrInUse) || time.Now().After(giveUp) {
			return err
		}
		select {
		case <-time.After(retryInterval): // its process starts, or ends
		case <-ctx.Done():
			return err
		}
	}
}

// within bounds the wait for the first dead letter.
func (d DeadLetters) within(ctx context.Context, letters broker.DeadLetters, decide func(DeadLetter) broker.Verdict) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := time.AfterFunc(d.Timeout, func() { cancel(errNoAnswer) })
	defer patience.Stop()
	err := letters.DeadLetters(ctx, func(l DeadLetter) broker.Verdict {
		patience.Stop()
		return decide(l)
	})
	if err != nil && errors.Is(context.Cause(ctx), errNoAnswer) {
		return fmt.Errorf("the dead letters cannot be reached within %v: %w", d.Timeout, err)
	}
	return err
}

func (d DeadLetters) openBroker(ctx context.Context, dir string) (broker.Broker, error) {
	cfg := d.Config
	// Whatever is declared at the start exists for any number of shards; where
	// a dead letter goes back to is looked after when it does.
	cfg.Shards = 1
	open := d.open
	if open == nil {
		open = openBroker
		if err := checkStore(dir); err != nil {
			return nil, err
		}
	}
	b, err := openUnless(ctx, cfg, nil, open)
	if err == nil && b == nil {
		err = context.Cause(ctx)
	}
	return b, err
}

// StoreHere tells whether the store of EmbeddedURL is there, for a command that is
// told of no broker. One that cannot be looked at is there, too.
func StoreHere() bool {
	dir, err := storeDir(EmbeddedURL)
	return err == nil && !errors.Is(checkStore(dir), fs.ErrNotExist)
}

// checkStore refuses an embedded broker's folder in which there is no store: it
// would be made, and have no dead letters.
func checkStore(dir string) error {
	if dir == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, local.FileName)); err != nil {
		return fmt.Errorf("there is no embedded broker: %w", err)
	}
	return nil
}
