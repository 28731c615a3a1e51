package pipeline

import (
	"net/http"

	"async-data-processor/dashboard"
	"async-data-processor/server"
)

// pageRoutes serve the page to everybody: its files hold no data.
func pageRoutes() (routes []server.Route) {
	h := dashboard.Page()
	for _, path := range dashboard.Paths() {
		routes = append(routes, server.Route{Method: http.MethodGet, Path: path, Handler: h}, server.Route{Method: http.MethodHead, Path: path, Handler: h})
	}
	return routes
}
