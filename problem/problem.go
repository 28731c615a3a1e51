// Package problem answers HTTP requests with problem details (RFC 9457) or JSON, for
// handlers that package server mounts. The server has problems of its own, with more in them.
package problem

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// Types is what the type of each problem begins with. The rest is its kind.
const Types = "urn:async-data-processor:problem:"

// JSON answers with a value as JSON. One that cannot be encoded is a bug.
func JSON(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		Answer(w, http.StatusInternalServerError, "internal-error", err.Error(), 0)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client may be gone
}

// Answer answers with a problem. retry is when the client may come again, in seconds; 0
// says nothing of that. The id of the request is that in the header of the answer.
func Answer(w http.ResponseWriter, status int, kind, detail string, retry int) {
	if retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retry))
	}
	AnswerErrors(w, status, kind, detail, nil)
}

// AnswerErrors answers with a problem that has a list of what is wrong.
func AnswerErrors(w http.ResponseWriter, status int, kind, detail string, errors any) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct { // the client may be gone
		Type      string `json:"type"`
		Title     string `json:"title"`
		Status    int    `json:"status"`
		Detail    string `json:"detail"`
		RequestID string `json:"request_id,omitempty"`
		Errors    any    `json:"errors,omitempty"`
	}{Types + kind, http.StatusText(status), status, detail, w.Header().Get("X-Request-Id"), errors})
}
