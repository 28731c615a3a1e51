package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"async-data-processor/pipeline"
)

// remote is a running process, and how to reach it.
type remote struct {
	url, tokenFile, cert string

	client http.Client
	token  string
	// byStore: url is no address, the process is reached by the socket of its store.
	// guessed: there was no --url.
	byStore, guessed bool
}

// remoteURL is asked unless there is a store in this folder.
const remoteURL = "http://localhost:8080"

// remoteHelp says which process it is.
const remoteHelp = `Unless --url names a process, it is the one that has the store in this folder,
data/broker, if that is there; else ` + remoteURL + `.`

// What --url names.
const (
	aServer    = "a server of the system, for example http://localhost:8080"
	anyProcess = "a server or message-consumer of the system, for example http://localhost:8081"
)

// flags adds the flags. process is what --url names, and tokens the name of the setting
// that has the token.
func (r *remote) flags(flags *pflag.FlagSet, process, tokens string) {
	flags.StringVar(&r.url, "url", "", process)
	flags.StringVar(&r.tokenFile, "token-file", "", "file that holds a token of its "+tokens)
	flags.StringVar(&r.cert, "tls-cert", "", "file of the certificate that the process must have, whatever its names; else the system's authorities decide")
}

// name takes the URL that an argument may be, in place of --url.
func (r *remote) name(args []string) error {
	if len(args) == 0 {
		return nil
	}
	if r.url != "" {
		return fmt.Errorf("there are two URLs, %s and %s", r.url, args[0])
	}
	r.url = args[0]
	return nil
}

// takeSocketURL lets the URL be that of a WebSocket.
func (r *remote) takeSocketURL() {
	if scheme, rest, ok := strings.Cut(r.url, "://"); ok && (scheme == "ws" || scheme == "wss") {
		r.url = "http" + scheme[len("ws"):] + "://" + rest
	}
}

// aim prepares the client. Its error is one of usage.
func (r *remote) aim() error {
	switch {
	case r.url != "":
		u, err := url.Parse(r.url)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("--url is %q, want http[s]://host:port; send and runner also take ws[s]://host:port", r.url)
		}
		resource := strings.HasSuffix(u.Path, "/message") || strings.HasSuffix(u.Path, "/live") // what people put there
		if resource || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("--url is %q, want http[s]://host:port, and behind it nothing but a BASE_PATH", r.url)
		}
	case pipeline.StoreHere():
		r.url, r.client.Transport, r.byStore = "http://localhost", pipeline.StoreTransport(), true
	default:
		r.guessed = true
	}
	r.url = strings.TrimSuffix(cmp.Or(r.url, remoteURL), "/")
	if r.cert != "" && !strings.HasPrefix(r.url, "https:") {
		return fmt.Errorf("--tls-cert is for a process that speaks TLS, and %s does not; name it with --url https://host:port", r.url)
	}
	if r.cert != "" {
		r.client.Transport = &http.Transport{TLSClientConfig: pipeline.TrustOnly(r.cert)}
	}
	if r.tokenFile == "" {
		return nil
	}
	return r.readToken()
}

// needsToken says how to get past a 401.
func needsToken(of string) string {
	return "it needs a token of its " + of + ", name a file with --token-file"
}

// hidden is the error of an answer that a viewer is refused with, nil if it is another one.
func (r *remote) hidden(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%s answers %s: %s", r.who(), resp.Status, needsToken("VIEW_TOKENS"))
	case http.StatusNotFound:
		return fmt.Errorf("%s answers %s: it shows this to clients on its machine, or with VIEW_TOKENS", r.who(), resp.Status)
	}
	return nil
}

// who names the process, for people.
func (r *remote) who() string {
	if r.byStore {
		return "the process of " + strings.TrimPrefix(pipeline.EmbeddedURL, "embedded:")
	}
	return r.url
}

// readToken reads the file of the token. Like one of AUTH_TOKENS_FILE it may have blank
// lines and comments.
func (r *remote) readToken() error {
	text, err := os.ReadFile(r.tokenFile)
	if err != nil {
		return fmt.Errorf("--token-file: %w", err)
	}
	var tokens []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			tokens = append(tokens, line)
		}
	}
	if len(tokens) != 1 {
		return fmt.Errorf("--token-file: %s holds %d tokens, want one", plain(r.tokenFile), len(tokens))
	}
	r.token = tokens[0]
	if _, token, named := strings.Cut(r.token, ":"); named {
		r.token = token // of name:token
	}
	if r.token == "" || strings.ContainsFunc(r.token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return fmt.Errorf("--token-file: %s holds no token: want one of RFC 6750, or a name, a colon and one", plain(r.tokenFile))
	}
	return nil
}

// ask sends a request, with a body of JSON or none, and returns the answer with its body,
// of which it reads at most so many bytes.
func (r *remote) ask(ctx context.Context, method, path string, header http.Header, body []byte, most int64) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	maps.Copy(req.Header, header)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := r.client.Do(req)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = fmt.Errorf("cannot ask %s: %w", r.who(), wrapped.Err) // the URL of a socket tells people nothing
		if r.guessed {
			err = fmt.Errorf("%w; name another process with --url", err)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	return resp, text, err
}
