package faults

import (
	"net/url"
	"testing"
	"time"

	"async-data-processor/broker/brokertest"
	"async-data-processor/faults/rig"
)

// TestNetwork hurts the connections to the broker: of the server and of the
// consumer, at random moments, in every way there is.
func TestNetwork(t *testing.T) {
	t.Parallel()
	for _, hurt := range []struct {
		fault string
		do    func(*brokertest.Proxy)
	}{
		{"connections cut", func(*brokertest.Proxy) {}},
		{"requests go lost", func(p *brokertest.Proxy) { p.Lose(brokertest.Requests) }},
		{"answers go lost", func(p *brokertest.Proxy) { p.Lose(brokertest.Answers) }},
		{"black hole", func(p *brokertest.Proxy) { p.Lose(brokertest.Everything) }},
		{"bytes trickle", func(p *brokertest.Proxy) { p.Trickle(time.Millisecond) }},
	} {
		t.Run(hurt.fault, func(t *testing.T) {
			on(t, "network: "+hurt.fault, func(c *campaign) { network(c, hurt.do) }, rabbitmq, jetstream)
		})
	}
}

func network(c *campaign, hurt func(*brokertest.Proxy)) {
	var proxies []*brokertest.Proxy
	for _, address := range []*string{&c.Server, &c.Consumer} {
		u, err := url.Parse(*address)
		if err != nil {
			c.Fatal(err)
		}
		p := brokertest.NewProxy(c, u.Host)
		proxies = append(proxies, p)
		u.Host = p.Addr()
		*address = u.String()
	}
	c.start(rig.LoadConfig{Pause: 20 * time.Millisecond})
	for range either(1, 12) {
		c.load.More(500)
		c.moment(100 * time.Millisecond)
		for _, p := range proxies {
			if c.rng.IntN(3) > 0 {
				hurt(p)
			}
		}
		c.moment(either(time.Second, 8*time.Second))
		for _, p := range proxies {
			p.Trickle(0)
			p.Cut()
		}
		c.server.Ready()
		c.consumer.Ready()
		c.load.More(1)
		c.cycle()
	}
	c.finish()
}
