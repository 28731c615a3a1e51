package local_test

import (
	"testing"

	"go.uber.org/goleak"

	"async-data-processor/broker/brokertest"
	"async-data-processor/broker/local"
)

func TestMain(m *testing.M) {
	// The guard of the mounts of lossyfs lives as long as the process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("async-data-processor/faults/process.Start.func1"))
}

// TestConformance runs the suite on an engine over a file.
func TestConformance(t *testing.T) {
	brokertest.Run(t, brokertest.Harness{Fresh: func(t *testing.T, _ bool) *brokertest.Engine {
		file, err := local.OpenFile(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		store := brokertest.NewFaulty(file)
		engine := local.New(local.Config{Store: store})
		if err := engine.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			store.Start()
			store.Resume()
			if err := engine.Close(); err != nil {
				t.Error(err)
			}
		})
		return brokertest.LocalEngine(engine, store)
	}})
}
