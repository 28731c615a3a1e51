package live

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"async-data-processor/problem"
)

const (
	// maxStreams bounds the receipts that are streamed at a time, and maxHTTPWaits those
	// whose client waits for the outcome. A client has half of each.
	maxStreams   = 1024
	maxHTTPWaits = maxWaits
	// maxAsks is how many receipts a client may ask for at a time, by streams and waits, too.
	maxAsks = maxWaits / 2
	// afterWait is how long a client that has waited may take for the answer.
	afterWait = 10 * time.Second
)

// ReceiptHTTP sets up a ReceiptHandler.
type ReceiptHTTP struct {
	Receipts *Receipts
	// Path is in front of an id in the path of a request.
	Path string
	// Wait returns how long a client prefers to wait for the outcome, and whether it does.
	Wait func(http.Header) (time.Duration, bool)
	// Client tells clients apart.
	Client func(*http.Request) string
}

// ReceiptHandler serves receipts to clients that may see them: as JSON, as a page, and as
// a stream that ends by itself, of server-sent events or lines of text.
type ReceiptHandler struct {
	cfg   ReceiptHTTP
	watch func(id string) (watching, error)

	asks, waits, streams receiptPlaces
}

// watching is the handler's view of a Watch.
type watching interface {
	Ready() <-chan struct{}
	Changed() <-chan struct{}
	Receipt() (Receipt, error)
	Close()
}

// NewReceiptHandler returns the handler of receipts.
func NewReceiptHandler(cfg ReceiptHTTP) *ReceiptHandler {
	return newReceiptHandler(cfg, func(id string) (watching, error) { return cfg.Receipts.Watch(id) })
}

func newReceiptHandler(cfg ReceiptHTTP, watch func(id string) (watching, error)) *ReceiptHandler {
	return &ReceiptHandler{
		cfg: cfg, watch: watch,
		asks:    receiptPlaces{limit: 2 * maxAsks, share: maxAsks},
		waits:   receiptPlaces{limit: maxHTTPWaits, share: maxHTTPWaits / 2},
		streams: receiptPlaces{limit: maxStreams, share: maxStreams / 2},
	}
}

// forms are the media types of a receipt, the preferred one first.
var forms = []string{"application/json", "text/plain", "text/html", "text/event-stream"}

// ServeHTTP implements http.Handler for GET and HEAD. It ends when the client goes or the
// context of the request ends, which is when the process stops.
func (h *ReceiptHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Vary", "Accept")
	header.Set("X-Content-Type-Options", "nosniff")
	form := negotiate(r.Header["Accept"], forms)
	switch {
	case form == "":
		problem.Answer(w, http.StatusNotAcceptable, "not-acceptable", "a receipt is "+strings.Join(forms, ", "), 0)
		return
	case form == "text/event-stream" && r.Header.Get("Last-Event-ID") == doneEventID:
		w.WriteHeader(http.StatusNoContent) // else an EventSource would begin again (HTML standard, section 9.2)
		return
	}
	query := r.URL.Query()
	indexes, err := strconv.ParseBool(query.Get("indexes"))
	if err != nil && query.Has("indexes") {
		problem.Answer(w, http.StatusBadRequest, "invalid-query", "indexes is 1, or left out", 0)
		return
	}
	client := h.cfg.Client(r)
	if !h.asks.take(client) {
		receiptProblems.Answer(w, errShare)
		return
	}
	defer h.asks.give(client)
	watch, err := h.watch(strings.TrimPrefix(r.URL.Path, h.cfg.Path))
	if err != nil {
		receiptProblems.Answer(w, err)
		return
	}
	defer watch.Close()
	select {
	case <-watch.Ready():
	case <-r.Context().Done(): // what is not known yet may be taken for what there is not
		receiptProblems.Answer(w, errStopping)
		return
	}
	if form == "text/event-stream" || form == "text/plain" {
		h.stream(w, r, form, watch, client)
		return
	}
	h.once(w, r, form, watch, client, indexes)
}

// once answers with what is known now or, if the client prefers that, when it is done.
func (h *ReceiptHandler) once(w http.ResponseWriter, r *http.Request, form string, watch watching, client string, indexes bool) {
	receipt, err := watch.Receipt()
	if atMost, asked := h.cfg.Wait(r.Header); asked && h.waits.take(client) {
		receipt, err = await(w, r, watch, atMost)
		h.waits.give(client)
		w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(atMost/time.Second)))
	}
	if err != nil {
		receiptProblems.Answer(w, err)
		return
	}
	header := w.Header()
	if !receipt.Done {
		header.Set("Retry-After", "1")
	}
	if form == "text/html" {
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Content-Security-Policy", pagePolicy)
		_, _ = w.Write(page(&receipt)) // the client may be gone
		return
	}
	if !indexes {
		receipt.Indexes = nil
	}
	problem.JSON(w, http.StatusOK, &receipt)
}

// await waits until a submission is done or forgotten, at most for so long, or until the
// request ends. One that is not known yet may become known.
func await(w http.ResponseWriter, r *http.Request, watch watching, atMost time.Duration) (Receipt, error) {
	control := http.NewResponseController(w)
	// Else the time-outs of the server would end it. An error means that the connection is gone.
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Now().Add(atMost + afterWait))
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	for {
		receipt, err := watch.Receipt()
		if receipt.Done || err != nil && !errors.Is(err, ErrNotKnown) {
			return receipt, err
		}
		select {
		case <-watch.Changed():
		case <-timer.C:
			return watch.Receipt()
		case <-r.Context().Done():
			return watch.Receipt()
		}
	}
}

var (
	errShare    = errors.New("this client asks for as many receipts at a time as it may")
	errStopping = errors.New("the process is stopping, ask another one, or again")
	errStreams  = errors.New("as many receipts are streamed as may be, at all or to one client; ask for JSON, or try again")
)

// receiptProblems are those that errors are.
var receiptProblems = problem.Table{
	{
		Is: ErrNoID, Status: http.StatusBadRequest, Kind: "invalid-id",
		Detail: ErrNoID.Error() + "; it has 26 characters, as in the answer to the submission; leave out the .0 of a message",
	},
	{Is: ErrNotKnown, Status: http.StatusNotFound, Kind: "not-known"},
	{Is: ErrForgotten, Status: http.StatusGone, Kind: "forgotten"},
	{Is: ErrTooMany, Status: http.StatusServiceUnavailable, Kind: "too-many-receipts", Retry: 2},
	{Is: errStreams, Status: http.StatusServiceUnavailable, Kind: "too-many-receipts", Retry: 2},
	{Is: errStopping, Status: http.StatusServiceUnavailable, Kind: "draining", Retry: 2},
	{Is: errShare, Status: http.StatusTooManyRequests, Kind: "overloaded", Retry: 1},
}
