package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/labstack/echo/v4"

	"async-data-processor/faults/process"
)

// echoCommand makes this program the bare HTTP server, a process of its own.
const echoCommand = "bare-http"

// startEcho starts it.
func startEcho(ctx context.Context) (*process.Process, error) {
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(ctx, nil, own, echoCommand)
}

// serveEcho reads bodies and answers 201, until ctx ends.
func serveEcho(ctx context.Context, log io.Writer) error {
	e := echo.New()
	e.POST("/message", func(c echo.Context) error {
		if _, err := io.Copy(io.Discard, c.Request().Body); err != nil {
			return err
		}
		return c.NoContent(http.StatusCreated)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "{\"message\":\"listening\",\"addr\":%q}\n", listener.Addr())
	s := &http.Server{Handler: e}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
