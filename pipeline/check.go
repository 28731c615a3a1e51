package pipeline

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

const quotes = `"'`

var shellVariable = regexp.MustCompile(`\$[{(A-Za-z_]`)

// CheckPath refuses a path that holds what a shell would have removed or replaced. Here
// a path is taken as it stands, so the files would be somewhere else than meant.
func CheckPath(path string) error {
	switch {
	case strings.ContainsFunc(path, unicode.IsControl):
		return fmt.Errorf("%q holds a control character; is it from a file with Windows line ends?", path)
	case strings.Trim(path, quotes) != path:
		return fmt.Errorf("%s has quotes around it, which nothing removes here; write it without, or ./%[1]s if they belong to its name", path)
	case strings.HasPrefix(path, "~"):
		return fmt.Errorf("nothing replaces the ~ of %s here; write the whole path, or ./%[1]s if it belongs to the name", path)
	case shellVariable.MatchString(path):
		return fmt.Errorf("nothing replaces the variable in %s here; write the whole path", path)
	}
	return nil
}

// checkToken refuses a token that no client can send (RFC 6750, section 2.1). Its
// error does not hold the token.
func checkToken(token string) error {
	outside := func(r rune) bool { return r <= ' ' || r > '~' }
	switch {
	case token == "":
		return errors.New("an empty token")
	case strings.ContainsFunc(token, outside):
		return errors.New("it holds white space or a character that is not ASCII; a token is one word")
	case strings.Trim(token, quotes) != token:
		return errors.New("it has quotes around it, which nothing removes here")
	case strings.Contains(token, ":"):
		return errors.New("it has a second colon; a token holds none, and only a name stands before it: name:token")
	case strings.Contains(token, ","):
		return errors.New("it holds a comma; a token holds none, and each stands by itself in a list or a file")
	}
	return nil
}

// ValidateServer is Validate for a server without a message-consumer in its process.
// An embedded broker belongs to one process, so nothing would write what it accepts.
func (c Config) ValidateServer() error {
	err := c.Validate()
	if dir, _ := storeDir(c.BrokerURL); dir != "" && !c.IntakeOnly {
		err = errors.Join(err, errors.New("--broker-url: an embedded broker belongs to one process, so nothing could write what a server "+
			"beside it accepts; run standalone, which is both, or accept it with --intake-only"))
	}
	return err
}

// checkPaths returns what is wrong with the paths, each named as its flag.
func (c Config) checkPaths() (errs []error) {
	for _, p := range []struct{ name, path string }{
		{"output-dir", c.OutputDir},
		{"nats-creds", c.NATSCreds},
		{"nats-ca", c.NATSCA},
		{"nats-cert", c.NATSCert},
		{"nats-key", c.NATSKey},
		{"tls-cert", c.TLSCert},
		{"tls-key", c.TLSKey},
		{"jobs", c.Jobs},
	} {
		if err := CheckPath(p.path); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", p.name, err))
		}
	}
	return errs
}
