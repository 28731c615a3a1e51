package openapitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

const problemTypes = "urn:async-data-processor:problem:"

// Exchange is a request and its answer.
type Exchange struct {
	Method string
	URL    *url.URL
	Sent   http.Header
	// Request is the body of the request; nil if it was not kept.
	Request []byte
	Status  int
	Header  http.Header
	// Body is the body of the answer, or its beginning if Cut is set.
	Body []byte
	Cut  bool
}

// everywhere are headers that any answer may have. HTTP and CORS have them, or the head of
// the description tells of them.
var everywhere = []string{
	"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Cache-Control", "Connection", "Content-Length",
	"Content-Type", "Date", "Vary", "X-Accel-Buffering", "X-Content-Type-Options", "X-Request-Id",
}

// Check returns the name of the operation, and what of the exchange is not as it is
// described. A request that was refused may have been wrong on purpose, and is not looked
// at; a WebSocket may be refused after it was opened. A path that is not described has to be answered with a problem.
func (d *Description) Check(e *Exchange) (name string, err error) {
	op, known := d.find(e.Method, e.URL)
	if e.Method == http.MethodHead && e.Status == http.StatusMethodNotAllowed {
		return "", nil
	}
	if op == nil {
		switch {
		case e.Status >= 400:
			return "", d.checkProblem(e, "")
		case e.Method == http.MethodOptions && known && e.Status == http.StatusNoContent && e.Header.Get("Allow") != "":
			return "", nil // RFC 9110, section 9.3.7
		case known:
			return "", errors.New("the method is not described")
		}
		return "", errors.New("the path is not described")
	}
	ref := op.Responses.Status(e.Status)
	if ref == nil {
		return op.name, errors.New("the status is not described")
	}
	var errs []error
	if 200 <= e.Status && e.Status < 400 {
		errs = append(errs, op.checkRequest(e))
	}
	errs = append(errs, checkHeader(ref.Value, e.Header), d.checkBody(ref.Value, e))
	return op.name, errors.Join(errs...)
}

func checkHeader(r *openapi3.Response, got http.Header) error {
	var errs []error
	described := slices.Clone(everywhere)
	for name, h := range r.Headers {
		described = append(described, http.CanonicalHeaderKey(name))
		values := got.Values(name)
		if len(values) == 0 {
			if h.Value.Required {
				errs = append(errs, fmt.Errorf("the header %s is missing", name))
			}
			continue
		}
		if err := checkText(h.Value.Schema.Value, values); err != nil {
			errs = append(errs, fmt.Errorf("the header %s: %w", name, err))
		}
	}
	for name := range got {
		if !slices.Contains(described, name) {
			errs = append(errs, fmt.Errorf("the header %s is not described", name))
		}
	}
	return errors.Join(errs...)
}

// checkText checks a value that was sent as text.
func checkText(s *openapi3.Schema, texts []string) error {
	var value any = texts[0]
	switch {
	case s.Type.Is("array"):
		all := make([]any, len(texts))
		for i, text := range texts {
			all[i] = text
		}
		value = all
	case s.Type.Is("integer"):
		n, err := strconv.ParseInt(texts[0], 10, 64)
		if err != nil {
			return err
		}
		value = float64(n)
	case s.Type.Is("boolean"):
		is, err := strconv.ParseBool(texts[0])
		if err != nil {
			return err
		}
		value = is
	}
	return s.VisitJSON(value, openapi3.DisableSchemaErrorDetails())
}

func (d *Description) checkBody(r *openapi3.Response, e *Exchange) error {
	contentType := e.Header.Get("Content-Type")
	if contentType == "" {
		if len(r.Content) > 0 && e.Method != http.MethodHead || len(e.Body) > 0 {
			return errors.New("there is no Content-Type")
		}
		return nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return fmt.Errorf("Content-Type: %w", err)
	}
	described := r.Content[media]
	switch {
	case described == nil:
		return fmt.Errorf("the content type %s is not described", media)
	case e.Method == http.MethodHead:
		return nil
	case media == "application/problem+json":
		return d.checkProblem(e, *r.Description)
	case media == "application/json" && !e.Cut:
		return checkJSON(described.Schema.Value, e.Body)
	case media == "application/x-ndjson":
		return checkLines(described.Schema.Value, e.Body, "")
	case media == "text/event-stream":
		return checkLines(described.Schema.Value, e.Body, "data: ")
	}
	return nil
}

