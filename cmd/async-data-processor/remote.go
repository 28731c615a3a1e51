package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
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
}

// remoteURL is asked unless there is a store in this folder.
const remoteURL = "http://localhost:8080"

// remoteHelp says which process it is.
const remoteHelp = `Unless --url names a process, it is the one that has the store in this folder,
data/broker, if that is there; else ` + remoteURL + `.`

// flags adds the flags; tokens is the name of the setting that has the token.
func (r *remote) flags(flags *pflag.FlagSet, tokens string) {
	flags.StringVar(&r.url, "url", "", "a server or message-consumer of the system, for example http://localhost:8081")
	flags.StringVar(&r.tokenFile, "token-file", "", "file that holds a token of its "+tokens)
	flags.StringVar(&r.cert, "tls-cert", "", "file of the certificate that the process must have, whatever its names; else the system's authorities decide")
}

// aim prepares the client. Its error is one of usage.
func (r *remote) aim() error {
	switch {
	case r.url != "":
		u, err := url.Parse(r.url)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("--url is %q, want http[s]://host:port", r.url)
		}
	case pipeline.StoreHere():
		r.url, r.client.Transport = "http://localhost", pipeline.StoreTransport()
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
	text, err := os.ReadFile(r.tokenFile)
	if err != nil {
		return fmt.Errorf("--token-file: %w", err)
	}
	r.token = strings.TrimSpace(string(text))
	if _, token, named := strings.Cut(r.token, ":"); named {
		r.token = token // of name:token
	}
	return nil
}

// ask sends a request, with a body of JSON or none, and returns the answer with its body,
// of which it reads at most so many bytes.
func (r *remote) ask(ctx context.Context, method, path string, body []byte, most int64) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	return resp, text, err
}
