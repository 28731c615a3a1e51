package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"
)

// errDraining is the check that fails while the server drains.
var errDraining = errors.New("the server is stopping")

// routeHealth adds the health resources, which need no token: whoever probes
// them decides about the process, not about its data.
func (s *Server) routeHealth(e *echo.Echo) {
	for path, h := range map[string]echo.HandlerFunc{
		"/livez":  s.live,
		"/readyz": s.ready,
		"/health": s.ready,
	} {
		e.GET(path, h)
		e.HEAD(path, h)
	}
}

// health is the body of the health resources.
type health struct {
	Status string            `json:"status"`
	Checks map[string]string `json:"checks,omitempty"`
}

// live says that the process answers. It must not depend on anything else, or a
// broker that is away would get every process restarted.
func (s *Server) live(c echo.Context) error {
	return writeHealth(c, http.StatusOK, health{Status: "ok"})
}

// ready says whether a submission would be tried now; with ?verbose, whatever
// its value, also why.
func (s *Server) ready(c echo.Context) error {
	checks := s.cfg.Ready()
	if s.draining.Load() {
		checks = append(checks[:len(checks):len(checks)], Check{"server", errDraining})
	}
	h := health{Status: "ok", Checks: make(map[string]string, len(checks))}
	var failed []error
	for _, check := range checks {
		h.Checks[check.Name] = "ok"
		if check.Err != nil {
			h.Checks[check.Name] = check.Err.Error()
			failed = append(failed, fmt.Errorf("%s: %w", check.Name, check.Err))
		}
	}
	if !c.QueryParams().Has("verbose") {
		h.Checks = nil
	}
	if len(failed) == 0 {
		return writeHealth(c, http.StatusOK, h)
	}
	c.(*call).access.Err = errors.Join(failed...)
	h.Status = "unavailable"
	c.Response().Header().Set("Retry-After", strconv.Itoa(notPublished.retryAfter))
	return writeHealth(c, http.StatusServiceUnavailable, h)
}

func writeHealth(c echo.Context, status int, h health) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Blob(status, "application/json", text)
}
