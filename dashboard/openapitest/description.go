// Package openapitest holds the exchanges of HTTP tests to the description of the API.
// Only tests may import it: what it uses to read the description is large.
package openapitest

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"

	"async-data-processor/dashboard"
)

// Description is the description of the API as tests take it. It is stricter than what
// clients read: a member of an answer that is not described is an error. Clients have to
// bear such members, since later versions may add some. It is read-only.
type Description struct {
	doc *openapi3.T
	// operations of a path before those of a path that has a parameter in its place.
	operations []*operation
}

// operation is a method of a path.
type operation struct {
	name     string // such as "GET /submissions/{id}"
	method   string
	segments []string
	*openapi3.Operation
	parameters openapi3.Parameters // also those of the path
}

// Load returns the description, which is read once.
var Load = sync.OnceValues(func() (*Description, error) { return parse(dashboard.OpenAPI()) })

func parse(text []byte) (*Description, error) {
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, fmt.Errorf("openapi.yaml is no OpenAPI: %w", err)
	}
	d := &Description{doc: doc}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			d.operations = append(d.operations, &operation{
				method + " " + path, method, strings.Split(path, "/"), op, slices.Concat(item.Parameters, op.Parameters),
			})
		}
	}
	slices.SortFunc(d.operations, func(a, b *operation) int {
		return cmp.Or(strings.Count(a.name, "{")-strings.Count(b.name, "{"), strings.Compare(a.name, b.name))
	})
	closed := make(map[*openapi3.Schema]bool)
	for _, op := range d.operations {
		for _, response := range op.Responses.Map() {
			for _, media := range response.Value.Content {
				closeMembers(media.Schema, closed)
			}
		}
	}
	return d, nil
}

// closeMembers refuses members that a schema does not name, where it says nothing of them.
func closeMembers(ref *openapi3.SchemaRef, closed map[*openapi3.Schema]bool) {
	if ref == nil || ref.Value == nil || closed[ref.Value] {
		return
	}
	s := ref.Value
	closed[s] = true
	if len(s.Properties) > 0 && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
		s.AdditionalProperties.Has = new(bool)
	}
	for _, p := range s.Properties {
		closeMembers(p, closed)
	}
	for _, p := range slices.Concat(s.OneOf, s.AnyOf, openapi3.SchemaRefs{s.Items, s.AdditionalProperties.Schema}) {
		closeMembers(p, closed)
	}
}

// Operations returns the names of all operations, such as "GET /submissions/{id}".
func (d *Description) Operations() (names []string) {
	for _, op := range d.operations {
		names = append(names, op.name)
	}
	return names
}

// Problems returns the kinds of problems that are described.
func (d *Description) Problems() (kinds []string) {
	for _, v := range d.doc.Components.Schemas["Problem"].Value.Properties["type"].Value.Enum {
		kinds = append(kinds, strings.TrimPrefix(v.(string), problemTypes))
	}
	return kinds
}

// find returns the operation of a request, and whether its path is one of those there are.
// A request with HEAD is one with GET, where there is HEAD.
func (d *Description) find(method string, u *url.URL) (op *operation, known bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	segments := segmentsOf(u)
	for _, op := range d.operations {
		if !slices.EqualFunc(op.segments, segments, fits) {
			continue
		}
		if known = true; op.method == method {
			return op, true
		}
	}
	return nil, known
}

// segmentsOf returns the segments of a path, each of which may hold a slash.
func segmentsOf(u *url.URL) []string {
	segments := strings.Split(u.EscapedPath(), "/")
	for i, text := range segments {
		if plain, err := url.PathUnescape(text); err == nil {
			segments[i] = plain
		}
	}
	return segments
}

// fits tells whether a segment of a path is the described one, or a value for it.
func fits(described, sent string) bool {
	return described == sent || strings.HasPrefix(described, "{") && sent != ""
}