// checkJSON checks a body that is one value.
func checkJSON(s *openapi3.Schema, text []byte) error {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return fmt.Errorf("%w in %.1000q", err, text)
	}
	if err := s.VisitJSON(value, openapi3.DisableSchemaErrorDetails()); err != nil {
		return fmt.Errorf("%w in %.1000q", err, text)
	}
	return nil
}

// checkLines checks each line that begins with a prefix, and that has arrived whole. Empty
// lines tell that a stream is alive.
func checkLines(s *openapi3.Schema, text []byte, prefix string) error {
	for line := range bytes.Lines(text) {
		line, found := bytes.CutPrefix(line, []byte(prefix))
		if !found || len(line) < 2 || line[len(line)-1] != '\n' {
			continue
		}
		if err := checkJSON(s, line); err != nil {
			return err
		}
	}
	return nil
}

// checkProblem checks a problem. Its status is that of the answer, and its type is one of
// those that the description of the response names, unless there is none.
func (d *Description) checkProblem(e *Exchange, description string) error {
	if media := e.Header.Get("Content-Type"); media != "application/problem+json" {
		return fmt.Errorf("the content type is %q, want a problem", media)
	}
	if e.Method == http.MethodHead {
		return nil
	}
	if err := checkJSON(d.doc.Components.Schemas["Problem"].Value, e.Body); err != nil {
		return err
	}
	var p struct {
		Type   string
		Status int
	}
	if err := json.Unmarshal(e.Body, &p); err != nil {
		return err
	}
	if p.Status != e.Status {
		return fmt.Errorf("the problem has the status %d", p.Status)
	}
	kind := strings.TrimPrefix(p.Type, problemTypes)
	if description != "" && !strings.Contains(description, "`"+kind+"`") {
		return fmt.Errorf("a problem %s is not described", kind)
	}
	return nil
}

// checkRequest checks a request that was not refused.
func (op *operation) checkRequest(e *Exchange) error {
	var errs []error
	query := e.URL.Query()
	for _, p := range op.parameters {
		var sent []string
		switch p.Value.In {
		case openapi3.ParameterInQuery:
			sent = query[p.Value.Name]
			query.Del(p.Value.Name)
		case openapi3.ParameterInHeader:
			sent = e.Sent.Values(p.Value.Name)
		case openapi3.ParameterInPath:
			at := slices.Index(op.segments, "{"+p.Value.Name+"}")
			sent = []string{segmentsOf(e.URL)[at]}
		}
		if len(sent) == 0 {
			if p.Value.Required {
				errs = append(errs, fmt.Errorf("the parameter %s is missing", p.Value.Name))
			}
			continue
		}
		if err := checkText(p.Value.Schema.Value, sent); err != nil {
			errs = append(errs, fmt.Errorf("the parameter %s: %w", p.Value.Name, err))
		}
	}
	query.Del("token") // in a URL it is ignored
	for name := range query {
		errs = append(errs, fmt.Errorf("the parameter %q is not described", name))
	}
	return errors.Join(append(errs, op.checkSent(e))...)
}

// checkSent checks the body of a request that was not refused.
func (op *operation) checkSent(e *Exchange) error {
	if op.RequestBody == nil || e.Sent.Get("Content-Type") == "" {
		return nil
	}
	media, _, err := mime.ParseMediaType(e.Sent.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("Content-Type of the request: %w", err)
	}
	described := op.RequestBody.Value.Content[media]
	switch {
	case described == nil:
		return fmt.Errorf("the content type %s of the request is not described", media)
	case len(e.Request) == 0 || e.Sent.Get("Content-Encoding") != "":
		return nil
	case media == "application/json":
		err = checkJSON(described.Schema.Value, e.Request)
		if _, huge := errors.AsType[*json.UnmarshalTypeError](err); huge {
			return nil // numbers of entries are kept digit for digit, also beyond a float64
		}
	case strings.HasSuffix(media, "ndjson"):
		err = checkLines(described.Schema.Value, e.Request, "")
	}
	if err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	return nil
}
