package local

import (
	"context"
	"slices"
	"sync"

	"async-data-processor/broker/bus"
)

// members are the clients of an engine that are on its bus. It does not depend on the
// store, and its lock is not that of the queues.
type members struct {
	mu  sync.Mutex // guards what follows
	all []*bus.Receivers
}

func (m *members) join() *bus.Receivers {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := bus.NewReceivers()
	m.all = append(slices.Clone(m.all), r)
	return r
}

// leave closes the receivers of a client. It may be called more than once.
func (m *members) leave(r *bus.Receivers) {
	r.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = slices.DeleteFunc(slices.Clone(m.all), func(other *bus.Receivers) bool { return other == r })
}

func (m *members) deliver(k bus.Key, body []byte, reply func([]byte)) {
	m.mu.Lock()
	all := m.all
	m.mu.Unlock()
	body = slices.Clone(body)
	for _, r := range all {
		r.Deliver(k, body, reply)
	}
}

// Tell implements broker.Bus.
func (c *Client) Tell(topic string, body []byte) error {
	if err := c.receivers.Check(topic, body); err != nil {
		return err
	}
	c.engine.members.deliver(bus.Key{Kind: bus.Tell, Topic: topic}, body, nil)
	return nil
}

// Ask implements broker.Bus.
func (c *Client) Ask(ctx context.Context, topic string, body []byte, take func(answer []byte) (more bool)) error {
	if err := c.receivers.Check(topic, body); err != nil {
		return err
	}
	return c.receivers.Gather(ctx, take, func(_ context.Context, a *bus.Answers) (<-chan struct{}, func(), error) {
		c.engine.members.deliver(bus.Key{Kind: bus.Ask, Topic: topic}, body, func(answer []byte) { a.Add(slices.Clone(answer)) })
		return nil, nil, nil
	})
}

// Listen implements broker.Bus.
func (c *Client) Listen(topic string, hear func(body []byte, missed int)) (stop func()) {
	stop = c.receivers.Listen(topic, hear)
	c.receivers.Begin(bus.Key{Kind: bus.Tell, Topic: topic})
	return stop
}

// Answer implements broker.Bus.
func (c *Client) Answer(topic string, answer func(body []byte) []byte) (stop func()) {
	stop = c.receivers.Answer(topic, answer)
	c.receivers.Begin(bus.Key{Kind: bus.Ask, Topic: topic})
	return stop
}
