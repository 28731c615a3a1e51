package server

import (
	"context"
	"net/http"
	"net/http/pprof"

	"github.com/labstack/echo/v4"
)

// routeProfiles adds the profiles of the process (net/http/pprof), but for the
// command line, which may hold secrets.
func (s *Server) routeProfiles(e *echo.Echo) {
	for path, h := range map[string]http.HandlerFunc{
		"/debug/pprof/*":       pprof.Index,
		"/debug/pprof/profile": pprof.Profile,
		"/debug/pprof/trace":   pprof.Trace,
	} {
		e.GET(path, s.untilShutdown(h))
	}
}

// untilShutdown ends the request when Shutdown begins, which would otherwise
// wait for a recording of half a minute.
func (s *Server) untilShutdown(h http.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, cancel := context.WithCancel(c.Request().Context())
		defer cancel()
		defer context.AfterFunc(s.closing, cancel)()
		h(c.Response(), c.Request().WithContext(ctx))
		return nil
	}
}
