package faults

import (
	"strings"
	"testing"

	"async-data-processor/faults/rig"
)

// engine is a broker to open, and how the files behind it are written.
type engine struct {
	name  string
	open  func(testing.TB) rig.Broker
	rolls bool
}

var (
	rabbitmq  = engine{name: "rabbitmq", open: rig.NewVhost}
	jetstream = engine{name: "jetstream", open: rig.NewNATS}
	embedded  = engine{name: "embedded", open: rig.NewStore}
)

// rolling is what makes files roll: several of a shard in a second, of a few
// batches each.
var rolling = []string{"ROLL_BYTES=8192", "ROLL_INTERVAL=300ms"}

// rolled is the engine before rolling files.
func (e engine) rolled() engine {
	e.name, e.rolls = e.name+", rolling", true
	return e
}

// inBothModes is the engines, before a file for each batch and before rolling
// files; the latter in a short run for the first of them alone.
func inBothModes(engines ...engine) []engine {
	for _, e := range engines[:either(1, len(engines))] {
		engines = append(engines, e.rolled())
	}
	return engines
}

func (e engine) testName() string { return strings.ReplaceAll(e.name, ", ", "-") }
