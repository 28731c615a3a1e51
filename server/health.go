package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/labstack/echo/v4"
)

// errDraining is the check that fails while the server drains.
var errDraining = errors.New("the server is stopping")

// routeHealth adds the health resources. They need no token, as a probe decides
// about the process, not about its data. Only those who may view see why one fails.
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
	Status string `json:"status"`
	Checks checks `json:"checks,omitempty"`
}

// checks is an object of JSON, from names to results, in the order of the list.
type checks []Check

func (c checks) MarshalJSON() ([]byte, error) {
	object := []byte{'{'}
	for i, check := range c {
		result := "ok"
		if check.Err != nil {
			result = check.Err.Error()
		}
		member, err := json.Marshal(map[string]string{check.Name: result})
		if err != nil {
			return nil, err
		}
		if i > 0 {
			object = append(object, ',')
		}
		object = append(object, member[1:len(member)-1]...)
	}
	return append(object, '}'), nil
}

// hidden returns the results without their errors, which may name users and paths.
func (c checks) hidden() checks {
	c = slices.Clone(c)
	for i := range c {
		if c[i].Err != nil {
			c[i].Err = errHidden
		}
	}
	return c
}

// live says that the process answers. It must not depend on anything else:
// orchestrators restart a process that is not live, and a broker that is down
// would restart them all.
func (s *Server) live(c echo.Context) error {
	return answerProbe(c, http.StatusOK, health{Status: "ok"})
}

// ready says whether a submission would be tried now; with ?verbose, whatever
// its value, also why.
func (s *Server) ready(c echo.Context) error {
	verbose, shown := c.QueryParams().Has("verbose"), false
	if verbose {
		var err error
		if shown, err = s.view(c.(*call)); err != nil {
			return err
		}
	}
	results := checks(s.cfg.Ready())
	if s.draining.Load() {
		// The first, because the other parts fail as they stop.
		results = append(checks{{Name: "server", Err: errDraining}}, results...)
	}
	var failed []error
	for _, check := range results {
		if check.Err != nil && !check.Aside {
			failed = append(failed, fmt.Errorf("%s: %w", check.Name, check.Err))
		}
	}
	c.(*call).readiness = true
	h, status := health{Status: "ok"}, http.StatusOK
	if len(failed) > 0 {
		h.Status, status = "unavailable", http.StatusServiceUnavailable
		c.(*call).request.Err = errors.Join(failed...)
		c.Response().Header().Set("Retry-After", strconv.Itoa(notPublished.retryAfter))
	}
	if verbose {
		h.Checks = results
		if !shown {
			h.Checks = results.hidden()
		}
	}
	return answerProbe(c, status, h)
}

func answerProbe(c echo.Context, status int, h health) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	c.(*call).probe = true
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Blob(status, "application/json", append(text, '\n'))
}
