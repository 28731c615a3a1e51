package pipeline

import (
	"net/http"

	"async-data-processor/deadletter"
	"async-data-processor/live"
	"async-data-processor/server"
)

// newLetters gives the process its view of the dead letters. It knows its node once that
// is there.
func newLetters(p *process) error {
	cfg := p.cfg
	c := deadletter.Config{
		Broker: p.broker, Rules: p.rules, Shards: cfg.Shards, ReadOnly: cfg.ReadOnly,
		Node: func() string { return p.node.ID() },
		Nodes: func() int {
			others, _ := p.node.Awaited()
			return len(others) + 1
		},
		Hidden: cfg.LivePayload == string(live.PayloadNone), Moved: p.receipts.Moved,
		Tell: p.events.Send,
	}
	if len(cfg.LiveRedact) > 0 {
		mask, err := live.NewMask(cfg.LiveRedact)
		if err != nil {
			return err
		}
		c.Mask = mask
	}
	p.letters = deadletter.New(c)
	p.meanwhile = append(p.meanwhile, p.letters.Run)
	return nil
}

// letterRoutes show the dead letters to viewers, and let admins change them.
func letterRoutes(p *process) (routes []server.Route) {
	h := deadletter.Handler{Letters: p.letters}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Serve(w, r, server.ClientKey(r), server.Client(r))
	})
	add := func(method, path string, who server.Role) {
		routes = append(routes, server.Route{Method: method, Path: path, For: who, Handler: serve})
	}
	add(http.MethodGet, deadletter.Path, server.Viewers)
	add(http.MethodGet, deadletter.Path+"/*", server.Viewers)
	add(http.MethodPost, deadletter.Path+"/*", server.Admins)
	// Where DELETE has a path of its own, the router looks for GET there, too.
	add(http.MethodGet, deadletter.Path+"/tasks/*", server.Viewers)
	add(http.MethodDelete, deadletter.Path+"/tasks/*", server.Admins)
	return routes
}
