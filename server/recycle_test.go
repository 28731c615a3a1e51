package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"async-data-processor/message"
	"async-data-processor/publisher"
)

// carrier is a Submitter with a real publisher, whose broker is slow now and
// then: that publish goes on after its submissions were answered, when others use
// their memory.
type carrier struct {
	publisher *publisher.Publisher
	published atomic.Int64

	mu     sync.Mutex
	values map[string]string // by submission, of each of its entries
	errs   []error
}

func (c *carrier) Submit(ctx context.Context, s message.Submission) ([]message.ShardCount, error) {
	shards, err := c.publisher.Submit(ctx, s)
	c.check(s.Messages, nil) // they are still its own
	return shards, err
}

func (c *carrier) Start(ctx context.Context, s message.Submission, done func([]message.ShardCount, error)) {
	c.publisher.Start(ctx, s, done)
}

func (c *carrier) publish(ctx context.Context, envelopes []message.Envelope, done func(int, error)) {
	for i, e := range envelopes {
		messages, _, err := message.Strict.Open(e)
		c.check(messages, err)
		if c.published.Add(1)%8 == 0 {
			<-ctx.Done()
			messages, _, err = message.Strict.Open(e)
			c.check(messages, err)
		}
		done(i, ctx.Err())
	}
}

// check holds messages against what clients send: entries with their own index,
// and the same value in all of a submission.
func (c *carrier) check(messages []message.Message, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range messages {
		id, index, _ := strings.Cut(m.ID(), ".")
		_, value, ok := strings.Cut(string(m.Line), `"index":`+index+`,"value":"`)
		if known := c.values[id]; !ok || known != "" && known != value {
			err = fmt.Errorf("got %s, want an entry of %s", m.Line, known)
		}
		c.values[id] = value
	}
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

// TestMemoryIsUsedAgain: what is published is what was sent, although others use
// the memory of a submission as soon as it is answered.
func TestMemoryIsUsedAgain(t *testing.T) {
	c := &carrier{values: make(map[string]string)}
	c.publisher = publisher.New(publisher.Config{
		Broker: publisher.Func(c.publish), Shards: 3, Timeout: 40 * time.Millisecond,
	})
	rg := start(t, Config{PublishTimeout: 10 * time.Millisecond}, func(s *Server) { s.cfg.Submitter = c })
	var clients sync.WaitGroup
	for client := range 8 {
		clients.Go(func() {
			for i := range 40 {
				n := (client+i)%30 + 1
				var body strings.Builder
				for index := range n {
					// Each its own second, and so any of the shards.
					fmt.Fprintf(&body, `{"timestamp":"2019-10-12T08:10:%02dZ","index":%d,"value":"%s"}`+"\n",
						index, index, strconv.Itoa(client*1000+i))
				}
				a := rg.post(body.String(), "Content-Type", "application/x-ndjson")
				if a.StatusCode != http.StatusCreated && a.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("got %d %s", a.StatusCode, a.body)
				}
			}
		})
	}
	clients.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errs) > 0 {
		t.Errorf("%d times, in %d envelopes, messages are not what was sent: %v", len(c.errs), c.published.Load(), c.errs[0])
	}
}
