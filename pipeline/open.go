package pipeline

import (
	"sync"

	"async-data-processor/batcher"
	"async-data-processor/message"
)

// open unpacks envelopes. Lines that can never be written go to the dead
// letters, the envelope's others on; what can never be unpacked is dead as a
// whole.
func (c *consuming) open(n int, envelopes <-chan *message.Delivery, opened chan<- batcher.Opened, burials *sync.WaitGroup) {
	for d := range envelopes {
		d = c.aside(d, burials)
		messages, dead, err := d.Open()
		if err != nil {
			c.teller.undecodable(n, d.ID, err.Error())
			_ = d.Settle(message.Outcome{Kind: message.DeadLetter, Reason: err.Error()}) // told by aside
			continue
		}
		d.Expect(len(messages) + len(dead))
		if len(dead) > 0 {
			for _, line := range dead {
				c.teller.undecodable(n, d.ID, line.Reason)
			}
			_ = d.Resolve(len(dead), message.Outcome{Kind: message.DeadLetter, Reason: dead[0].Reason, Dead: dead})
		}
		if len(messages) > 0 {
			opened <- batcher.Opened{Delivery: d, Messages: messages}
		}
	}
}

// aside is the delivery, but that its dead letters are settled beside whoever
// resolves its last message: they are published first, which takes seconds
// while the broker takes none. The prefetch bounds how many are under way.
func (c *consuming) aside(d *message.Delivery, burials *sync.WaitGroup) *message.Delivery {
	return message.NewDelivery(d.Envelope, d.Redelivered, func(o message.Outcome) error {
		if o.Kind != message.DeadLetter {
			return d.Settle(o)
		}
		burials.Go(func() {
			if err := d.Settle(o); err != nil {
				c.teller.unburied(d.Shard, d.ID, err)
			}
		})
		return nil
	})
}
