package faults

import (
	"net"
	"net/url"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/faults/rig"
)

// Bounds of a partition: until the consumer that is cut off has given its shards to the
// others, and until it has its part again. It notices after two heartbeats of the broker's
// connection, and waits for some seconds then. A consumer that comes and goes has to be well
// for longer each time, up to a minute.
const (
	cutOffSoon = 30 * time.Second
	healedSoon = 20 * time.Second
)

// TestPartition cuts the network between a consumer and the broker, without a word to either
// side, while its disk is the one of the others. They write its shards, and it gets them
// again when the network is well.
func TestPartition(t *testing.T) {
	on(t, "a consumer cut off by its network", func(c *campaign) {
		c.shards = manyShards
		c.start(rig.LoadConfig{Pause: 200 * time.Millisecond})
		s := &sharers{campaign: c, consumers: []*rig.Process{c.consumer}}
		host := rig.NewHost(c)
		u, err := url.Parse(c.Consumer)
		if err != nil {
			c.Fatal(err)
		}
		u.Host = brokertest.ListenProxy(c, net.JoinHostPort(host.Here, "0"), u.Host).Addr()
		far := host.LaunchConsumer(u.String(), c.environment()...)
		s.consumers = append(s.consumers, far)
		s.await("come", time.Now(), sharedSoon)
		for range either(1, 20) {
			c.load.More(500)
			host.Cut()
			s.consumers = s.consumers[:1]
			s.await("cut off", time.Now(), cutOffSoon)
			c.load.More(500)
			host.Heal()
			s.consumers = append(s.consumers, far)
			s.await("healed", time.Now(), healedSoon+min(time.Second<<c.cycles, time.Minute))
			c.cycle()
		}
		s.note("the shards of a consumer that is cut off are written again after %v, it has its part again after %v", s.took["cut off"], s.took["healed"])
		if code := far.Stop(); code != 0 {
			c.Errorf("exit %d", code)
		}
		c.finish()
	}, rabbitmq, jetstream)
}
