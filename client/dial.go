package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

// DialConfig says how to open a WebSocket.
type DialConfig struct {
	// HTTP makes the connection. Its Timeout must be 0.
	HTTP *http.Client
	// URL is that of the resource: see Endpoint.
	URL string
	// Token is sent as bearer token (RFC 6750), if it is not empty.
	Token string
	// Subprotocol is what the server must speak.
	Subprotocol string
	// Sign is called for each ping of the server; nil for no one.
	Sign func()
}

// Endpoint returns the URL of a resource of a server. The server's has the scheme http,
// https, ws or wss.
func Endpoint(server, path string) (*url.URL, error) {
	target, err := url.Parse(server)
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains([]string{"http", "https", "ws", "wss"}, target.Scheme) || target.Host == "":
		return nil, fmt.Errorf("the URL is %q, want http[s]://host:port or ws[s]://host:port", server)
	}
	return target.JoinPath(path), nil
}

// Dial opens a WebSocket. An error that wraps ErrRefused says that another attempt is of
// no use; Asked says when to make it else.
func Dial(ctx context.Context, cfg DialConfig) (*websocket.Conn, error) {
	header := http.Header{}
	if cfg.Token != "" {
		header.Set("Authorization", "Bearer "+cfg.Token)
	}
	ws, resp, err := websocket.Dial(ctx, cfg.URL, &websocket.DialOptions{
		HTTPClient: cfg.HTTP, HTTPHeader: header, Subprotocols: []string{cfg.Subprotocol},
		OnPingReceived: func(context.Context, []byte) bool {
			if cfg.Sign != nil {
				cfg.Sign()
			}
			return true
		},
	})
	if err != nil {
		return nil, dialError(ctx, cfg.Subprotocol, resp, err)
	}
	if got := ws.Subprotocol(); got != cfg.Subprotocol {
		_ = ws.CloseNow()
		return nil, fmt.Errorf("%w: the server speaks %q, want %s", ErrRefused, got, cfg.Subprotocol)
	}
	return ws, nil
}

// Asked returns the pause before the next attempt that a server has asked for, or 0.
func Asked(err error) time.Duration {
	after, _ := errors.AsType[busy](err)
	return after.pause
}

// Codes of the protocol, beside those of RFC 6455.
const (
	codeMalformed    websocket.StatusCode = 4400
	codeUnauthorized websocket.StatusCode = 4401
)

// transient tells whether a server may take later what it refuses now with a status.
func transient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= http.StatusInternalServerError
}

// retryAfter is the pause that an answer asks for. A date is left to the back-off.
func retryAfter(h http.Header) time.Duration {
	n, _ := strconv.ParseInt(h.Get("Retry-After"), 10, 32)
	return min(seconds(n), maxAsked)
}

// busy is an error of a server that says when to come again.
type busy struct {
	error
	pause time.Duration
}

func (b busy) Unwrap() error { return b.error }

// Refusal marks the errors of a connection that the next one would have, too.
func Refusal(err error) error {
	ce, ok := errors.AsType[websocket.CloseError](err)
	if !ok {
		return err
	}
	why := fmt.Errorf("the server closes the connection with %d", ce.Code)
	if ce.Reason != "" {
		why = fmt.Errorf("%w: %s", why, strconv.QuoteToGraphic(ce.Reason))
	}
	switch ce.Code {
	case codeUnauthorized:
		return fmt.Errorf("%w: the token is missing or wrong: %w", ErrRefused, why)
	case codeMalformed, websocket.StatusProtocolError, websocket.StatusUnsupportedData, websocket.StatusInvalidFramePayloadData,
		websocket.StatusPolicyViolation, websocket.StatusMessageTooBig, websocket.StatusMandatoryExtension:
		return fmt.Errorf("%w: %w", ErrRefused, why)
	}
	return why
}

// dialError says why there is no WebSocket.
func dialError(ctx context.Context, protocol string, resp *http.Response, err error) error {
	switch {
	case resp != nil:
		return answerError(resp, protocol)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	if request, ok := errors.AsType[*url.Error](err); ok {
		err = request.Err // without the URL, which is known
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// answerError is that of a server that answers with something else than a WebSocket.
func answerError(resp *http.Response, protocol string) error {
	err := fmt.Errorf("the server answers %s", resp.Status)
	var p Problem
	if json.NewDecoder(resp.Body).Decode(&p) == nil && p.Detail != "" {
		err = fmt.Errorf("%w: %s", err, p.Detail)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%w: the token is missing or wrong: %w", ErrRefused, err)
	case code == http.StatusMethodNotAllowed || code == http.StatusNotFound || code < http.StatusBadRequest:
		return fmt.Errorf("%w: it takes no WebSocket of %s: %w", ErrRefused, protocol, err)
	case transient(code):
		return busy{err, retryAfter(resp.Header)}
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}
