package live

import (
	"errors"
	"net/http"
	"strings"

	"async-data-processor/problem"
)

// MessagePath is in front of the id of a message in the path of a request.
const MessagePath = "/api/v1/messages/"

// maxLocates bounds the requests that wait for a Location. A client has a quarter.
const maxLocates = 2 * maxLocating

// LocationHandler tells clients that may view where a message is.
type LocationHandler struct {
	locator *Locator
	client  func(*http.Request) string
	places  receiptPlaces
}

// NewLocationHandler returns the handler of MessagePath. client tells clients apart.
func NewLocationHandler(l *Locator, client func(*http.Request) string) *LocationHandler {
	return &LocationHandler{locator: l, client: client, places: receiptPlaces{limit: maxLocates, share: maxLocates / 4}}
}

// ServeHTTP implements http.Handler for GET.
func (h *LocationHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	client := h.client(r)
	if !h.places.take(client) {
		problem.Answer(w, http.StatusTooManyRequests, "overloaded", "this client looks for as many messages at a time as it may", 1)
		return
	}
	defer h.places.give(client)
	loc, err := h.locator.Locate(r.Context(), strings.TrimPrefix(r.URL.Path, MessagePath))
	switch {
	case errors.Is(err, ErrMessageID):
		problem.Answer(w, http.StatusBadRequest, "invalid-id", err.Error(), 0)
	case errors.Is(err, ErrLooks):
		problem.Answer(w, http.StatusTooManyRequests, "overloaded", err.Error(), 1)
	case err != nil: // the client is gone, or the process stops
		problem.Answer(w, http.StatusServiceUnavailable, "draining", errStopping.Error(), 2)
	default:
		problem.JSON(w, http.StatusOK, loc)
	}
}
