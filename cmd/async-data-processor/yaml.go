package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"async-data-processor/pipeline"
	"async-data-processor/yamldoc"
)

func configVar(flags *pflag.FlagSet, file *string) {
	flags.StringVar(file, "config", "", "YAML file of settings, named as the flags (CONFIG_FILE)")
}

// readConfigFile returns the settings in a YAML file by the names of their flags;
// none if there is no file. A null is a setting that is not set.
func readConfigFile(path string) (map[string]given, error) {
	if path == "" {
		return nil, nil
	}
	if err := pipeline.CheckPath(path); err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	nodes, err := mapping(text)
	if err != nil {
		return nil, fmt.Errorf("--config %s: %w", path, err)
	}
	// A file may be shared by all commands, so it may hold settings of any.
	known := pflag.NewFlagSet("", pflag.ContinueOnError)
	addSettings(known, &pipeline.Config{}, forAny)
	values := make(map[string]given, len(nodes))
	var errs []error
	for name, node := range nodes {
		at := fmt.Sprintf("%s, line %d", path, node.Line)
		f := known.Lookup(name)
		if f == nil {
			errs = append(errs, fmt.Errorf("--config %s: there is no setting %q; they are named as the flags", at, name))
			continue
		}
		g, err := fromNode(f, node)
		if err != nil {
			errs = append(errs, fmt.Errorf("--config %s: %s: %w", at, name, err))
		} else if len(g.values) > 0 {
			g.source, g.at = path, at
			values[name] = g
		}
	}
	return values, errors.Join(errs...)
}

// mapping returns the values of a document that is a mapping, by their names. The
// errors of the library quote values, which may be secrets, only where it is no mapping.
func mapping(text []byte) (map[string]yaml.Node, error) {
	top, err := yamldoc.Top(text)
	if err != nil || top == nil {
		return nil, err
	}
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want settings, each as a line of the form name: value", top.Line)
	}
	var nodes map[string]yaml.Node
	return nodes, top.Decode(&nodes)
}

// fromNode returns what a setting is given: nothing by a null, several values only
// if it takes a list.
func fromNode(f *pflag.Flag, node yaml.Node) (given, error) {
	_, takesList := f.Value.(pflag.SliceValue)
	plain := yamldoc.Resolved(&node)
	switch {
	case isSecretList(f) && (yamldoc.IsNull(plain) || plain.Kind == yaml.SequenceNode && len(plain.Content) == 0):
		return given{}, errEmpty
	case yamldoc.IsNull(plain):
		return given{}, nil
	case plain.Kind == yaml.ScalarNode:
		return given{values: []string{plain.Value}}, nil
	case plain.Kind == yaml.SequenceNode && !takesList:
		return given{}, errors.New("want a value, not a list")
	case plain.Kind != yaml.SequenceNode:
		return given{}, errors.New("want a plain value")
	}
	g := given{list: true}
	for _, n := range plain.Content {
		if n = yamldoc.Resolved(n); n.Kind != yaml.ScalarNode || yamldoc.IsNull(n) {
			return given{}, errors.New("want a list of plain values")
		}
		g.values = append(g.values, n.Value)
	}
	return g, nil
}
