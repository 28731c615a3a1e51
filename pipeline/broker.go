package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"async-data-processor/broker"
	"async-data-processor/broker/jetstream"
	"async-data-processor/broker/local"
	"async-data-processor/broker/rabbitmq"
	"async-data-processor/event"
)

const brokerForms = "amqp://, amqps://, nats://, tls:// or embedded:<folder>"

// EmbeddedURL is the broker of a standalone process that is told of no other.
const EmbeddedURL = "embedded:data/broker"

// checkBrokerURL tells whether there is an engine for the URL. Its error never
// holds the URL, which may hold a password.
func checkBrokerURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("not a URL, want for example amqp://user:password@host:5672/vhost")
	}
	switch u.Scheme {
	case "amqp", "amqps", "nats", "tls":
		return nil
	case "embedded":
		_, err := embeddedDir(u)
		return err
	}
	return fmt.Errorf("there is no broker for %q, want %s", u.Scheme+"://", brokerForms)
}

// storeDir returns the folder of an embedded broker, empty for any other.
func storeDir(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "embedded" {
		return "", nil // openBroker judges it
	}
	return embeddedDir(u)
}

// embeddedDir returns the folder of embedded:///absolute/folder or
// embedded:relative/folder.
func embeddedDir(u *url.URL) (string, error) {
	if u.Host != "" || u.User != nil || u.RawQuery != "" {
		return "", errors.New("want embedded:///absolute/folder or embedded:relative/folder")
	}
	dir := u.Path
	if u.Opaque != "" {
		var err error
		if dir, err = url.PathUnescape(u.Opaque); err != nil {
			return "", fmt.Errorf("the folder: %w", err)
		}
	}
	if dir == "" {
		return "", errors.New("it names no folder, want embedded:///absolute/folder or embedded:relative/folder")
	}
	return dir, nil
}

// StoreFolder returns the folder of an embedded broker.
func StoreFolder(brokerURL string) (string, error) {
	dir, err := storeDir(brokerURL)
	if err == nil && dir == "" {
		err = errors.New("--broker-url names no embedded broker; give the folder of its store")
	}
	return dir, err
}

// openBroker opens the engine that the URL chooses. It does not wait for a
// connection; only an embedded broker is up when it returns.
func openBroker(cfg Config, events event.Sink) (broker.Broker, error) {
	if err := checkBrokerURL(cfg.BrokerURL); err != nil {
		return nil, err
	}
	u, err := url.Parse(cfg.BrokerURL)
	if err != nil {
		return nil, err // checkBrokerURL has parsed it
	}
	switch u.Scheme {
	case "embedded":
		dir, err := embeddedDir(u)
		if err != nil {
			return nil, err
		}
		b, err := local.Open(context.Background(), local.FileConfig{
			Dir: dir, Shards: cfg.Shards, MinFree: cfg.EmbeddedMinFree, Events: events,
		})
		if errors.Is(err, local.ErrDamaged) {
			err = fmt.Errorf("%w\n(store check tells what can be read, store salvage copies that to a new store)", err)
		}
		if err != nil {
			return nil, err // not a broker that is nil
		}
		return b, nil
	case "nats", "tls":
		return jetstream.New(jetstream.Config{
			URL: cfg.BrokerURL, Shards: cfg.Shards, Replicas: cfg.Replicas,
			Credentials: cfg.NATSCreds, CA: cfg.NATSCA, Cert: cfg.NATSCert, Key: cfg.NATSKey, Events: events,
		})
	default:
		return rabbitmq.New(rabbitmq.Config{URL: cfg.BrokerURL, Shards: cfg.Shards, Events: events})
	}
}

// openUnless opens the broker, or returns nil if ctx ends before that: a large
// embedded store takes a while to check, and leaving it then is as safe as a
// crash, from which it recovers.
func openUnless(ctx context.Context, cfg Config, events event.Sink, open opener) (broker.Broker, error) {
	type opened struct {
		broker broker.Broker
		err    error
	}
	done := make(chan opened, 1)
	go func() {
		b, err := open(cfg, events)
		done <- opened{b, err}
	}()
	select {
	case o := <-done:
		return o.broker, o.err
	case <-ctx.Done():
		return nil, nil
	}
}
