package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"async-data-processor/broker"
	"async-data-processor/broker/jetstream"
	"async-data-processor/broker/local"
	"async-data-processor/broker/rabbitmq"
	"async-data-processor/event"
)

const brokerForms = "amqp://, amqps://, nats://, tls:// or embedded:<folder>"

// EmbeddedURL is the broker of a standalone process that is told of no other.
const EmbeddedURL = "embedded:data/broker"

// parseBroker returns the URL as people may see it, without password, token and
// parameters. It fails if there is no engine for the URL; the error never holds the
// URL, which may hold a password.
func parseBroker(raw string) (name string, err error) {
	scheme, _, ok := strings.Cut(raw, ":")
	switch strings.ToLower(scheme) {
	case "amqp", "amqps":
		return rabbitmq.Name(raw)
	case "nats", "tls":
		return jetstream.Name(raw)
	case "embedded":
		_, err := storeDir(raw)
		return raw, err
	}
	switch {
	case raw == "":
		return "", fmt.Errorf("it is empty, want %s", brokerForms)
	case !ok || !strings.HasPrefix(raw, scheme+"://"): // what is before a colon may be a user
		return "", fmt.Errorf("it does not begin with a scheme, want %s", brokerForms)
	}
	return "", fmt.Errorf("there is no broker for %q, want %s", scheme+"://", brokerForms)
}

// storeDir returns the folder of an embedded broker, from embedded:///absolute/folder
// or embedded:relative/folder; empty for any other broker.
func storeDir(raw string) (string, error) {
	const form = "want embedded:///absolute/folder or embedded:relative/folder"
	scheme, _, _ := strings.Cut(raw, ":")
	if !strings.EqualFold(scheme, "embedded") {
		return "", nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("it does not parse, " + form)
	}
	if u.Host != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New(form)
	}
	dir := u.Path
	if u.Opaque != "" {
		if dir, err = url.PathUnescape(u.Opaque); err != nil {
			return "", fmt.Errorf("the folder: %w", err)
		}
	}
	if dir == "" {
		return "", errors.New("it names no folder, " + form)
	}
	return dir, CheckPath(dir)
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
	scheme, _, _ := strings.Cut(cfg.BrokerURL, ":")
	switch strings.ToLower(scheme) {
	case "embedded":
		dir, err := storeDir(cfg.BrokerURL)
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
		return rabbitmq.New(rabbitmq.Config{
			URL: cfg.BrokerURL, Shards: cfg.Shards, Management: cfg.RabbitMQManagement, Events: events,
		})
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
