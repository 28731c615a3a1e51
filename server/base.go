package server

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
)

// maxBase is the longest Config.Base, in bytes.
const maxBase = 200

// CheckBase says why a path cannot be Config.Base. Empty is the root.
func CheckBase(base string) error {
	if base == "" {
		return nil
	}
	parts := strings.Split(base, "/")
	ok := len(base) <= maxBase && len(parts) > 1 && parts[0] == ""
	for _, part := range parts[1:] {
		ok = ok && only(part, idSafe) && part != "." && part != ".."
	}
	if !ok {
		return fmt.Errorf("%q: want a path such as /adp, without a slash at its end, of letters, digits, '.', '_' and '-'", clip(base, 100))
	}
	return nil
}

// listed are the resources, and where they are.
func (s *Server) listed() string {
	if s.cfg.Base == "" {
		return s.resources
	}
	return s.resources + ", below " + s.cfg.Base
}

// below returns the handler that serves what e serves below Config.Base. Elsewhere it
// has the health resources only.
func (s *Server) below(e *echo.Echo) http.Handler {
	base := s.cfg.Base
	if base == "" {
		return e
	}
	e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			answer := c.Response()
			answer.Before(func() {
				if place := answer.Header()["Location"]; len(place) == 1 && strings.HasPrefix(place[0], "/") {
					answer.Header()["Location"] = []string{base + place[0]}
				}
			})
			return next(c)
		}
	})
	outside := echo.New()
	outside.Logger.SetOutput(e.Logger.Output())
	outside.Use(s.observe)
	s.routeHealth(outside)
	outside.GET(base, func(c echo.Context) error { // else the page would look for its files beside it
		return c.Redirect(http.StatusPermanentRedirect, base+"/")
	})
	inside := http.StripPrefix(base, e)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.EscapedPath(), base+"/") {
			inside.ServeHTTP(w, r)
		} else {
			outside.ServeHTTP(w, r)
		}
	})
}
