package pipeline

import (
	"errors"
	"fmt"
	"net/url"

	"async-data-processor/broker"
	"async-data-processor/broker/rabbitmq"
)

// checkBrokerURL tells whether there is an engine for the URL. Its error never
// holds the URL, which may hold a password.
func checkBrokerURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("not a URL, want for example amqp://user:password@host:5672/vhost")
	}
	switch u.Scheme {
	case "amqp", "amqps":
		return nil
	}
	return fmt.Errorf("there is no broker for %q, want amqp:// or amqps://", u.Scheme+"://")
}

// openBroker opens the engine that the URL chooses. It does not wait for a
// connection.
func openBroker(cfg Config, notify func(broker.Notice)) (broker.Broker, error) {
	if err := checkBrokerURL(cfg.BrokerURL); err != nil {
		return nil, err
	}
	return rabbitmq.New(rabbitmq.Config{URL: cfg.BrokerURL, Shards: cfg.Shards, Notify: notify})
}
