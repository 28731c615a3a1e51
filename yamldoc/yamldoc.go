// Package yamldoc reads files that hold one YAML document.
package yamldoc

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Top returns the top of a text's one document, nil if there is nothing in it.
func Top(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	switch err := dec.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		return nil, fmt.Errorf("line %d: a second document, want one", second.Line)
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	if top := first.Content[0]; !IsNull(top) {
		return top, nil
	}
	return nil, nil
}

// Resolved returns the node that an alias stands for.
func Resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// IsNull tells whether a node is a null, such as a member without a value.
func IsNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }
