package pipeline

import (
	"net/http"

	"async-data-processor/live"
	"async-data-processor/server"
)

// tailRoutes show the tail, if it is not turned off.
func (p *process) tailRoutes() []server.Route {
	if p.receipts.tail == nil {
		return nil
	}
	h := live.NewTailHandler(p.receipts.tail, server.ClientKey)
	return []server.Route{{
		Method: http.MethodGet, Path: live.TailPath, For: server.Viewers, Handler: h,
		Socket:   func(s *server.Socket, r *http.Request) { h.ServeSocket(s, r) },
		Protocol: live.TailProtocol,
	}}
}
