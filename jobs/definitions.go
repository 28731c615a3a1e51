package jobs

import (
	"encoding/json"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"

	"async-data-processor/broker"
	"async-data-processor/jobs/frame"
	"async-data-processor/yamldoc"
)

// Bounds of a file of jobs. They are part of the contract.
const (
	// maxDefinitionsBytes bounds the file.
	maxDefinitionsBytes = 256 << 10
	// maxJobs bounds the jobs in it.
	maxJobs = 256
	// maxToldBytes bounds them as JSON, which a runner gets in one frame. Aliases can
	// make much of little.
	maxToldBytes = frame.MaxFrame / 2
	// maxProblems is how many errors of a file are told.
	maxProblems = 20
)

// parseDefinitions reads jobs: a map of their names, or a list. An error names the line of
// each thing that is wrong with them, at most 20.
func parseDefinitions(text []byte) ([]frame.Definition, error) {
	if len(text) > maxDefinitionsBytes {
		return nil, fmt.Errorf("the file is longer than %d KiB", maxDefinitionsBytes>>10)
	}
	top, err := yamldoc.Top(text)
	if err != nil || top == nil {
		return nil, err
	}
	p := new(definitionParser)
	switch top.Kind {
	case yaml.MappingNode:
		for key, value := range p.members(top, "job") {
			p.job(key, value)
		}
	case yaml.SequenceNode:
		for _, n := range top.Content {
			p.job(nil, yamldoc.Resolved(n))
		}
	default:
		p.fail(top, "want jobs: a map of their names, or a list")
	}
	if len(p.problems) > 0 {
		return nil, errors.Join(p.problems...)
	}
	return p.jobs, nil
}

// definitionParser collects jobs, and what is wrong with them.
type definitionParser struct {
	jobs     []frame.Definition
	names    map[string]int // the line of each
	told     int            // bytes of jobs as JSON
	problems []error
}

func (p *definitionParser) fail(at *yaml.Node, format string, args ...any) {
	if len(p.problems) < maxProblems {
		p.problems = append(p.problems, fmt.Errorf("line %d: "+format, append([]any{at.Line}, args...)...))
	}
}

// members are those of a map. One that comes twice, or has no plain name, is wrong.
func (p *definitionParser) members(of *yaml.Node, what string) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		lines := make(map[string]int)
		for i := 0; i+1 < len(of.Content); i += 2 {
			key, value := yamldoc.Resolved(of.Content[i]), yamldoc.Resolved(of.Content[i+1])
			before, twice := lines[key.Value]
			switch {
			case key.Kind != yaml.ScalarNode || yamldoc.IsNull(key):
				p.fail(key, "want a plain name of a %s", what)
				continue
			case twice:
				p.fail(key, "the %s %q is here twice, first in line %d", what, shorten(key.Value), before)
				continue
			}
			lines[key.Value] = key.Line
			if !yield(key, value) {
				return
			}
		}
	}
}

// job reads a job. In a map its name is the key; in a list that is nil.
func (p *definitionParser) job(key, n *yaml.Node) {
	at := n
	if key != nil {
		at = key
	}
	switch {
	case len(p.jobs) >= maxJobs || p.told > maxToldBytes:
		if len(p.problems) == 0 {
			p.fail(at, "there are too many jobs: want at most %d, and %d KiB of them as JSON", maxJobs, maxToldBytes>>10)
		}
		return
	case n.Kind != yaml.MappingNode:
		p.fail(at, "want a job, with members such as image and command")
		return
	}
	d := frame.Definition{On: frame.Manual}
	if key != nil {
		d.Name = key.Value
	}
	problems, given := len(p.problems), make(map[string]*yaml.Node)
	for name, value := range p.members(n, "member") {
		given[name.Value] = value
		switch read := fields[name.Value]; {
		case name.Value == "name" && key != nil && value.Value != key.Value:
			p.fail(value, "name: the job is called %q already", shorten(key.Value))
		case read == nil:
			p.fail(name, "a job has no %q; there are %s", shorten(name.Value), fieldNames)
		default:
			if err := read(&d, value); err != nil {
				p.fail(value, "%s: %w", name.Value, err)
			}
		}
	}
	if len(p.problems) > problems {
		return
	}
	if err := complete(&d, given); err != nil {
		p.fail(at, "%w", err)
		return
	}
	if line, twice := p.names[d.Name]; twice {
		p.fail(at, "the job %q is here twice, first in line %d", d.Name, line)
		return
	}
	if p.names == nil {
		p.names = make(map[string]int)
	}
	p.names[d.Name] = at.Line
	text, _ := json.Marshal(d) // it cannot fail on texts and numbers
	if p.told += len(text); p.told > maxToldBytes {
		p.fail(at, "the jobs have more than %d KiB as JSON", maxToldBytes>>10)
		return
	}
	p.jobs = append(p.jobs, d)
}

// shorten cuts what an error quotes.
func shorten(text string) string { return broker.Clip(text, 80) }
