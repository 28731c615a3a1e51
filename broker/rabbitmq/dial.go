package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// target is where to connect to.
type target struct {
	url  string // with the password: for the library only
	name string // without it: for people
}

// parseTarget checks a broker URL. The parsers' own errors quote parts of the
// URL, and a badly escaped password moves into any of them, so no error of
// theirs is passed on.
func parseTarget(raw string) (target, error) {
	const form = "want amqp://user:password@host:port/vhost (or amqps://), with reserved characters percent-encoded"
	uri, err := amqp.ParseURI(raw)
	if err != nil {
		return target{}, errors.New("the broker URL does not parse: " + form)
	}
	for _, mechanism := range uri.AuthMechanism {
		switch strings.ToUpper(mechanism) {
		case "PLAIN", "AMQPLAIN", "EXTERNAL":
		default:
			return target{}, errors.New("the broker URL's auth_mechanism must be plain, amqplain or external")
		}
	}
	name := uri.Scheme + "://" + url.PathEscape(uri.Username) + "@" +
		net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port)) + "/"
	if uri.Vhost != "/" {
		name += url.PathEscape(uri.Vhost)
	}
	return target{url: raw, name: name}, nil
}

// dial opens a connection for a role, in bounded time.
func (b *Broker) dial(ctx context.Context, role string) (*amqp.Connection, *socket, error) {
	var sock *socket
	var end func() bool
	conn, err := amqp.DialConfig(b.target.url, amqp.Config{
		Heartbeat:  b.timing.heartbeat,
		Properties: amqp.Table{"product": "async-data-processor", "connection_name": "async-data-processor " + role},
		Dial: func(network, addr string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: b.timing.dial}
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			sock = &socket{Conn: c, timeout: b.timing.write}
			end = context.AfterFunc(ctx, func() { _ = sock.Close() })
			// It holds for TLS and the handshake; the library then clears it.
			return sock, c.SetDeadline(time.Now().Add(b.timing.handshake))
		},
	})
	if end != nil && !end() {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		if sock != nil {
			_ = sock.Close() // the library does not in all cases
		}
		return nil, nil, b.target.explain(err)
	}
	return conn, sock, nil
}

// refusal is a failure that waiting alone does not mend.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// loginCut is how RabbitMQ tells this library that the password is wrong, and
// what a broker that stops during a login looks like, too. Only when it goes on
// it is taken for a refusal.
type loginCut struct{ error }

// maxLoginCuts is how often a broker may be met in the middle of stopping.
const maxLoginCuts = 4

// explain says in one line, without the password, why the broker cannot be
// used. It is a refusal if somebody has to act first.
func (t target) explain(err error) error {
	e, ok := errors.AsType[*amqp.Error](err)
	switch {
	case errors.As(err, new(refusal)):
		return refusal{fmt.Errorf("%s: %w", t.name, err)}
	case !ok:
		return fmt.Errorf("%s: %w", t.name, err)
	case errors.Is(e, amqp.ErrCredentials):
		return loginCut{fmt.Errorf("%s: the broker closed the connection during the login: check user and password", t.name)}
	case errors.Is(e, amqp.ErrVhost):
		// The library guesses this when the connection just ended; a broker
		// that refuses a virtual host says so.
		return fmt.Errorf("%s: the broker closed the connection after the login", t.name)
	case e.Server && e.Code == amqp.AccessRefused:
		return refusal{fmt.Errorf("%s: access refused, check user, password and permissions: %s", t.name, e.Reason)}
	case e.Server && e.Code == amqp.NotAllowed:
		return refusal{fmt.Errorf("%s: check that the virtual host exists and the user may use it: %s", t.name, e.Reason)}
	default:
		return fmt.Errorf("%s: %w", t.name, err)
	}
}
