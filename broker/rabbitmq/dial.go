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

	"async-data-processor/broker/conn"
)

// target is where to connect to.
type target struct {
	url   string // with the password: for the library only
	name  string // without it: for people
	vhost string
}

// Name returns the URL of a broker without its password and parameters, for people.
// Its error holds nothing of the URL.
func Name(raw string) (string, error) {
	t, err := parseTarget(raw)
	return t.name, err
}

// parseTarget checks a broker URL. The parsers' own errors quote parts of the
// URL, and a badly escaped password moves into any of them, so no error of
// theirs is passed on.
func parseTarget(raw string) (target, error) {
	const form = "want amqp://user:password@host:port/vhost (or amqps://), with reserved characters percent-encoded"
	uri, err := amqp.ParseURI(raw)
	if err != nil || strayAt(raw) {
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
	return target{url: raw, name: name, vhost: uri.Vhost}, nil
}

// strayAt tells of an @ behind the host. The password of user:12/34@host would pass
// for a port and a virtual host, which are no secrets.
func strayAt(raw string) bool {
	u, err := url.Parse(raw)
	return err != nil || strings.Contains(u.EscapedPath()+u.RawQuery+u.EscapedFragment(), "@")
}

// dial opens a connection for a role, in bounded time.
func (b *Broker) dial(ctx context.Context, role string) (*session, error) {
	var sock *socket
	var end func() bool
	c, err := amqp.DialConfig(b.target.url, amqp.Config{
		Heartbeat:  b.timing.heartbeat,
		Properties: amqp.Table{"product": "async-data-processor", "connection_name": "async-data-processor " + role},
		Dial: func(network, addr string) (net.Conn, error) {
			dialer := net.Dialer{Timeout: b.timing.dial}
			below, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			sock = newSocket(below, b.timing.write)
			end = context.AfterFunc(ctx, func() { _ = sock.Close() })
			// It holds for TLS and the handshake; the library then clears it.
			return sock, below.SetDeadline(time.Now().Add(b.timing.handshake))
		},
	})
	if end != nil && !end() {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		if sock != nil {
			_ = sock.Close() // the library does not in all cases
		}
		return nil, b.target.explain(err)
	}
	return newSession(b, role, c, sock), nil
}

// maxLoginCuts is how often a broker may be met in the middle of stopping. To this
// library a wrong password and a broker that stops during a login look the same.
const maxLoginCuts = 4

// explain says in one line, without the password, why the broker cannot be
// used. It is a refusal if an operator has to act first.
func (t target) explain(err error) error {
	e, ok := errors.AsType[*amqp.Error](err)
	switch {
	case !ok:
		return fmt.Errorf("%s: %w", t.name, err)
	case errors.Is(e, amqp.ErrCredentials):
		return conn.RefusedAfter(maxLoginCuts,
			fmt.Errorf("%s: the broker closed the connection during the login: check user and password", t.name))
	case errors.Is(e, amqp.ErrVhost):
		// The library guesses this when the connection just ended; a broker
		// that refuses a virtual host says so.
		return fmt.Errorf("%s: the broker closed the connection after the login", t.name)
	case e.Server && e.Code == amqp.AccessRefused:
		return conn.Refused(fmt.Errorf("%s: access refused, check user, password and permissions: %s", t.name, e.Reason))
	case e.Server && e.Code == amqp.NotAllowed:
		return conn.Refused(fmt.Errorf("%s: check that the virtual host exists and the user may use it: %s", t.name, e.Reason))
	default:
		return fmt.Errorf("%s: %w", t.name, err)
	}
}
