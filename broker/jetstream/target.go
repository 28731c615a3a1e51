package jetstream

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"async-data-processor/broker/conn"
)

const defaultPort = 4222

// target is where to connect to, and as whom.
type target struct {
	servers string        // URLs without credentials, separated by commas
	scheme  string        // of all of them
	name    string        // without the password or token: for people
	secrets []string      // what no text for people may hold
	options []nats.Option // the credentials, also for servers that the cluster tells of
}

// Name returns the URL of a broker without its password or token, for people. Its
// error holds nothing of the URL.
func Name(raw string) (string, error) {
	t := target{}
	err := t.parse(raw)
	return t.name, err
}

// parseTarget checks what a configuration says about connecting. The parser's
// own errors quote the URL, and a badly escaped password moves into any part
// of it, so no error of its is passed on.
func parseTarget(cfg Config) (target, error) {
	t := target{}
	if err := t.parse(cfg.URL); err != nil {
		return target{}, err
	}
	if (cfg.Cert == "") != (cfg.Key == "") {
		return target{}, errors.New("the client's certificate and its key: want both or none")
	}
	// The files are read on every connection, so that they can be renewed, but
	// a wrong path should not wait for that.
	if cfg.Cert != "" {
		if _, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key); err != nil {
			return target{}, fmt.Errorf("the client's certificate %s with key %s: %w", cfg.Cert, cfg.Key, err)
		}
		t.options = append(t.options, nats.ClientCert(cfg.Cert, cfg.Key))
	}
	if cfg.CA != "" {
		pem, err := os.ReadFile(cfg.CA)
		if err != nil {
			return target{}, fmt.Errorf("the authorities to trust: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return target{}, fmt.Errorf("the authorities to trust: %s holds no PEM certificate", cfg.CA)
		}
		t.options = append(t.options, nats.RootCAs(cfg.CA))
	}
	if cfg.Credentials != "" {
		if _, err := os.Stat(cfg.Credentials); err != nil {
			return target{}, fmt.Errorf("the credentials: %w", err)
		}
		t.options = append(t.options, nats.UserCredentials(cfg.Credentials))
	}
	return t, nil
}

// parse reads a URL of one or more hosts. A host after the first may leave out
// scheme and credentials.
func (t *target) parse(raw string) error {
	const form = "want nats://user:password@host:port or nats://token@host:port (or tls://), " +
		"more hosts separated by commas, reserved characters percent-encoded"
	var user *url.Userinfo
	var servers, hosts []string
	for i, part := range strings.Split(raw, ",") {
		if i > 0 && !strings.Contains(part, "://") {
			part = t.scheme + "://" + part
		}
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return errors.New("the broker URL does not parse: " + form)
		}
		if i == 0 {
			t.scheme, user = u.Scheme, u.User
		}
		if u.Scheme != "nats" && u.Scheme != "tls" || u.Scheme != t.scheme {
			return errors.New("the broker URL's scheme must be nats or tls, the same for all hosts")
		}
		if i > 0 && u.User != nil && (user == nil || u.User.String() != user.String()) {
			return errors.New("the broker URL's credentials must be the same for all hosts; write them before the first one")
		}
		host := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), strconv.Itoa(defaultPort)))
		servers, hosts = append(servers, t.scheme+"://"+host), append(hosts, host)
	}
	t.servers = strings.Join(servers, ",")
	t.name = t.scheme + "://" + t.login(user) + strings.Join(hosts, ",")
	return nil
}

// login notes the credentials and returns what may be shown of them.
func (t *target) login(user *url.Userinfo) string {
	if user == nil {
		return ""
	}
	name := user.Username()
	password, both := user.Password()
	if !both {
		t.hide(name)
		t.options = append(t.options, nats.Token(name))
		return ""
	}
	t.hide(password)
	t.options = append(t.options, nats.UserInfo(name, password))
	return url.PathEscape(name) + "@"
}

func (t *target) hide(secret string) {
	if secret != "" {
		t.secrets = append(t.secrets, secret)
	}
}

// explained is an error that names the target.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }

func (e *explained) Unwrap() error { return e.err }

// explain says in one line, without the password, why the broker cannot be
// used. It is a refusal if an operator has to act first.
func (t target) explain(err error) error {
	if errors.As(err, new(*explained)) {
		return err
	}
	text := err.Error()
	for _, hint := range hints {
		if hint.applies(err) {
			text, err = hint.advice+": "+text, conn.Refused(err)
			break
		}
	}
	for _, secret := range t.secrets {
		text = strings.ReplaceAll(text, secret, "***")
	}
	text = t.name + ": " + strings.Join(strings.Fields(text), " ")
	return &explained{text, err}
}

// hints are the failures that an operator has to repair, and how.
var hints = []struct {
	applies func(error) bool
	advice  string
}{
	{
		isOneOf(nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired),
		"access refused, check user, password, token or credentials",
	},
	{isOneOf(nats.ErrPermissionViolation), "the user may not do this"},
	{isOneOf(nats.ErrSecureConnRequired), "the server wants TLS, use tls://"},
	{isOneOf(nats.ErrSecureConnWanted), "the server speaks no TLS, use nats://"},
	{func(err error) bool {
		return errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(x509.HostnameError))
	}, "the server's certificate is not trusted, check host name and authorities"},
}

func isOneOf(targets ...error) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
}
