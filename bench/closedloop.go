package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"
)

// closedLoop is publishers that each wait for the confirm of an entry before they
// publish the next one. It is the limit for as many HTTP connections that post
// single entries: each of them waits for its answer, too.
type closedLoop struct {
	publishers, channels int
	gather               bool // whether publishers share writes
}

// measure runs the publishers for a while.
func (c closedLoop) measure(ctx context.Context, l *lab) (sample, error) {
	r, err := l.broker()
	if err != nil {
		return sample{}, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	conn, err := amqp.DialConfig(r.url, amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
		socket, err := net.Dial(network, addr)
		if err != nil || !c.gather {
			return socket, err
		}
		return newGathering(socket), nil
	}})
	if err != nil {
		return sample{}, err
	}
	defer conn.Close()
	channels := make([]*amqp.Channel, c.channels)
	for i := range channels {
		if channels[i], err = conn.Channel(); err == nil {
			err = channels[i].Confirm(false)
		}
		if err != nil {
			return sample{}, err
		}
	}
	var confirmed atomic.Int64
	var loops sync.WaitGroup
	for i := range c.publishers {
		loops.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				if err := publishOne(ctx, channels[i%c.channels], n); err != nil {
					fail(err)
					return
				}
				confirmed.Add(1)
			}
		})
	}
	s, err := l.rate(ctx, func() (float64, error) {
		return float64(confirmed.Load()), context.Cause(ctx)
	}, l.with(nil))
	fail(nil)
	loops.Wait()
	return s, errors.Join(err, r.drop(bareQueues, shardCount))
}

// publishOne publishes an entry to the next queue and waits for its confirm.
func publishOne(ctx context.Context, ch *amqp.Channel, n int) error {
	confirm, err := ch.PublishWithDeferredConfirm("", queueName(bareQueues, n%shardCount), true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: entry})
	if err != nil {
		return err
	}
	ok, err := confirm.WaitContext(ctx)
	if err == nil && !ok {
		err = errors.New("refused a message")
	}
	return err
}

func (c closedLoop) String() string {
	text := fmt.Sprintf("%d publishers, %d channels", c.publishers, c.channels)
	if c.gather {
		text += ", shared writes"
	}
	return text
}

// gathering is a connection that writes together what several goroutines write at
// about the same time. An error of a write closes it.
type gathering struct {
	net.Conn
	wake chan struct{}

	mu     sync.Mutex // guards what follows
	buffer []byte
	closed bool
}

func newGathering(conn net.Conn) *gathering {
	g := &gathering{Conn: conn, wake: make(chan struct{}, 1)}
	go g.flush()
	return g
}

func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return 0, net.ErrClosed
	}
	g.buffer = append(g.buffer, p...)
	g.signal()
	return len(p), nil
}

func (g *gathering) Close() error {
	g.mu.Lock()
	g.closed = true
	g.signal()
	g.mu.Unlock()
	return g.Conn.Close()
}

func (g *gathering) signal() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *gathering) flush() {
	var out []byte
	for range g.wake {
		runtime.Gosched() // those who could write now do
		g.mu.Lock()
		out, g.buffer = g.buffer, out[:0]
		closed := g.closed
		g.mu.Unlock()
		if closed {
			return
		}
		if _, err := g.Conn.Write(out); err != nil {
			_ = g.Close()
		}
	}
}
