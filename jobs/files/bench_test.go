package files

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"async-data-processor/jobs/store"
	"async-data-processor/message"
	"async-data-processor/output"
)

// BenchmarkRecord writes batches of five by eight workers, with and without a record of
// their files in SQLite, everything in memory. It tells the processor time of a message.
func BenchmarkRecord(b *testing.B) {
	for name, roll := range map[string]output.Roll{"files of five": {}, "rolling": {Bytes: 1 << 20}} {
		for _, records := range []bool{false, true, true, false} {
			b.Run(fmt.Sprintf("%s/%v", name, records), func(b *testing.B) { benchmarkRecord(b, roll, records) })
		}
	}
}

func benchmarkRecord(b *testing.B, roll output.Roll, records bool) {
	path, err := os.MkdirTemp("/dev/shm", "files")
	if err != nil {
		path = b.TempDir()
	}
	defer os.RemoveAll(path)
	dir, err := output.Open(path+"/out", output.Window{IDs: 100_000, Age: time.Hour}, roll)
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	ctx, stop := context.WithCancel(b.Context())
	var recording sync.WaitGroup
	if records {
		db, err := store.Open(ctx, "sqlite:"+path+"/state.db")
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		r := New(Config{Store: db})
		dir.Recorder = r
		recording.Go(func() { r.Run(ctx) })
	}
	s, err := dir.Shard(ctx, 0, nil)
	if err != nil {
		b.Fatal(err)
	}
	before := processorTime()
	b.ResetTimer()
	var writing sync.WaitGroup
	for w := range 8 {
		writing.Go(func() {
			d := message.NewDelivery(message.Envelope{}, false, nil)
			for range b.N/40 + 1 {
				batch, id := &message.Batch{Size: 5}, message.NewID()
				for i := range 5 {
					batch.Add(d, message.Message{Line: fmt.Appendf(nil, `{"message_id":"%s.%d","timestamp":"2019-10-12T08:10:54.52Z","value":"A"}`, id, i)})
				}
				if _, _, err := s.Write(ctx, fmt.Sprint("0-", w), batch); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	writing.Wait()
	b.StopTimer()
	if err := s.Close(); err != nil {
		b.Error(err)
	}
	stop()
	recording.Wait() // what is recorded later, counts, too
	b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
}

// processorTime is what the process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
